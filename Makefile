# SPDX-License-Identifier: BSD-2-Clause
# Builds Cleave's memory core, its hosted port and the tests. `make help` lists the commands.
#
# Everything is built below build/<compiler>-<mode>/<geometry>/, which mirrors the source tree:
#
#   build/gcc-debug/real/hv/mm/fault.o            an object
#   build/gcc-debug/real/libcleave.a              core, entry formats and hosted port
#   build/gcc-debug/real/libtest.a                what all test programs share
#   build/gcc-debug/real/tests/unit/fault_test    a test program: fault_test.c and both libraries
#   build/gcc-release/scenario, .../bench         what `make run` and `make bench` start

VARIANTS := clang-asan gcc-debug gcc-release clang-debug clang-release
SHIPPED := gcc-release

# --- What is built from what -----------------------------------------------------------------

CORE := $(wildcard hv/mm/*.c) hv/x86/vmx/ept.c hv/x86/svm/npt.c
HOSTED := $(wildcard hv/host/*.c)

# A test program is one *_test.c; the folder says in which geometry it runs. Other files in these
# folders are shared by all test programs.
TEST_FOLDERS := spec both small unit
FOLDERS_real := both unit
FOLDERS_small := spec both small
TEST_SHARED := $(filter-out %_test.c,$(wildcard $(TEST_FOLDERS:%=tests/%/*.c)))

# scenario.c is the program of `make run`; all else in tests/bench/ is that of `make bench`, and may
# be used by scenario.c.
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
# The core's objects are those that the hypervisor links: no floating point, no red zone.
CORE_FLAGS := -std=gnu11 $(WARNINGS) -Wconversion -ffreestanding -fno-stack-protector \
              -mno-red-zone -mgeneral-regs-only -I hv/include -I hv/mm
HOSTED_FLAGS := -std=gnu11 $(WARNINGS) -Wconversion -pthread -I hv/include -I hv/mm -I hv/host
TEST_FLAGS := $(filter-out -Wconversion,$(HOSTED_FLAGS)) -I tests/unit -I tests/spec -I tests/bench
export CORE_FLAGS HOSTED_FLAGS TEST_FLAGS

# flags(source): by the folder it lies in
flags = $(if $(filter hv/host/%,$1),$(HOSTED_FLAGS),$(if $(filter hv/%,$1),\
        $(CORE_FLAGS),$(TEST_FLAGS)))

# --- Commands --------------------------------------------------------------------------------

# T=name chooses tests. A suite, or suite.name, names the file as well.
T :=
SUITE := $(firstword $(subst ., ,$(T)))
# In a plain check, what runs in both geometries runs in the real one, which is slower, only with gcc.
program = $(patsubst %.c,build/$1/$2/%,$(wildcard $(call folders,$1,$2)))
folders = $(patsubst %,tests/%/*_test.c,$(if $(CLEAVE_LONG)$(filter small,$2)$(filter gcc%,$1),\
          $(FOLDERS_$2),$(filter-out both,$(FOLDERS_$2))))
programs = $(call program,$1,small) $(call program,$1,real)
PROGRAMS := $(foreach v,$(VARIANTS),$(call programs,$v))
DEBUG_PROGRAMS := $(call programs,gcc-debug)
# Every allocation of every test refused in turn (tests/unit/alloc.h): in the small geometry, where a
# run is cheap, and of the suites of the real one in a long check.
ALLOC_VARIANTS := $(if $(CLEAVE_LONG),gcc-debug clang-asan,gcc-debug)
ALLOC_PROGRAMS := $(foreach v,$(ALLOC_VARIANTS),$(call program,$v,small) \
                  $(if $(CLEAVE_LONG),$(foreach p,$(call program,$v,real),$(if $(findstring \
                  /tests/unit/,$p),$p))))
ALLOC_JOBS = $(foreach p,$(ALLOC_PROGRAMS),"$p -a")
# These names are no test programs, but the checks below; what they start from.
NEEDS_lint := objects
NEEDS_mutant := objects
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
          "scenario.run: build/$(SHIPPED)/scenario"

ifeq ($(MAKELEVEL),0)
MAKEFLAGS += -j$(shell nproc)
endif
MAKEFLAGS += --no-builtin-rules --no-print-directory $(if $(V),,--silent)

.PHONY: all help run check check-long debug bench format lint analyze mutants clean objects
.DELETE_ON_ERROR:
.SECONDARY:

all: $(DEBUG_PROGRAMS) build/$(SHIPPED)/scenario

help:
	sed -n 's/^#: //p' Makefile

#: make run              builds the documented scenario, plays it and prints its table
run:
	configs/install.sh run
	$(MAKE) build/$(SHIPPED)/scenario
	build/$(SHIPPED)/scenario

#: make check            every test in every variant, lint, mutants and the scenario
#: make check T=name     one test (or suite, or mutant.name, or lint), in gcc-debug only
check:
	configs/install.sh check
ifeq ($(T),)
	$(MAKE) -k $(PROGRAMS) objects $(addprefix build/$(SHIPPED)/,scenario bench) || \
		broken='build.all: echo see the messages of the compilers; false'; \
	tests/run.sh $${broken:+"$$broken"} $(PROGRAMS) $(ALLOC_JOBS) $(CHECKS)
else
	echo "$(T): in gcc-debug only"
	$(MAKE) $(or $(NEEDS_$(SUITE)),$(CHOSEN),objects)
	tests/run.sh -t "$(T)" $(CHOSEN) $(CHECKS)
endif

#: make check-long       the same with many more random steps and new seeds
check-long:
	CLEAVE_LONG=1 $(MAKE) check

#: make debug T=name     one test under gdb, which stops where a check fails
debug:
	configs/install.sh debug
	test -n "$(T)" || { echo "make debug T=suite.name"; exit 1; }
	$(MAKE) $(CHOSEN)
	tests/debug.sh "$(T)" $(CHOSEN)

#: make bench            the benchmarks: build/bench/results.json and plots
bench:
	configs/install.sh bench
	$(MAKE) build/$(SHIPPED)/bench
	build/$(SHIPPED)/bench

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
build/$1/$2/libtest.a: $(patsubst %.c,build/$1/$2/%.o,$(TEST_SHARED))
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

# What lint and the mutants start from.
objects: build/$(SHIPPED)/real/libcleave.a \
	$(foreach g,real small,build/gcc-debug/$g/libcleave.a build/gcc-debug/$g/libtest.a)
	:

-include $(shell find $(VARIANTS:%=build/%) -name '*.d' 2>/dev/null)
