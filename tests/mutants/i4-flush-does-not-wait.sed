# I4: a flush does not wait for the CPUs that it kicks.
# File: hv/mm/*.c
# Test: flush.operations_flush_before_they_return
/^static void flush_all(/,/^}/s/while (flush_running(cpu) == space &&/while (cpu > MM_MAX_CPUS \&\& flush_running(cpu) == space \&\&/
