# hirl.x: one makefile, not recursive. `make help` lists the targets, `make info` shows what was found.
# Local settings are kept in config.mk (written by `make configure K=V ...`, ignored by git).

-include config.mk

VERSION := 0.1.0

.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
.SUFFIXES:
SHELL := /bin/bash
# Names so short that an environment may hold them for other reasons: only the command line and config.mk set them.
$(foreach v,TYPE ARCH PREFIX DEPS JOBS V CUDA ASAN UBSAN TSAN COVERAGE,\
    $(if $(filter environment,$(origin $v)),$(eval undefine $v)))
JOBS ?= $(shell nproc 2>/dev/null || echo 1)
MAKEFLAGS += --no-builtin-rules --no-print-directory
ifeq ($(MAKELEVEL),0)
MAKEFLAGS += -j$(JOBS)
endif
Q := $(if $(filter 1,$(V)),,@)
say = $(if $(filter 1,$(V)),@:,@printf '  %-6s%s\n' '$1' '$2')

# ------------------------------------------------------------------------------------------ settings
# What `make configure` and the command line may set; empty means "look for it".

TYPE ?= release
ARCH ?= native
PREFIX ?= /usr/local
DEPS ?= apt
# Warnings are errors in continuous integration.
WERROR ?= $(if $(CI),1)
ifeq ($(origin CC),default)
CC := gcc
endif
ifeq ($(origin CXX),default)
CXX := g++
endif
MPICC ?= mpicc
MPIRUN ?= mpirun
PYTHON ?= $(firstword $(wildcard /usr/bin/python3) python3)
CLANG_FORMAT ?= clang-format-14
DNNL_LIBS ?= -ldnnl
FAISS_INCLUDE ?= /usr/include
FAISS_LIBS ?= -lfaiss
FAISS_C_LIB ?= build/faiss/libfaiss_c.a
HDF5_PC ?= hdf5-openmpi
BLAS_PC ?= openblas
WEBP ?= $(shell pkg-config --exists libwebp 2>/dev/null && echo 1)
OTHER_PC ?= libturbojpeg libjpeg libpng $(if $(call on,WEBP),libwebp) zlib libxxhash hwloc libcjson
CUDA_HOME ?= /usr/local/cuda
CUDNN_HOME ?= $(CUDA_HOME)
NCCL_HOME ?= $(CUDA_HOME)
NVCC ?= $(CUDA_HOME)/bin/nvcc
# Real architectures, and the virtual one that later devices translate when the program starts.
CUDA_ARCH ?= 80 90
CUDA_PTX ?= 90

CONFIG_KEYS := TYPE ARCH PREFIX DEPS JOBS V WERROR ASAN UBSAN TSAN COVERAGE CC CXX CFLAGS LDFLAGS MPICC MPIRUN PYTHON \
    CLANG_FORMAT MPI_CFLAGS MPI_LIBS HDF5_PC HDF5_CFLAGS HDF5_LIBS BLAS_PC BLAS_CFLAGS BLAS_LIBS DNNL_CFLAGS \
    DNNL_LIBS FAISS_INCLUDE FAISS_LIBS FAISS_C_LIB OTHER_PC OTHER_CFLAGS OTHER_LIBS WEBP CUDA CUDA_HOME CUDNN_HOME NCCL_HOME NVCC CUDA_ARCH CUDA_PTX

ifeq ($(filter $(TYPE),debug release),)
$(error TYPE is '$(TYPE)', want debug or release)
endif
# 1: with CUDA; emulated: the same sources over validation/harness/cuda_emu, for tests on machines without a device.
ifneq ($(filter-out 0 1 emulated,$(CUDA)),)
$(error CUDA is '$(CUDA)', want 0, 1 or emulated)
endif

on = $(filter-out 0,$($1))
SUFFIX := $(if $(call on,ASAN),-asan)$(if $(call on,UBSAN),-ubsan)$(if $(call on,TSAN),-tsan)$(if $(call on,COVERAGE),-coverage)
VARIANT := $(TYPE)$(if $(filter 1,$(CUDA)),-cuda)$(if $(filter emulated,$(CUDA)),-emulated)$(SUFFIX)
BUILD := build/$(VARIANT)
# What knows nothing of CUDA is compiled once for the builds with it and without.
COMMON := build/$(TYPE)$(SUFFIX)
PROGRAM := $(if $(filter release release-cuda,$(VARIANT)),hirl.x,$(BUILD)/hirl.x)
SANITIZED := build/debug-asan-ubsan
EMULATED := build/release-emulated

# ------------------------------------------------------------------------------------------ libraries
# Looked for only where something is compiled: the other targets work before `make deps` has run.

OFFLINE_GOALS := check-layers check-format format configure deps deps-check demo check check-slurm bench fuzz \
    bundle clean distclean help
GOALS := $(or $(MAKECMDGOALS),all)

ifneq ($(filter-out $(OFFLINE_GOALS),$(GOALS)),)

# $(call tool,COMMAND,WHAT): what the command prints; without it there is no build.
tool = $(or $(shell $1 2>/dev/null),$(error $2 was not found (tried: $1); 'make deps' installs what is needed))

ifeq ($(origin MPI_CFLAGS),undefined)
MPI_CFLAGS := $(call tool,$(MPICC) --showme:compile,Open MPI)
endif
ifeq ($(origin MPI_LIBS),undefined)
MPI_LIBS := $(call tool,$(MPICC) --showme:link,Open MPI)
endif
ifeq ($(origin HDF5_CFLAGS),undefined)
HDF5_CFLAGS := $(call tool,pkg-config --cflags-only-I $(HDF5_PC),parallel HDF5)
endif
ifeq ($(origin HDF5_LIBS),undefined)
HDF5_LIBS := $(call tool,pkg-config --libs $(HDF5_PC),parallel HDF5)
endif
ifeq ($(origin BLAS_LIBS),undefined)
BLAS_CFLAGS := $(shell pkg-config --cflags $(BLAS_PC) 2>/dev/null)
BLAS_LIBS := $(call tool,pkg-config --libs $(BLAS_PC),a BLAS with LAPACK)
endif
ifeq ($(origin OTHER_LIBS),undefined)
OTHER_CFLAGS := $(shell pkg-config --cflags $(OTHER_PC) 2>/dev/null)
OTHER_LIBS := $(call tool,pkg-config --libs $(OTHER_PC),one of $(OTHER_PC))
endif

# Packages differ in where they keep libraries: lib64, lib, or a name with its version only, as in Python's wheels.
# $(call library,NAME,FOLDERS,WHAT,VARIABLE): what the linker is to be given.
library = $(or $(firstword $(wildcard $(foreach d,$2,$d/lib$1.so) $(foreach d,$2,$d/lib$1.so.*))),$(error $3 was not \
    found (no lib$1.so in $2); set $4, or build without CUDA=1))
folders = $1/lib64 $1/lib $1/targets/x86_64-linux/lib $1/lib/x86_64-linux-gnu
ifeq ($(CUDA),1)
CUDA_LIBRARIES := $(call library,cudart,$(call folders,$(CUDA_HOME)),the CUDA runtime,CUDA_HOME) \
    $(call library,cublasLt,$(call folders,$(CUDA_HOME)),cuBLASLt,CUDA_HOME) \
    $(call library,cudnn,$(call folders,$(CUDNN_HOME)),cuDNN 9,CUDNN_HOME) \
    $(call library,nccl,$(call folders,$(NCCL_HOME)),NCCL,NCCL_HOME)
CUDA_LIBS := $(CUDA_LIBRARIES) $(foreach d,$(sort $(dir $(CUDA_LIBRARIES))),-Wl,-rpath,$(d:%/=%))
endif

endif

# ------------------------------------------------------------------------------------------ flags
# No fast-math, and no contraction of a*b+c: debug and release builds give the same bits. What is switched off
# below (errno of math functions, floating-point traps) changes no value and lets loops be vectorised.

WARNINGS := -Wall -Wextra -Wpedantic -Wstrict-prototypes -Wmissing-prototypes
# Third-party headers are system headers: their warnings are not ours to fix.
EXTERNAL := $(sort $(patsubst -I%,-isystem%,$(MPI_CFLAGS) $(HDF5_CFLAGS) $(BLAS_CFLAGS) $(OTHER_CFLAGS) \
    $(DNNL_CFLAGS) $(if $(filter-out /usr/include,$(FAISS_INCLUDE)),-I$(FAISS_INCLUDE))))
FLAGS_debug := -O1 -g3 -DHIRL_DEBUG=1
FLAGS_release := -O3 -g -DNDEBUG
SANITIZE := $(if $(call on,ASAN),-fsanitize=address) \
    $(if $(call on,UBSAN),-fsanitize=undefined -fsanitize=float-cast-overflow -fno-sanitize-recover=all) \
    $(if $(call on,TSAN),-fsanitize=thread) \
    $(if $(call on,ASAN)$(call on,UBSAN)$(call on,TSAN),-fno-omit-frame-pointer) $(if $(call on,COVERAGE),--coverage)
# Instrumented code misleads the compiler's analysis of uninitialised variables.
HIRL_CFLAGS := -std=c17 -D_GNU_SOURCE $(FLAGS_$(TYPE)) -march=$(ARCH) -ffp-contract=off -fno-math-errno \
    -fno-trapping-math -fopenmp -pthread $(strip $(SANITIZE)) $(WARNINGS) $(if $(call on,WERROR),-Werror \
    $(if $(strip $(SANITIZE)),-Wno-error=maybe-uninitialized)) $(CFLAGS)
EMULATION := validation/harness/cuda_emu
CUDA_INCLUDES := $(if $(filter 1,$(CUDA)),-isystem $(CUDA_HOME)/include \
    $(foreach d,$(filter-out $(CUDA_HOME),$(sort $(CUDNN_HOME) $(NCCL_HOME))),-isystem $d/include)) \
    $(if $(filter emulated,$(CUDA)),-I$(EMULATION))
OPTIONAL := $(if $(call on,WEBP),-DHIRL_HAS_WEBP=1)
COMMON_CPPFLAGS := -Iinclude $(OPTIONAL) $(EXTERNAL)
HIRL_CPPFLAGS := -Iinclude $(OPTIONAL) $(if $(call on,CUDA),-I. $(CUDA_INCLUDES)) $(EXTERNAL)
COMPILE = $(CC) $(HIRL_CFLAGS) $(HIRL_CPPFLAGS) -MD -MP
COMPILE_COMMON = $(CC) $(HIRL_CFLAGS) $(COMMON_CPPFLAGS) -MD -MP
LIBRARIES = $(CUDA_LIBS) $(COMMON_LIBRARIES)
COMMON_LIBRARIES = $(FAISS_C_LIB) $(FAISS_LIBS) $(DNNL_LIBS) $(BLAS_LIBS) $(HDF5_LIBS) $(OTHER_LIBS) $(MPI_LIBS) -lstdc++ \
    -lm -ldl
LINK = $(CC) $(HIRL_CFLAGS) $(LDFLAGS)
# Kernels: nvcc, or any C++ compiler over the emulation. Sums stay in the order they are written in.
NVCC_WARNINGS := -Xcompiler -Wall,-Wextra $(if $(call on,WERROR),-Werror all-warnings)
NVCC_COMPILE = $(NVCC) -std=c++17 -O3 -lineinfo $(if $(filter debug,$(TYPE)),-DHIRL_DEBUG=1) -ccbin $(CXX) \
    $(foreach a,$(CUDA_ARCH),-gencode arch=compute_$a,code=sm_$a) \
    $(foreach a,$(CUDA_PTX),-gencode arch=compute_$a,code=compute_$a) $(NVCC_WARNINGS) -Ikernels -I. -MD -MP
EMULATION_FLAGS = $(filter-out -std=c17 -Wstrict-prototypes -Wmissing-prototypes -Wpedantic,$(HIRL_CFLAGS)) -std=c++17 -DOMPI_SKIP_MPICXX -Wno-unknown-pragmas
EMULATION_COMPILE = $(CXX) $(EMULATION_FLAGS) -I$(EMULATION) -Ikernels -I. -Iinclude $(EXTERNAL) -MD -MP
# -O3 takes up to three times as long over the kernels, which tests do not run long enough to repay.
EMULATION_KERNEL = $(patsubst -O3,-O2,$(EMULATION_COMPILE))

# ------------------------------------------------------------------------------------------ files

# A build with CUDA has other files in some places, never other lines in a file.
WITHOUT_CUDA := src/backend/registry.c src/par/device_none.c
WITH_CUDA := src/backend/registry_cuda.c src/par/device_nccl.c $(wildcard src/backend/cuda/*.c)
COMMON_SOURCES := $(filter-out $(WITHOUT_CUDA) $(WITH_CUDA),$(sort $(wildcard src/*/*.c src/backend/*/*.c)))
OWN_SOURCES := $(if $(call on,CUDA),$(WITH_CUDA),$(WITHOUT_CUDA))
SOURCES := $(COMMON_SOURCES) $(OWN_SOURCES)
KERNELS := $(if $(call on,CUDA),$(sort $(wildcard kernels/*.cu)))
EMULATORS := $(if $(filter emulated,$(CUDA)),$(sort $(wildcard $(EMULATION)/*.cc $(EMULATION)/*.cu)))
OBJECTS := $(COMMON_SOURCES:%.c=$(COMMON)/%.o) $(OWN_SOURCES:%.c=$(BUILD)/%.o) $(BUILD)/build_info.o $(KERNELS:%.cu=$(BUILD)/%.o) \
    $(addprefix $(BUILD)/,$(addsuffix .o,$(EMULATORS)))
# main() is in one file; sgemm_ must come as an object, or the linker would take OpenBLAS's.
MAIN := $(COMMON)/src/app/main.o
SGEMM := $(COMMON)/src/backend/cpu/sgemm_dnnl.o
LIBRARY := $(BUILD)/libhirl.a
MEMBERS := $(filter-out $(MAIN) $(SGEMM),$(OBJECTS))

RUN_TESTS := validation/harness/run.sh
# Threads that share memory without OpenMP, whose runtime ThreadSanitizer cannot see into.
THREADED := $(addprefix $(BUILD)/unit/,t440_loader t476_clips t456_ckpt_writer t506_watchdog)
ifneq ($(filter threaded,$(GOALS)),)
TESTS := $(THREADED)
endif
ifneq ($(filter tests,$(GOALS)),)
TESTS := $(patsubst validation/%.c,$(BUILD)/%,$(shell $(RUN_TESTS) --programs \
    $(if $(call on,ASAN),--sanitized $(BUILD)) $(if $(filter emulated,$(CUDA)),--emulated $(BUILD)) \
    $(if $(filter 1,$(CUDA)),--device yes) --search '$(search)'))
endif
ifneq ($(filter benches,$(GOALS)),)
TESTS := $(patsubst validation/%.c,$(BUILD)/%,$(wildcard validation/bench/*.c))
endif

.PHONY: all lib tests benches demo check deps deps-check info configure bench check-threads threaded check-layers check-headers format \
    check-format install clean distclean help FORCE

## all            build ./hirl.x (TYPE=debug, ASAN=1, ...: build/<type>/hirl.x)
all: $(PROGRAM)

lib: $(LIBRARY) $(SGEMM)

# ./hirl.x is of the last build asked for, with CUDA or without.
$(PROGRAM): $(MAIN) $(SGEMM) $(LIBRARY) $(FAISS_C_LIB) $(if $(filter hirl.x,$(PROGRAM)),build/hirl.x-variant)
	$(call say,LINK,$@)
	$(Q)$(LINK) -o $@ $(MAIN) $(SGEMM) $(LIBRARY) $(LIBRARIES)

$(LIBRARY): $(MEMBERS) $(BUILD)/members
	$(call say,AR,$@)
	$(Q)rm -f $@.new && ar rcsD $@.new $(MEMBERS) && mv $@.new $@

$(COMMON)/src/%.o: src/%.c $(COMMON)/flags
	$(call say,CC,$<)
	$(Q)mkdir -p $(@D) && $(COMPILE_COMMON) -c -o $@ $<

ifneq ($(COMMON),$(BUILD))
$(BUILD)/src/%.o: src/%.c $(BUILD)/flags
	$(call say,CC,$<)
	$(Q)mkdir -p $(@D) && $(COMPILE) -c -o $@ $<

$(BUILD)/flags: FORCE
	$(call keep,$(CC) $(HIRL_CFLAGS) $(HIRL_CPPFLAGS) $(LDFLAGS) $(LIBRARIES) $(NVCC_COMPILE) $(EMULATION_KERNEL))
endif

ifneq ($(filter emulated,$(CUDA)),)
# Many instances of large kernels, which a test runs for a second: three times as fast to compile.
$(BUILD)/kernels/attention.o: EMULATION_FLAGS += -O1
$(BUILD)/%.o: %.cu $(BUILD)/flags
	$(call say,EMU,$<)
	$(Q)mkdir -p $(@D) && $(EMULATION_KERNEL) -c -o $@ -x c++ $<
$(BUILD)/%.cu.o: %.cu $(BUILD)/flags
	$(call say,EMU,$<)
	$(Q)mkdir -p $(@D) && $(EMULATION_KERNEL) -c -o $@ -x c++ $<
$(BUILD)/%.cc.o: %.cc $(BUILD)/flags
	$(call say,CXX,$<)
	$(Q)mkdir -p $(@D) && $(EMULATION_COMPILE) -c -o $@ $<
else
$(BUILD)/%.o: %.cu $(BUILD)/flags
	$(call say,NVCC,$<)
	$(Q)mkdir -p $(@D) && $(NVCC_COMPILE) -c -o $@ $<
endif

$(BUILD)/build_info.o: $(BUILD)/build_info.c $(BUILD)/flags
	$(call say,CC,$<)
	$(Q)$(COMPILE) -c -o $@ $<

# Test programs: validation/unit/t101_shape.c becomes build/<type>/unit/t101_shape.
tests benches: $(TESTS)

$(TESTS): $(BUILD)/%: validation/%.c $(SGEMM) $(LIBRARY) $(FAISS_C_LIB) $(BUILD)/flags
	$(call say,TEST,$<)
	$(Q)mkdir -p $(@D) && $(COMPILE) -MF $@.d -MT $@ -Ivalidation/harness -o $@ $< $(SGEMM) $(LIBRARY) \
	    $(LDFLAGS) $(LIBRARIES)

build/faiss/libfaiss_c.a:
	$(Q)CXX='$(CXX)' validation/harness/deps.sh faiss build/faiss

# These files change only when their content does; what depends on them is then made again.
# $(call keep,TEXT): put the text into the target unless it is there already.
define keep
@mkdir -p $(@D)
@printf '%s\n' '$(subst ','\'',$1)' | cmp -s - $@ || printf '%s\n' '$(subst ','\'',$1)' >$@
endef

$(COMMON)/flags: FORCE
	$(call keep,$(CC) $(HIRL_CFLAGS) $(COMMON_CPPFLAGS) $(LDFLAGS) $(COMMON_LIBRARIES))

build/hirl.x-variant: FORCE
	$(call keep,$(VARIANT))

$(BUILD)/members: FORCE
	$(call keep,$(MEMBERS))

COMMIT = $(shell c=$$(git rev-parse --short=12 HEAD 2>/dev/null) || c=; \
    [ -z "$$c" ] || git diff --quiet HEAD -- src include Makefile || c="$$c with local changes"; echo "$${c:-unknown}")
FAISS_VERSION = $(shell awk '/define FAISS_VERSION_(MAJOR|MINOR|PATCH)/ { v = v s $$3; s = "." } END { print v }' \
    $(FAISS_INCLUDE)/faiss/Index.h 2>/dev/null)
# A bundle says in its config.mk what pkg-config would.
BLAS_VERSION ?= $(BLAS_PC) $(shell pkg-config --modversion $(BLAS_PC) 2>/dev/null)
TURBOJPEG_VERSION ?= $(shell pkg-config --modversion libturbojpeg 2>/dev/null)
HWLOC_VERSION ?= $(shell pkg-config --modversion hwloc 2>/dev/null)

# Lines of the build's facts about CUDA.
ifneq ($(call on,CUDA),)
define CUDA_INFO_INCLUDES
#include <cublasLt.h>
#include <cuda_runtime_api.h>
#include <cudnn.h>
#include <nccl.h>
endef
define CUDA_INFO
           "cuda = $(if $(filter 1,$(CUDA)),runtime,emulated) " TEXT(CUDART_VERSION) ", code for $(foreach a,$(CUDA_ARCH),sm_$a) $(foreach a,$(CUDA_PTX),compute_$a)\n"
           "cublas = " DOTTED(CUBLAS_VER_MAJOR, CUBLAS_VER_MINOR, CUBLAS_VER_PATCH) "\n"
           "cudnn = " DOTTED(CUDNN_MAJOR, CUDNN_MINOR, CUDNN_PATCHLEVEL) "\n"
           "nccl = " DOTTED(NCCL_MAJOR, NCCL_MINOR, NCCL_PATCH) "\n"
endef
else
CUDA_INFO = "cuda = not built in (make CUDA=1)\n"
endif

define BUILD_INFO
/// Written by the makefile: what this program was built from, and with which flags and libraries.
#include "hirl/base.h"

#include <cjson/cJSON.h>
#include <dnnl_version.h>
#include <hdf5.h>
#include <hwloc.h>
#include <mpi.h>
#include <png.h>
#include <xxhash.h>
#include <zlib.h>
$(CUDA_INFO_INCLUDES)

#define TEXT_(x) #x
#define TEXT(x) TEXT_(x)
#define DOTTED(a, b, c) TEXT(a) "." TEXT(b) "." TEXT(c)

const char *hirl_build_info_text(void) {
    return "version = $(VERSION)\n"
           "commit = $(strip $(COMMIT))\n"
           "build = $(VARIANT)\n"
           "compiler = $(notdir $(CC)) " __VERSION__ "\n"
           "flags = $(subst ",\",$(strip $(HIRL_CFLAGS)))\n"
           "mpi = Open MPI " DOTTED(OMPI_MAJOR_VERSION, OMPI_MINOR_VERSION, OMPI_RELEASE_VERSION) "\n"
           "hdf5 = " DOTTED(H5_VERS_MAJOR, H5_VERS_MINOR, H5_VERS_RELEASE) "\n"
           "dnnl = " DOTTED(DNNL_VERSION_MAJOR, DNNL_VERSION_MINOR, DNNL_VERSION_PATCH) "\n"
           "faiss = $(FAISS_VERSION)\n"
           "blas = $(strip $(BLAS_VERSION))\n"
           "turbojpeg = $(strip $(TURBOJPEG_VERSION))\n"
           "png = " PNG_LIBPNG_VER_STRING "\n"
           "zlib = " ZLIB_VERSION "\n"
           "xxhash = " DOTTED(XXH_VERSION_MAJOR, XXH_VERSION_MINOR, XXH_VERSION_RELEASE) "\n"
           "hwloc = $(strip $(HWLOC_VERSION))\n"
           "cjson = " DOTTED(CJSON_VERSION_MAJOR, CJSON_VERSION_MINOR, CJSON_VERSION_PATCH) "\n"
$(CUDA_INFO);
}
endef

$(BUILD)/build_info.c: FORCE
	@mkdir -p $(@D)
	$(file >$(BUILD)/build_info.new,$(BUILD_INFO))
	@if cmp -s $(BUILD)/build_info.new $@; then rm $(BUILD)/build_info.new; else mv $(BUILD)/build_info.new $@; fi

# ------------------------------------------------------------------------------------------ whole runs
# Each of these works on a fresh machine: the packages first, then a second make that can find them.

DEPS_SH := $(if $(filter none,$(DEPS)),: ,validation/harness/deps.sh)

## deps           install the packages that the build needs, build FAISS's C API
deps:
	@$(DEPS_SH) packages build
	@CXX='$(CXX)' $(DEPS_SH) faiss build/faiss

## deps-check     the same and what the tests need
deps-check:
	@$(DEPS_SH) packages build check
	@CXX='$(CXX)' $(DEPS_SH) faiss build/faiss

## demo           install, build, then show pre-training and evaluation on a small data set
demo: deps
	@$(MAKE) all
	@PYTHON='$(PYTHON)' bash validation/demo.sh

## check          install, build, run all tests; search=t2 selects by name
# What did not build is a failure of its own, and the tests of the rest still run.
check: deps-check
	@built=yes; \
	$(MAKE) -k all tests || built=no; \
	$(MAKE) -k TYPE=debug ASAN=1 UBSAN=1 COVERAGE= CUDA= all tests || built=no; \
	$(if $(call on,CUDA),,$(MAKE) -k TYPE=release ASAN= UBSAN= COVERAGE= CUDA=emulated all tests || built=no;) \
	PYTHON='$(PYTHON)' MPIRUN='$(MPIRUN)' MAKE='$(MAKE)' $(RUN_TESTS) --build $(BUILD) --program $(PROGRAM) \
	    --sanitized $(SANITIZED) $(if $(call on,CUDA),,--emulated $(EMULATED)) --built $$built --search '$(search)'

## check-threads  the loader, the checkpoint writer and the watchdog under ThreadSanitizer
check-threads: deps-check
	@$(MAKE) TYPE=debug ASAN= UBSAN= COVERAGE= TSAN=1 threaded

threaded: $(THREADED)
	@MPIRUN='$(MPIRUN)' validation/harness/threads.sh $^

## bench          run the benchmarks of validation/bench, print their `bench:` lines; search=... selects by name
bench: deps-check
	@$(DEPS_SH) packages bench
	@$(MAKE) all benches
	@PYTHON='$(PYTHON)' MPIRUN='$(MPIRUN)' $(RUN_TESTS) --bench --build $(BUILD) --program $(PROGRAM) \
	    --search '$(search)'

# Clang instruments the modules that read files; the rest comes from the release library.
FUZZ_CC ?= clang-14
FUZZ_BUILD := build/fuzz
FUZZ_TARGETS := deck shard ckpt image pack
FUZZ_COMPILE = $(FUZZ_CC) -std=c17 -D_GNU_SOURCE -O2 -g -march=$(ARCH) -ffp-contract=off -pthread \
    -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -Wall -Wextra \
    -Wno-unknown-pragmas $(HIRL_CPPFLAGS) -MD -MP
FUZZ_OBJECTS = $(patsubst %.c,$(FUZZ_BUILD)/%.o,\
    $(filter src/base/% src/deck/% src/h5/% src/data/% src/ckpt/%,$(SOURCES)))
FUZZ_PROGRAMS := $(FUZZ_TARGETS:%=$(FUZZ_BUILD)/fuzz_%)

## fuzz           run the fuzzers of validation/fuzz: target=deck|shard|ckpt|image|pack (default: each in turn), seconds=600
fuzz:
	@$(DEPS_SH) packages build check fuzz
	@CXX='$(CXX)' $(DEPS_SH) faiss build/faiss
	@$(MAKE) TYPE=release ASAN= UBSAN= COVERAGE= fuzz-programs
	@validation/fuzz/run.sh $(FUZZ_BUILD) '$(or $(target),$(FUZZ_TARGETS))' '$(or $(seconds),600)'

.PHONY: fuzz fuzz-programs
fuzz-programs: $(FUZZ_PROGRAMS)

$(FUZZ_BUILD)/src/%.o: src/%.c
	$(call say,FUZZ,$<)
	$(Q)mkdir -p $(@D) && $(FUZZ_COMPILE) -c -o $@ $<

$(FUZZ_PROGRAMS): $(FUZZ_BUILD)/%: validation/fuzz/%.c $(FUZZ_OBJECTS) $(SGEMM) $(LIBRARY) $(FAISS_C_LIB)
	$(call say,FUZZ,$<)
	$(Q)$(FUZZ_COMPILE) -MF $@.d -MT $@ -fsanitize=fuzzer -o $@ $< $(FUZZ_OBJECTS) $(SGEMM) $(LIBRARY) \
	    $(LDFLAGS) $(LIBRARIES) -lgomp

## check-slurm    start a SLURM of two nodes on this machine (as root) and run the job scripts there; search=... by name
.PHONY: check-slurm
check-slurm: deps-check
	@$(MAKE) all
	@HIRL_X='$(abspath $(PROGRAM))' MPIRUN='$(MPIRUN)' $(PYTHON) validation/slurm/check_slurm.py $(search)

## bundle         collect what a bare machine with CUDA lacks in build/bundle.tar.xz; data=DIR takes a folder along
BUNDLE_ARCHIVE ?= build/bundle.tar.xz
bundle: deps
	@$(DEPS_SH) packages bundle
	@$(MAKE) CUDA= bundle-archive

.PHONY: bundle bundle-archive
bundle-archive: $(FAISS_C_LIB)
	@CC='$(CC)' INCLUDES='$(EXTERNAL) -isystem$(FAISS_INCLUDE)' MPI_LIBS='$(MPI_LIBS)' HDF5_LIBS='$(HDF5_LIBS)' \
	    DNNL_LIBS='$(DNNL_LIBS)' BLAS_LIBS='$(BLAS_LIBS)' BLAS_VERSION='$(strip $(BLAS_VERSION))' \
	    FAISS_LIBS='$(FAISS_LIBS)' FAISS_C_LIB='$(FAISS_C_LIB)' OTHER_LIBS='$(OTHER_LIBS)' WEBP='$(WEBP)' DATA='$(data)' \
	    validation/gpu/bundle.sh make $(BUNDLE_ARCHIVE)

## check-layers   includes point only backwards; each library and exit() stay where they belong
check-layers:
	@validation/harness/check_layers.sh --self-test
	@validation/harness/check_layers.sh .

## check-headers  each public header compiles alone, as C17 and as C++17
check-headers:
	@CC='$(CC)' CXX='$(CXX)' validation/harness/check_headers.sh $(HIRL_CPPFLAGS)

FORMATTED = $(sort $(wildcard include/hirl/*.h src/*/*.[ch] src/backend/*/*.[ch] kernels/*.cu kernels/*.h \
    validation/*/*.[ch] $(foreach e,h cc cu,validation/harness/cuda_emu/*.$e)))

## format         rewrite the sources in the project's format
format:
	@$(CLANG_FORMAT) -i $(FORMATTED)

## check-format   fail if `make format` would change anything
check-format:
	@set -o pipefail; $(CLANG_FORMAT) --dry-run -Werror $(FORMATTED) 2>&1 | awk -F: ' \
	    /\[-Wclang-format-violations\]/ { if (!seen[$$1]++) { n++; \
	        print $$1 ":" $$2 ": \"make format\" would change this" } } \
	    /not found|No such file|[Ii]nvalid/ { print } \
	    END { print "check-format: " n + 0 " of $(words $(FORMATTED)) files are not in the project'\''s format" }'

# ------------------------------------------------------------------------------------------ the rest

## info           show what was found
info:
	@printf '%-14s %s\n' version '$(VERSION), commit $(COMMIT)' build '$(VARIANT) -> $(PROGRAM)' \
	    compiler "$$($(CC) --version | head -n 1)" 'C++ compiler' "$$($(CXX) --version | head -n 1)" \
	    flags '$(strip $(HIRL_CFLAGS))' includes '$(HIRL_CPPFLAGS)' \
	    MPI "$$($(MPIRUN) --version 2>/dev/null | head -n 1), $(MPI_LIBS)" \
	    HDF5 "$$(pkg-config --modversion $(HDF5_PC) 2>/dev/null), $(HDF5_LIBS)" \
	    oneDNN "$$(printf '#include <dnnl_version.h>\nDNNL_VERSION_MAJOR.DNNL_VERSION_MINOR.DNNL_VERSION_PATCH\n' | \
	        $(CC) $(HIRL_CPPFLAGS) -E -P - 2>/dev/null | tail -n 1 | tr -d ' '), $(DNNL_LIBS)" \
	    FAISS '$(FAISS_VERSION), $(FAISS_LIBS)' 'FAISS C API' \
	    "$$([ -f $(FAISS_C_LIB) ] && echo $(FAISS_C_LIB) || echo 'not built yet (make deps)')" \
	    BLAS '$(strip $(BLAS_VERSION)), $(BLAS_LIBS)' others '$(OTHER_LIBS)' \
	    CUDA '$(if $(filter 1,$(CUDA)),$(shell $(NVCC) --version 2>/dev/null | sed -n "s/.*release //p"): $(CUDA_LIBRARIES),$(if \
	        $(call on,CUDA),$(CUDA),not built in (make CUDA=1)))' Python "$$($(PYTHON) --version 2>&1) (tests only), $(PYTHON)" \
	    config.mk "$$([ -f config.mk ] && tr '\n' ';' <config.mk || echo none)"

## configure      keep settings for later makes: make configure TYPE=debug ARCH=x86-64-v3 (K= removes, alone shows)
GIVEN := $(foreach v,$(filter-out -% search,$(.VARIABLES)),$(if $(filter command,$(firstword $(origin $v))),$v))
configure:
	$(if $(filter-out $(CONFIG_KEYS),$(GIVEN)),$(error unknown: $(filter-out $(CONFIG_KEYS),$(GIVEN)). Known: $(CONFIG_KEYS)))
	@touch config.mk
	@$(foreach v,$(GIVEN),sed -i '/^$v *=/d' config.mk;) :
	@$(foreach v,$(GIVEN),$(if $(value $v),printf '%s\n' '$v = $(subst ','\'',$(value $v))' >>config.mk;)) :
	@cat config.mk

## install        copy hirl.x, input, slurm and doc under PREFIX (DESTDIR is put before it)
install: all
	install -d '$(DESTDIR)$(PREFIX)/bin' '$(DESTDIR)$(PREFIX)/share/hirl' '$(DESTDIR)$(PREFIX)/share/doc/hirl'
	install -m 755 $(PROGRAM) '$(DESTDIR)$(PREFIX)/bin/hirl.x'
	cp -R $(wildcard input slurm) '$(DESTDIR)$(PREFIX)/share/hirl/'
	cp -R $(wildcard doc README* CHANGELOG* LICENSE*) '$(DESTDIR)$(PREFIX)/share/doc/hirl/'

## clean          remove what was built, but FAISS's C API
clean:
	rm -rf hirl.x $(filter-out build/faiss,$(wildcard build/*))

## distclean      remove all that was built, and config.mk
distclean:
	rm -rf hirl.x build config.mk

help:
	@echo 'make TARGET [V=1] [TYPE=debug|release] [ASAN=1] [UBSAN=1] [TSAN=1] [COVERAGE=1] [WERROR=1] [CUDA=1] [ARCH=native]'
	@sed -n 's/^## /  /p' Makefile

-include $(OBJECTS:.o=.d) $(TESTS:=.d) $(FUZZ_OBJECTS:.o=.d) $(FUZZ_PROGRAMS:=.d)
