# SPDX-License-Identifier: BSD-2-Clause
# Builds Cleave's memory core, its hosted port, the hypervisor and the tests. `make help` lists the
# commands.
#
# Everything is built below build/<compiler>-<mode>/<geometry>/, which mirrors the source tree:
#
#   build/gcc-debug/real/hv/mm/fault.o            an object
#   build/gcc-debug/real/libcleave.a              core, entry formats and hosted port
#   build/gcc-debug/real/libtest.a                what all test programs share
#   build/gcc-debug/real/tests/unit/fault_test    a test program: fault_test.c and both libraries
#   build/gcc-release/scenario, .../bench         what `make scenario` and `make bench` start
#   build/gcc-release/cleave.elf, .../cleave.iso  the hypervisor, and a disc that boots it
#   build/gcc-debug/boottest.elf                  the platform alone, with tests/boot/ as its kernel
#   build/linux/vmlinux, .../initrd.cpio          Debian's kernel as a guest, and what it starts
#   build/tools/cleave, libcleave.*               the command and the library for the control domain
#   build/gcc-debug/trace.elf, trace/hosted       the randomized run on the machine, and in a process

VARIANTS := clang-asan gcc-debug gcc-release clang-debug clang-release
SHIPPED := gcc-release

# --- What is built from what -----------------------------------------------------------------

FORMATS := hv/x86/vmx/ept.c hv/x86/svm/npt.c
CORE := $(wildcard hv/mm/*.c) $(FORMATS)
HOSTED := $(wildcard hv/host/*.c)

# The hypervisor is the core's very objects, the machine and the kernel. What it knows of C structures
# in assembly are offsets in a header made from *offsets.c.
IMAGES := gcc-debug gcc-release
OFFSETS := $(wildcard hv/x86/*offsets.c hv/x86/*/*offsets.c)
X86 := $(filter-out $(FORMATS) $(OFFSETS),$(wildcard $(foreach e,c S,hv/x86/*.$e hv/x86/*/*.$e)))
KERNEL := $(wildcard hv/kernel/*.c hv/kernel/*.S hv/xen/*.c)
# The platform: all of hv/x86/ but the world switches.
PLATFORM := $(wildcard $(foreach e,c S,hv/x86/boot/*.$e) \
            $(foreach f,acpi apic console console_log cpu crash date format port smp string symbols rtc time trap,hv/x86/$f.c) \
            hv/x86/trap_entry.S)
BOOT_TEST := $(wildcard tests/boot/*.c)
# The randomized run beside the reference, compiled without the C library's headers: the same objects in a
# process and in the image.
TRACE := $(filter-out %_test.c tests/spec/run.c,$(wildcard tests/spec/*.c)) tests/unit/random.c \
         tests/trace/trace.c
TRACE_KERNEL := $(filter-out %/trace.c %/hosted.c,$(wildcard tests/trace/*.c tests/trace/*.S))
# What of it needs no machine and has unit tests in a process.
PURE := hv/x86/boot/multiboot.c hv/x86/boot/ranges.c hv/kernel/config.c hv/kernel/elf.c hv/kernel/pvh.c \
        hv/kernel/guest_walk.c
PURE_real := $(addprefix hv/kernel/,guest_acpi.c ids.c lapic.c mtrr.c terminal.c timer.c) \
             $(filter-out $(addprefix hv/xen/,domctl.c hvm_context.c hvm_records.c log_dirty.c \
                memory_map.c sysctl.c physmap.c),$(wildcard hv/xen/*.c)) \
             hv/x86/date.c hv/x86/console_log.c

# A test program is one *_test.c; the folder says in which geometry it runs. Other files in these
# folders are shared by all test programs.
TEST_FOLDERS := spec both small unit
FOLDERS_real := both unit
FOLDERS_small := spec both small
TEST_SHARED := $(filter-out %_test.c,$(wildcard $(TEST_FOLDERS:%=tests/%/*.c))) $(PURE)

# scenario.c is the program of `make scenario`; all else in tests/bench/ is that of `make bench`, and
# may be used by scenario.c.
BENCH := $(filter-out %/scenario.c,$(wildcard tests/bench/*.c))
BENCH_LIBS := -ljansson -lm

# --- Flags -----------------------------------------------------------------------------------

FLAGS_debug := -O1 -g -DMM_DEBUG -DMM_HOOKS
FLAGS_release := -O2 -g
FLAGS_asan := $(FLAGS_debug) -fsanitize=address,undefined -fno-sanitize-recover=all \
              -fno-omit-frame-pointer
GEOMETRY_real := hv/geometry/real
GEOMETRY_small := tests/geometry/small

WARNINGS := -Wall -Wextra -Wshadow -Wswitch-enum -Wundef -Werror
# The core's objects are those that the hypervisor links: no floating point, no red zone, and frame
# pointers for the backtrace of a crash.
CORE_FLAGS := -std=gnu11 $(WARNINGS) -Wconversion -ffreestanding -fno-stack-protector \
              -fno-omit-frame-pointer -mno-red-zone -mgeneral-regs-only -I hv/include -I hv/mm
X86_FLAGS := -I hv/x86 $(CORE_FLAGS) -I hv/kernel -I hv/xen -D__XEN_INTERFACE_VERSION__=0x00040e00
HOSTED_FLAGS := -std=gnu11 $(WARNINGS) -Wconversion -pthread -I hv/include -I hv/mm -I hv/host
TEST_FLAGS := $(filter-out -Wconversion,$(HOSTED_FLAGS)) -I tests/unit -I tests/spec -I tests/bench \
              -iquote hv/x86 -iquote hv/kernel -iquote hv/xen
TRACE_FLAGS := -I tests/trace/include $(filter-out -Wconversion,$(X86_FLAGS)) -I hv/host -I tests/spec \
               -I tests/unit -I tests/trace
TOOL_FLAGS := -std=gnu11 $(WARNINGS) -Wconversion -I hv/include -I tools/libcleave -iquote hv/kernel
export CORE_FLAGS X86_FLAGS HOSTED_FLAGS TEST_FLAGS TRACE_FLAGS TOOL_FLAGS

# flags(source): by the folder it lies in
flags = $(if $(filter hv/host/%,$1),$(HOSTED_FLAGS),$(if $(filter hv/mm/%,$1),$(CORE_FLAGS),\
        $(if $(filter hv/% tests/boot/%,$1),$(X86_FLAGS),$(TEST_FLAGS))))

# --- Commands --------------------------------------------------------------------------------

# T=name chooses tests. A suite, or suite.name, names the file as well.
T :=
SUITE := $(firstword $(subst ., ,$(T)))
# In a plain check, what runs in both geometries runs in the real one, which is slower, in one build.
program = $(patsubst %.c,build/$1/$2/%,$(wildcard $(call folders,$1,$2)))
folders = $(patsubst %,tests/%/*_test.c,$(if $(CLEAVE_LONG)$(filter small,$2)$(filter gcc-debug,$1),\
          $(FOLDERS_$2),$(filter-out both,$(FOLDERS_$2))))
programs = $(call program,$1,small) $(call program,$1,real)
# A plain check leaves out the build that shows least beside the others.
CHECK_VARIANTS := $(if $(CLEAVE_LONG),$(VARIANTS),$(filter-out clang-debug,$(VARIANTS)))
PROGRAMS := $(foreach v,$(CHECK_VARIANTS),$(call programs,$v))
DEBUG_PROGRAMS := $(call programs,gcc-debug)
# Every allocation of every test refused in turn (tests/unit/alloc.h): in the small geometry, where a
# run is cheap. In a long check in the real one as well, what runs in both with gcc only.
ALLOC_VARIANTS := $(if $(CLEAVE_LONG),gcc-debug clang-asan,gcc-debug)
ALLOC_PROGRAMS := $(foreach v,$(ALLOC_VARIANTS),$(call program,$v,small) $(if $(CLEAVE_LONG),$(foreach \
                  p,$(call program,$v,real),$(if $(or $(filter gcc%,$v),$(findstring \
                  /tests/unit/,$p)),$p))))
ALLOC_JOBS = $(foreach p,$(ALLOC_PROGRAMS),"$p -a")
# These names are no test programs, but the checks below; what they start from.
NEEDS_lint := objects
NEEDS_mutant := objects
NEEDS_boot := build/gcc-debug/boottest.elf
NEEDS_spec := $(foreach v,$(IMAGES),build/$v/trace.elf build/$v/trace/hosted)
NEEDS_qemu := build/gcc-debug/cleave.elf guests
NEEDS_bochs := $(NEEDS_qemu)
NEEDS_linux := build/linux/vmlinux build/linux/initrd.cpio build/linux/initrd-redis.cpio \
               build/guests/hello.elf
NEEDS_linux-hv := $(NEEDS_linux) build/gcc-debug/cleave.elf build/$(SHIPPED)/cleave.elf
NEEDS_run = build/$(SHIPPED)/cleave.elf build/linux/vmlinux build/linux/initrd-redis.cpio \
            $(if $(filter bochs,$(MACHINE)),,build/linux/vmlinux-control build/linux/initrd-control.cpio)
NEEDS_control := $(NEEDS_linux-hv) build/linux/vmlinux-control \
                 $(addprefix build/linux/,initrd-control.cpio initrd-short.cpio)
# What crash(8) needs to open a core, only where it does: it is large.
ifneq ($(filter control control.crash,$(T))$(if $(T),,$(CLEAVE_LONG)),)
NEEDS_control += build/linux/carry build/linux/vmlinux-symbols
endif
SONAME := libcleave.so.0
TOOLS := $(addprefix build/tools/,libcleave.a $(SONAME) cleave)
NEEDS_tools := $(TOOLS) build/guests/hello.elf
NEEDS_linux-boot := $(NEEDS_linux) build/$(SHIPPED)/cleave.elf
NEEDS_figures := build/$(SHIPPED)/cleave.elf build/guests/bench.elf
NEEDS_scenario := build/$(SHIPPED)/scenario
CHOSEN := $(if $(NEEDS_$(SUITE)),,$(or $(filter %/$(SUITE)_test,$(DEBUG_PROGRAMS)),\
               $(if $(findstring .,$(T)),,$(DEBUG_PROGRAMS))))

# Checks that are no test programs: "name: command".
MUTANTS := $(sort $(basename $(notdir $(wildcard tests/mutants/*.patch tests/mutants/*.sed))))
# A plain check runs one or two mutants of each invariant; `make mutants` and check-long run all.
QUICK_MUTANTS := i1-fork-parent-stays-writable i1-split-lowers-head-first i1-merge-lowers-parts-first \
                 i2-pins-ignored-at-fork i3-table-copy-counts-one-too-few i4-batch-drops-before-flush \
                 i5-no-flush i6-huge-leaves-executable i7-restrict-ignores-armed i8-quota-one-off \
                 i9-first-touch-not-zeroed i10-reap-ignores-budget
CHECK_MUTANTS := $(if $(CLEAVE_LONG)$(T),$(MUTANTS),$(filter $(QUICK_MUTANTS),$(MUTANTS)))
CHECKS = $(foreach c,$(shell tests/lint.sh --list),"lint.$c: tests/lint.sh $c") \
          $(foreach m,$(CHECK_MUTANTS),"mutant.$m: tests/mutants.sh --one $m") \
          $(foreach b,$(shell tests/boot.sh --list),"boot.$b: tests/boot.sh $b") \
          $(foreach g,$(shell CLEAVE_LONG=$(CLEAVE_LONG)$(T) tests/guests.sh --list),"$g: tests/guests.sh $(subst ., ,$g)") \
          $(foreach s,$(shell tests/spec.sh --list),"spec.$s: tests/spec.sh $(subst ., ,$s)") \
          $(foreach m,qemu bochs,"$m.selftest: tests/selftest.sh $m") "qemu.console: tests/console.sh" \
          $(foreach l,$(shell tests/linux.sh --list),"linux.$l: tests/linux.sh $l") \
          $(foreach l,$(shell tests/linux-hv.sh --list),"linux-hv.$l: tests/linux-hv.sh $l") \
          $(foreach d,$(shell CLEAVE_LONG=$(CLEAVE_LONG)$(T) tests/demo.sh --list),"run.$d: tests/demo.sh $d") \
          $(foreach l,$(shell CLEAVE_LONG=$(CLEAVE_LONG)$(T) tests/linux-boot.sh --list),"linux-boot.$l: tests/linux-boot.sh $l") \
          $(foreach m,$(shell CLEAVE_LONG=$(CLEAVE_LONG)$(T) tests/control.sh --list),"control.$m: tests/control.sh $m") \
          $(if $(CLEAVE_LONG)$(T),"control.crash: tests/crash.sh") \
          "tools.install: tests/install.sh" \
          $(if $(CLEAVE_LONG)$(T),"figures.repeat: tests/bench/hypervisor.sh") \
          "scenario.run: build/$(SHIPPED)/scenario"

ifeq ($(MAKELEVEL),0)
MAKEFLAGS += -j$(shell nproc)
endif
MAKEFLAGS += --no-builtin-rules --no-print-directory $(if $(V),,--silent)

PREFIX := /usr/local
LIBDIR = $(PREFIX)/lib
.PHONY: tools install deb xen-reference all help run scenario check check-long check-allocations debug bench format lint analyze mutants clean objects
.DELETE_ON_ERROR:
.SECONDARY:

all: $(DEBUG_PROGRAMS) build/$(SHIPPED)/scenario $(IMAGES:%=build/%/cleave.elf) guests

help:
	sed -n 's/^#: //p' Makefile

#: make run              boots the hypervisor: its control domain forks a Linux guest, a table shows memory and faults,
#:                       and leaves you at a prompt there; FILES=DIR puts a folder there, as /files
#: make run DEMO=1       the same unattended, with a verdict; FLIP=RECORD makes it find a wrong bit
#: make run MACHINE=bochs  on an emulated Intel machine, where the guest forks itself; GUEST=tiny: a guest of a few
#:                       lines of C
MACHINE := qemu
GUEST := linux
DEMO :=
FLIP :=
FILES :=
run:
	configs/install.sh run-$(MACHINE)
	$(MAKE) $(NEEDS_run) build/guests/demo.elf
	configs/run.sh $(if $(DEMO),-d) $(if $(FLIP),-f $(FLIP)) $(if $(FILES),-a "$(FILES)") -g $(GUEST) $(MACHINE)

#: make scenario         plays a scenario on the hosted core and prints its table
scenario:
	configs/install.sh scenario
	$(MAKE) build/$(SHIPPED)/scenario
	build/$(SHIPPED)/scenario

#: make check            every test in every variant, lint, mutants and the scenario
#: make check T=name     one test (or suite, or mutant.name, or lint), in gcc-debug only
check:
	configs/install.sh check
ifeq ($(T),)
	$(MAKE) -k $(PROGRAMS) objects $(addprefix build/$(SHIPPED)/,scenario bench) \
		$(IMAGES:%=build/%/cleave.elf) $(NEEDS_boot) $(NEEDS_spec) guests $(NEEDS_control) $(TOOLS) || \
		broken='build.all: echo see the messages of the compilers; false'; \
	tests/run.sh $${broken:+"$$broken"} $(CHECKS) $(ALLOC_JOBS) $(PROGRAMS)
else
	echo "$(T): in gcc-debug only"
	$(MAKE) $(or $(NEEDS_$(SUITE)),$(CHOSEN),objects)
	tests/run.sh -t "$(T)" $(CHOSEN) $(CHECKS)
endif

#: make check-long       the same with many more random steps, new seeds, and what takes longest
check-long:
	CLEAVE_LONG=1 $(MAKE) check

#: make check-allocations  refuses each allocation of each test in turn; hours
check-allocations:
	configs/install.sh check
ifeq ($(CLEAVE_ALL_ALLOCATIONS),)
	CLEAVE_LONG=1 CLEAVE_ALL_ALLOCATIONS=1 $(MAKE) check-allocations
else
	$(MAKE) $(ALLOC_PROGRAMS)
	tests/run.sh $(ALLOC_JOBS)
endif

#: make debug T=name     one test under gdb, which stops where a check fails
debug:
	configs/install.sh debug
	test -n "$(T)" || { echo "make debug T=suite.name"; exit 1; }
	$(MAKE) $(CHOSEN)
	tests/debug.sh "$(T)" $(CHOSEN)

#: make bench            the benchmarks: build/bench/results.json and plots
bench:
	configs/install.sh bench
	$(MAKE) build/$(SHIPPED)/bench $(NEEDS_figures) build/linux/vmlinux build/linux/initrd.cpio \
		$(addprefix build/linux/,figures count.so vmlinux-control initrd-figures.cpio)
	$(MAKE) build/debian/xen-hypervisor-4.17-amd64.version || echo "No figures beside Debian's Xen."
	build/$(SHIPPED)/bench

#: make xen-reference    boots Debian's own Xen, and records its answers: tests/system/xc/reference/
xen-reference:
	configs/install.sh xen-reference
	$(MAKE) build/debian/xen-hypervisor-4.17-amd64.version build/linux/vmlinux-control \
		build/linux/initrd-reference.cpio
	tests/xen.sh -r

#: make tools            libcleave and the command cleave, for the control domain: build/tools/
tools:
	configs/install.sh tools
	$(MAKE) $(TOOLS)

#: make install          installs them below DESTDIR and PREFIX (/usr/local), with headers and man page
install: tools
	install -d $(addprefix $(DESTDIR)$(PREFIX)/,bin include/cleave share/man/man1 \
		share/bash-completion/completions) $(DESTDIR)$(LIBDIR)/pkgconfig
	install -m 755 build/tools/cleave $(DESTDIR)$(PREFIX)/bin/
	install -m 644 build/tools/libcleave.a build/tools/$(SONAME) $(DESTDIR)$(LIBDIR)/
	ln -sf $(SONAME) $(DESTDIR)$(LIBDIR)/libcleave.so
	install -m 644 tools/libcleave/cleave.h $(DESTDIR)$(PREFIX)/include/
	install -m 644 hv/include/cleave/*.h $(DESTDIR)$(PREFIX)/include/cleave/
	sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@LIBDIR@|$(LIBDIR)|' tools/libcleave/libcleave.pc.in \
		>$(DESTDIR)$(LIBDIR)/pkgconfig/libcleave.pc
	install -m 644 tools/cleave/cleave.1 $(DESTDIR)$(PREFIX)/share/man/man1/
	install -m 644 tools/cleave/completion.bash $(DESTDIR)$(PREFIX)/share/bash-completion/completions/cleave

#: make deb              Debian packages of the tools: build/deb/
deb: tools
	configs/deb.sh build/deb

SOURCES = $(shell find hv tests guest-agent tools -name '*.[ch]')

#: make format           formats every C file in place
format:
	clang-format -i $(SOURCES)

#: make lint             format, clang-tidy, shellcheck and the rules of this tree
lint:
	configs/install.sh check
	$(MAKE) objects
	tests/run.sh -v -t lint $(CHECKS)

#: make analyze          clang's path analysis; not always right, so only advice
analyze:
	configs/install.sh check
	tests/lint.sh analyze

#: make mutants          breaks the core on purpose, in each way of tests/mutants/
mutants:
	configs/install.sh check
	$(MAKE) objects
	tests/mutants.sh

#: make clean            removes build/; V=1 with any of these shows the commands
clean:
	rm -rf build

# --- Rules -----------------------------------------------------------------------------------

# rules(variant, geometry): everything below build/<variant>/<geometry>/
define rules
build/$1/$2/%.o: %.c Makefile
	mkdir -p $$(@D)
	echo "  CC  $1/$2 $$<"
	$(firstword $(subst -, ,$1)) $$(call flags,$$<) $(FLAGS_$(lastword $(subst -, ,$1))) \
		-I $(GEOMETRY_$2) -DTEST_VARIANT='"$1/$2"' -MMD -MP -c -o $$@ $$<

build/$1/$2/libcleave.a: $(patsubst %.c,build/$1/$2/%.o,$(CORE) $(HOSTED))
build/$1/$2/libtest.a: $(patsubst %.c,build/$1/$2/%.o,$(TEST_SHARED) $(PURE_$2))
build/$1/$2/libbench.a: $(patsubst %.c,build/$1/$2/%.o,$(BENCH))
build/$1/$2/lib%.a:
	mkdir -p $$(@D)
	rm -f $$@
	ar rcsD $$@ $$^

LINK_$1 := $(firstword $(subst -, ,$1)) -pthread $(FLAGS_$(lastword $(subst -, ,$1)))

build/$1/$2/%_test: build/$1/$2/%_test.o build/$1/$2/libtest.a build/$1/$2/libcleave.a
	$$(LINK_$1) -o $$@ $$^
endef
$(foreach v,$(VARIANTS),$(foreach g,real small,$(eval $(call rules,$v,$g))))

define bench_rules
build/$1/scenario: $(addprefix build/$1/real/,tests/bench/scenario.o libbench.a libcleave.a)
	$$(LINK_$1) -o $$@ $$^ -lm

build/$1/bench: $(addprefix build/$1/real/,libbench.a libcleave.a)
	$$(LINK_$1) -o $$@ $$^ $(BENCH_LIBS)
endef
$(foreach v,$(VARIANTS),$(eval $(call bench_rules,$v)))

# --- The hypervisor's image ------------------------------------------------------------------

# image_rules(variant): objects of assembly, generated headers, and both images
define image_rules
build/$1/real/%.h: %.c Makefile
	mkdir -p $$(@D)
	echo "  GEN $1/real $$<"
	$(firstword $(subst -, ,$1)) $$(call flags,$$<) $(FLAGS_$(lastword $(subst -, ,$1))) \
		-I $(GEOMETRY_real) -MMD -MP -MT $$@ -MF $$@.d -S -o - $$< | \
		sed -n 's/^.*@@ //p' >$$@

build/$1/real/%.o: %.S Makefile $(OFFSETS:%.c=build/$1/real/%.h)
	mkdir -p $$(@D)
	echo "  AS  $1/real $$<"
	$(firstword $(subst -, ,$1)) -g -I hv/x86 -I build/$1/real/hv/x86 -I build/$1/real/hv/x86/vmx \
		-I build/$1/real/hv/x86/svm -MMD -MP -c -o $$@ $$<

OBJECTS_$1 = $$(addsuffix .o,$$(addprefix build/$1/real/,$$(basename $$1)))
build/$1/cleave.elf: $$(call OBJECTS_$1,$(CORE) $(X86) $(KERNEL))
build/$1/boottest.elf: $$(call OBJECTS_$1,$(CORE) $(PLATFORM) $(BOOT_TEST))
build/$1/trace.elf: $$(call OBJECTS_$1,$(CORE) $(X86) $(filter %.S,$(TRACE_KERNEL)))
build/$1/trace.elf: $(patsubst %.c,build/$1/trace/%.o,$(TRACE) $(filter %.c,$(TRACE_KERNEL)))
build/$1/trace.elf: LINK_OPTIONS := --wrap=port_random --wrap=port_refuse_allocation
build/$1/%.elf: hv/x86/boot/link.lds hv/x86/symbols.sh configs/link.sh
	echo "  LD  $$@"
	configs/link.sh $$@ $$(LINK_OPTIONS) $$(filter %.o,$$^)

build/$1/trace/%.o: %.c Makefile
	mkdir -p $$(@D)
	echo "  CC  $1/trace $$<"
	$(firstword $(subst -, ,$1)) $(TRACE_FLAGS) $(FLAGS_$(lastword $(subst -, ,$1))) \
		-I $(GEOMETRY_real) -MMD -MP -c -o $$@ $$<

build/$1/trace/hosted: $(patsubst %.c,build/$1/trace/%.o,$(TRACE) tests/trace/hosted.c) \
                       build/$1/real/libcleave.a
	$$(LINK_$1) -o $$@ $$^

build/$1/cleave.iso: build/$1/cleave.elf $(MODULES) configs/iso.sh
	echo "  ISO $$@"
	configs/iso.sh -c "$(COMMAND_LINE)" $$@ $$< $(MODULES)
endef
$(foreach v,$(IMAGES),$(eval $(call image_rules,$v)))

# --- Guests ----------------------------------------------------------------------------------

# Each folder of tests/guests/ but lib/ is one story, a kernel of its own.
STORIES := $(filter-out lib,$(notdir $(patsubst %/main.c,%,$(wildcard tests/guests/*/main.c))))
GUEST_FLAGS := -std=gnu11 -O2 -ffreestanding -fno-pie -fno-stack-protector -mno-red-zone \
               -mgeneral-regs-only -Wall -Wextra -Wshadow -Werror -I hv/include -I tests/guests/lib \
               -D__XEN_INTERFACE_VERSION__=0x00040e00
export GUEST_FLAGS
.PHONY: guests
guests: $(STORIES:%=build/guests/%.elf)
	:
build/guests/%.elf: tests/guests/%/main.c $(wildcard tests/guests/lib/*) \
                    $(wildcard hv/include/cleave/*.h) Makefile
	mkdir -p $(@D)
	echo "  GUEST $@"
	gcc $(GUEST_FLAGS) -static -no-pie -nostdlib -Wl,-T,tests/guests/lib/link.lds \
		-Wl,--build-id=none -Wl,--no-warn-rwx-segments -o $@ \
		tests/guests/lib/start.S tests/guests/lib/guest.c $<

# Linux as a guest: Debian's kernel as plain ELF, and what it starts. Files of Debian's packages are below
# build/debian/PACKAGE/.
.PHONY: linux-tools
linux-tools:
	configs/install.sh linux

build/debian/%.version: configs/unpack.sh | linux-tools
	configs/unpack.sh $* build/debian/$*
	touch $@

build/linux/vmlinux: build/debian/linux-image-cloud-amd64.version configs/vmlinux.sh | linux-tools
	echo "  LINUX $@"
	configs/vmlinux.sh build/debian/linux-image-cloud-amd64/boot/vmlinuz-* $@

# The programs of tests/system/linux/ that run in the guest.
build/linux/cleave-guest: $(addprefix tests/system/linux/,cleave_guest.c causes.c hypercall.c)
build/linux/cleave-load: $(addprefix tests/system/linux/,cleave_load.c content.c redis.c sha1.c)
build/linux/check-json: tests/system/control/check_json.c Makefile
	mkdir -p $(@D)
	echo "  CC  $@"
	gcc $(HOSTED_FLAGS) -O2 -static -o $@ $< -ljansson

build/linux/cleave-%: tests/system/linux/identity.c $(wildcard tests/system/linux/*.h) \
                      $(wildcard hv/include/cleave/*.h) Makefile
	mkdir -p $(@D)
	echo "  CC  $@"
	gcc $(HOSTED_FLAGS) -O2 -static -o $@ $(filter %.c,$^)

# initrd.cpio is small; initrd-redis.cpio has what the workload needs too.
INITRD := init=tests/system/linux/init.sh bin/cleave-guest=build/linux/cleave-guest \
          bin/busybox=build/debian/busybox-static/bin/busybox
REDIS := bin/cleave-load=build/linux/cleave-load \
         bin/redis-server=build/debian/redis-tools/usr/bin/redis-check-rdb
WORKLOAD := $(shell awk '$$2 == "unpack" && $$3 == "workload" { print $$1 }' configs/packages.txt)
build/linux/initrd-redis.cpio: build/linux/cleave-load $(WORKLOAD:%=build/debian/%.version)
build/linux/initrd.cpio build/linux/initrd-redis.cpio: configs/initrd.sh tests/system/linux/init.sh \
		build/linux/cleave-guest $(addprefix build/debian/,linux-image-cloud-amd64.version \
		busybox-static.version) | linux-tools
	echo "  INITRD $@"
	configs/initrd.sh -k build/debian/linux-image-cloud-amd64 -m xen-privcmd \
		$(if $(findstring redis,$@),-l build/debian) $@ $(INITRD) $(if $(findstring redis,$@),$(REDIS))

# libcleave and the command. (The libcleave.a of build/VARIANT/ is the core with its hosted port.)
COMMAND_LIBRARIES := -ljansson -llz4 -llzma -lz
TOOL_LIBRARIES = $(COMMAND_LIBRARIES) $(XC_LIBRARIES)
build/tools/objects/%.o: tools/%.c Makefile
	mkdir -p $(@D)
	echo "  CC  $@"
	gcc $(TOOL_FLAGS) -O2 -g -fPIC -MMD -MP -c -o $@ $<

# What builds a guest is the hypervisor's own source.
build/tools/objects/hv/%.o: hv/%.c Makefile
	mkdir -p $(@D)
	echo "  CC  $@"
	gcc $(TOOL_FLAGS) -O2 -g -fPIC -MMD -MP -c -o $@ $<

LIBCLEAVE := $(patsubst tools/%.c,build/tools/objects/%.o,$(wildcard tools/libcleave/*.c)) \
             $(patsubst %,build/tools/objects/hv/kernel/%.o,elf guest_acpi pvh)
COMMAND := $(patsubst tools/%.c,build/tools/objects/%.o,$(wildcard tools/cleave/*.c))
build/tools/libcleave.a: $(LIBCLEAVE)
	rm -f $@
	ar rcsD $@ $^

build/tools/$(SONAME): $(LIBCLEAVE) tools/libcleave/libcleave.map
	gcc -shared -Wl,-soname,$(SONAME) -Wl,--version-script,tools/libcleave/libcleave.map -Wl,-z,defs -o $@ \
		$(LIBCLEAVE) -lxencall -lxentoollog

build/tools/cleave: $(COMMAND) build/tools/$(SONAME)
	gcc -o $@ $^ $(COMMAND_LIBRARIES) -lxenctrl -lxentoollog

build/linux/cleave: $(COMMAND) build/tools/libcleave.a
	mkdir -p $(@D)
	gcc -static -o $@ $^ $(TOOL_LIBRARIES)

# The control domain: the distribution's full kernel, and programs that use its libxenctrl.
build/linux/vmlinux-control: build/debian/linux-image-amd64.version configs/vmlinux.sh | linux-tools
	echo "  LINUX $@"
	configs/vmlinux.sh build/debian/linux-image-amd64/boot/vmlinuz-* $@

XC := $(filter-out xc,$(notdir $(patsubst %.c,%,$(wildcard tests/system/xc/*.c))))
XC_LIBRARIES := -lxenctrl -lxencall -lxenforeignmemory -lxenevtchn -lxengnttab -lxendevicemodel -lxenhypfs \
                -lxentoollog -lxentoolcore -lz
build/linux/xc/%: tests/system/xc/%.c tests/system/xc/xc.c tests/system/xc/xc.h Makefile
	mkdir -p $(@D)
	echo "  CC  $@"
	gcc $(HOSTED_FLAGS) -Wno-conversion -O2 -static -o $@ $(filter %.c,$^) $(XC_LIBRARIES)

# crash(8), which opens such a core on the host, and the symbols of the very kernel that the guests run.
.PHONY: crash-tools
crash-tools:
	configs/install.sh crash-tools

build/debian/linux-image-cloud-amd64-dbg.version: build/debian/linux-image-cloud-amd64.version | linux-tools
	grep -sqxF "$$(sed 's/ /-dbg /' $<)" $@ || rm -f $@
	configs/unpack.sh "$$(sed 's/ /-dbg=/' $<)" $(basename $@) 'usr/lib/debug/boot/vmlinux-*'
	touch $@

# The size of struct pid is that of one element of its array: without, crash 8.0.2 finds no process in a kernel whose
# array has no size (commit b69f0aeb0689, in Debian's 6.1 too; crash 8.0.4 does).
build/linux/vmlinux-symbols: build/debian/linux-image-cloud-amd64-dbg.version | crash-tools
	mkdir -p $(@D)
	echo "  LINUX $@"
	LC_ALL=C sed 's/pid\x00\x60/pid\x00\x70/g' $(basename $<)/usr/lib/debug/boot/vmlinux-* >$@

build/linux/carry: tests/system/control/carry.c Makefile
	mkdir -p $(@D)
	echo "  CC  $@"
	gcc $(HOSTED_FLAGS) -O2 -static -o $@ $<

# gdb, with which the tests open what `cleave dump` writes.
build/linux/libdebuginfod.so.1: $(addprefix tests/system/control/debuginfod.,c map) Makefile
	mkdir -p $(@D)
	gcc $(HOSTED_FLAGS) -O2 -fPIC -shared -Wl,-soname,$(@F) -Wl,--version-script,$(word 2,$^) -o $@ $<

GDB := $(shell awk '$$2 == "unpack" && $$3 == "gdb" { print $$1 }' configs/packages.txt)
build/linux/initrd-control.cpio: configs/initrd.sh $(wildcard tests/system/control/*) $(XC:%=build/linux/xc/%) \
		build/linux/cleave build/linux/check-json build/linux/cleave-guest build/linux/carry build/linux/initrd.cpio \
		build/linux/libdebuginfod.so.1 build/guests/hello.elf $(GDB:%=build/debian/%.version) \
		$(WORKLOAD:%=build/debian/%.version) $(addprefix build/debian/,linux-image-amd64.version \
		linux-image-cloud-amd64.version busybox-static.version) | linux-tools
	echo "  INITRD $@"
	configs/initrd.sh -k build/debian/linux-image-amd64 -l build/debian $(addprefix -m ,xen-privcmd xen-evtchn xen-gntdev \
		xen-gntalloc xenfs) $@ init=tests/system/control/init.sh \
		bin/busybox=build/debian/busybox-static/bin/busybox bin/cleave=build/linux/cleave \
		bin/check-json=build/linux/check-json bin/cleave-guest=build/linux/cleave-guest \
		bin/demo=tests/system/control/demo.sh bin/carry=build/linux/carry \
		bin/crash-core=tests/system/control/crash.sh lib/expect.sh=tests/system/control/expect.sh \
		lib/libdebuginfod.so.1=build/linux/libdebuginfod.so.1 bin/gdb=build/debian/gdb-minimal/usr/bin/gdb \
		$(foreach x,cleave create found rights short,tests/$x=tests/system/control/$x.sh) guest/initrd=build/linux/initrd.cpio \
		guest/hello=build/guests/hello.elf guest/vmlinuz=$$(echo build/debian/linux-image-cloud-amd64/boot/vmlinuz-*) \
		$(foreach x,$(XC),tests/$x=build/linux/xc/$x)

# With the short form of the command's test alone, for a machine where everything takes long.
build/linux/initrd-short.cpio: configs/initrd.sh $(addprefix tests/system/control/,init.sh short.sh) build/linux/cleave \
		$(WORKLOAD:%=build/debian/%.version) $(addprefix build/debian/,linux-image-amd64.version \
		busybox-static.version) | linux-tools
	echo "  INITRD $@"
	configs/initrd.sh -k build/debian/linux-image-amd64 -l build/debian $(addprefix -m ,xen-privcmd xenfs) $@ \
		init=tests/system/control/init.sh bin/busybox=build/debian/busybox-static/bin/busybox \
		bin/cleave=build/linux/cleave tests/short=tests/system/control/short.sh

# The same programs for Xen's own domain 0: those whose answers are recorded.
REFERENCE := context events info life log logdirty long maps memory params rebuild
build/linux/initrd-reference.cpio: configs/initrd.sh tests/system/control/init.sh $(REFERENCE:%=build/linux/xc/%) \
		$(addprefix build/debian/,linux-image-amd64.version busybox-static.version) | linux-tools
	echo "  INITRD $@"
	configs/initrd.sh -k build/debian/linux-image-amd64 $(addprefix -m ,xen-privcmd xen-evtchn xen-gntdev \
		xen-gntalloc xenfs) $@ init=tests/system/control/init.sh \
		bin/busybox=build/debian/busybox-static/bin/busybox $(foreach x,$(REFERENCE),tests/$x=build/linux/xc/$x)

# What calls cost in the control domain, and in Xen's domain 0; and the emulator's plugin that counts.
build/linux/figures: $(addprefix tests/bench/control/,figures.c boot.c figures.h marks.h) $(addprefix \
		tests/system/xc/xc.,c h) $(addprefix hv/kernel/,elf.c guest_acpi.c pvh.c elf.h guest_acpi.h pvh.h) \
		$(wildcard hv/include/cleave/*.h) Makefile
	mkdir -p $(@D)
	echo "  CC  $@"
	gcc $(HOSTED_FLAGS) -Wno-conversion -iquote hv/kernel -O2 -static -o $@ $(filter %.c,$^) $(XC_LIBRARIES)

# The guest whose boot is a figure: it powers off.
build/linux/off: tests/bench/control/off.c Makefile
	mkdir -p $(@D)
	echo "  CC  $@"
	gcc $(HOSTED_FLAGS) -O2 -static -nostdlib -Wl,-e,power_off -o $@ $<

build/linux/initrd-off.cpio: configs/initrd.sh build/linux/off | linux-tools
	echo "  INITRD $@"
	configs/initrd.sh $@ init=build/linux/off

build/linux/count.so: tests/bench/control/count.c tests/bench/control/marks.h Makefile
	mkdir -p $(@D)
	echo "  CC  $@"
	gcc $(HOSTED_FLAGS) -O2 -fPIC -shared -fvisibility=hidden -o $@ $<

build/linux/initrd-figures.cpio: configs/initrd.sh tests/system/control/init.sh build/linux/figures \
		build/linux/vmlinux build/linux/initrd-off.cpio $(addprefix build/debian/,linux-image-amd64.version busybox-static.version) | linux-tools
	echo "  INITRD $@"
	configs/initrd.sh -k build/debian/linux-image-amd64 $(addprefix -m ,xen-privcmd xen-evtchn xenfs) $@ \
		init=tests/system/control/init.sh bin/busybox=build/debian/busybox-static/bin/busybox \
		guest/vmlinux=build/linux/vmlinux guest/initrd=build/linux/initrd-off.cpio tests/figures=build/linux/figures

# What lint and the mutants start from.
objects: build/$(SHIPPED)/real/libcleave.a \
	$(foreach g,real small,build/gcc-debug/$g/libcleave.a build/gcc-debug/$g/libtest.a)
	:

-include $(shell find $(VARIANTS:%=build/%) build/tools -name '*.d' 2>/dev/null)
