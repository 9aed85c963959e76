# Building weft.
#
# The sources are the list: every lib/*/*.c goes into the library, every examples/*.c becomes a program, all of
# examples/tool/*.c together the program weft, examples/draw/*.c what examples draw with, every tests/*/test_*.c a test. Nothing is configured. A machine
# without the libraries that weft needs gets them from `make deps`, and may say `make deps check` in one breath:
# that is why pkg-config is asked when the first file is compiled, never while this file is read.
#
# Everything made lies under $(B). `make asan`, `make tsan` and `make fuzz` are this same file with another $(B) and
# other CFLAGS. CC, CFLAGS, CPPFLAGS, LDFLAGS, PREFIX, LIBDIR, BINDIR, DESTDIR are the user's: what weft cannot do without
# stands before them on the command line and does not depend on them. V=1 shows the commands.

PREFIX  ?= /usr/local
BINDIR  ?= $(PREFIX)/bin
LIBDIR  ?= $(PREFIX)/lib
INCDIR  ?= $(PREFIX)/include
MANDIR  ?= $(PREFIX)/share/man
B       ?= build
INCLUDE ?= include
PYTHON  ?= python3

# The version is written in base.h and nowhere else. Before 1.0 every minor version is an ABI of its own.
version = $(shell sed -n 's/^\#define WEFT_VERSION_$1 //p' include/weft/base.h)
MAJOR   := $(call version,MAJOR)
MINOR   := $(call version,MINOR)
VERSION := $(MAJOR).$(MINOR).$(call version,PATCH)
ABI     := $(if $(filter 0,$(MAJOR)),0.$(MINOR),$(MAJOR))

# ---- what there is to build ----------------------------------------------------------------------------

LIB_SRC  := $(sort $(wildcard lib/*/*.c lib/*/*/*.c))
EX_SRC   := $(sort $(wildcard examples/*.c))
TEST_SRC := $(sort $(wildcard tests/*/test_*.c))
FUZZ_SRC := $(sort $(wildcard tests/fuzz/fuzz_*.c))
BENCH_SRC := $(sort $(wildcard tests/bench/bench_*.c))

LIB_OBJ  := $(LIB_SRC:%.c=$(B)/%.o)
DRAW_OBJ := $(patsubst %.c,$(B)/%.o,$(sort $(wildcard examples/draw/*.c)))
DRAW     := $(B)/examples/draw.a
TOOL_OBJ := $(patsubst %.c,$(B)/%.o,$(sort $(wildcard examples/tool/*.c)))
EXAMPLES := $(EX_SRC:%.c=$(B)/%) $(B)/examples/weft
TESTS    := $(TEST_SRC:%.c=$(B)/%)
FUZZERS  := $(FUZZ_SRC:%.c=$(B)/%)
SUITE    := $(B)/tests/bench/bench
SUITE_OBJ := $(patsubst %.c,$(B)/%.o,$(sort $(wildcard tests/bench/suite/*.c)))
BENCHES  := $(BENCH_SRC:%.c=$(B)/%)
LAYOUT   := $(B)/tests/abi/layout
STATIC   := $(B)/libweft.a
SHARED   := $(B)/libweft.so.$(ABI)
LINK     := $(B)/libweft.so
HEADERS  := $(sort $(wildcard include/weft/*.h))
MANUALS  := $(sort $(wildcard docs/*.1))

# ---- flags -----------------------------------------------------------------------------------------------

PACKAGES := openblas libpng libturbojpeg zlib jansson libutf8proc

# $(call ask,NAME,COMMAND): the command's answer, asked once, when it is first needed, and kept under NAME.
ask = $(eval $1 := $$(shell $2))$(if $(filter 0,$(.SHELLSTATUS)),,$(error '$2' failed; 'make deps' installs what is missing))$($1)

PKG_CFLAGS   = $(call ask,PKG_CFLAGS,pkg-config --cflags $(PACKAGES))
PKG_LIBS     = $(call ask,PKG_LIBS,pkg-config --libs $(PACKAGES))
CHECK_CFLAGS = $(call ask,CHECK_CFLAGS,pkg-config --cflags check)
CHECK_LIBS   = $(call ask,CHECK_LIBS,pkg-config --libs check)
MACHINE      = $(call ask,MACHINE,$(CC) -dumpmachine)

# No contraction: a product and a sum fuse where a kernel says so, or the bits would depend on the compiler.
BASE_FLAGS := -std=c11 -D_POSIX_C_SOURCE=200809L -Wall -Wextra -Wpedantic -ffp-contract=off -pthread -I$(INCLUDE)
LIB_FLAGS   = $(BASE_FLAGS) -Ilib -fPIC -fvisibility=hidden $(OPTIMISE) $(KERNEL_FLAGS) $(PKG_CFLAGS)
EX_FLAGS    = $(BASE_FLAGS) -O2
TEST_FLAGS  = $(BASE_FLAGS) -Ilib -Itests -g -O2 $(PKG_CFLAGS) $(CHECK_CFLAGS)

# A sanitizer's build asks for -O1; lib/tensor is where its tests spend their time (TENSOR_CFLAGS).
# A kernel file gets the instructions that its name promises, and lib/tensor/pick.c asks the CPU before it calls.
OPTIMISE     = -O2
KERNEL_FLAGS =
$(B)/lib/tensor/%.o:        OPTIMISE = -O3
$(B)/lib/tensor/%.o:        LAST = $(TENSOR_CFLAGS)
$(B)/lib/tensor/%_avx2.o:   KERNEL_FLAGS = $(if $(filter x86_64%,$(MACHINE)),-mavx2 -mfma -mf16c)
$(B)/lib/tensor/%_avx512.o: KERNEL_FLAGS = $(if $(filter x86_64%,$(MACHINE)),-mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma -mf16c)
$(B)/lib/tensor/%_avx512_bf16.o: KERNEL_FLAGS = $(if $(filter x86_64%,$(MACHINE)),-mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512bf16 -mfma -mf16c)

# A sanitizer's own functions are found when the program loads, so only a plain library can promise to be complete.
SANITIZED  = $(findstring -fsanitize,$(CFLAGS))
SO_LDFLAGS = -shared -Wl,-soname,libweft.so.$(ABI) -Wl,--version-script=lib/weft.map \
             $(if $(SANITIZED),,-Wl,--no-undefined -Wl,-z,defs)

# ---- saying what is done -----------------------------------------------------------------------------------

Q   := $(if $(V),,@)
say  = @mkdir -p $(@D)$(if $(V),, && printf '  %-5s %s\n' $1 $(or $2,$@))

# Under `make deps something` nothing is compiled before deps is done, with -j as without.
DEPS_FIRST := $(filter deps,$(MAKECMDGOALS))

MAKEFLAGS += --no-builtin-rules
.SECONDARY:
.DELETE_ON_ERROR:
.PHONY: all deps demo gallery train-demo docs-images programs check check-programs check-tests check-threads check-aarch64 check-emulated asan ubsan tsan fuzz fuzz-run mutate bench quality table install uninstall \
        clean help FORCE

all: $(STATIC) $(SHARED) $(LINK) $(EXAMPLES)
FORCE:

# ---- library, examples, tests --------------------------------------------------------------------------------

$(B)/lib/%.o: lib/%.c Makefile | $(DEPS_FIRST)
	$(call say,CC,$<)
	$(Q)$(CC) $(LIB_FLAGS) $(CPPFLAGS) $(CFLAGS) $(LAST) -MMD -MP -c -o $@ $<

$(STATIC): $(LIB_OBJ)
	$(call say,AR)
	$(Q)rm -f $@ && $(AR) rcs $@ $(LIB_OBJ)

$(SHARED): $(LIB_OBJ) lib/weft.map
	$(call say,LD)
	$(Q)$(CC) $(SO_LDFLAGS) $(CFLAGS) $(LDFLAGS) -o $@ $(LIB_OBJ) $(PKG_LIBS) -lm -pthread

$(LINK): $(SHARED)
	$(Q)ln -sf libweft.so.$(ABI) $@

# An example sees the public headers and the shared library, as a stranger's program would.
$(B)/examples/%.o: examples/%.c Makefile | $(DEPS_FIRST)
	$(call say,CC,$<)
	$(Q)$(CC) $(EX_FLAGS) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

$(DRAW): $(DRAW_OBJ)
	$(call say,AR)
	$(Q)rm -f $@ && $(AR) rcs $@ $(DRAW_OBJ)

# Of what draws, a program gets what it calls.
$(filter-out %/weft,$(EXAMPLES)): %: %.o $(DRAW) $(LINK)
	$(call say,LD)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $< $(DRAW) -L$(B) -lweft -Wl,-rpath,'$$ORIGIN/..' -lm

$(B)/examples/weft: $(TOOL_OBJ) $(DRAW) $(LINK)
	$(call say,LD)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $(TOOL_OBJ) $(DRAW) -L$(B) -lweft -Wl,-rpath,'$$ORIGIN/..' -lm

# The installed tool is the same program, looking for its library where that is installed: at LIBDIR seen from
# BINDIR, so that the tree can be moved. It is linked again when that changes.
RPATH = $(or $(addprefix $$ORIGIN/,$(shell realpath -m --relative-to='$(BINDIR)' '$(LIBDIR)' 2>/dev/null)),$(LIBDIR))
$(B)/install/rpath: FORCE
	@mkdir -p $(@D)
	$(Q)echo '$(RPATH)' | cmp -s - $@ || echo '$(RPATH)' > $@

$(B)/install/weft: $(TOOL_OBJ) $(DRAW) $(LINK) $(B)/install/rpath
	$(call say,LD)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $(TOOL_OBJ) $(DRAW) -L$(B) -lweft -Wl,-rpath,'$(RPATH)' -lm

$(B)/tests/%.o: tests/%.c Makefile | $(DEPS_FIRST)
	$(call say,CC,$<)
	$(Q)$(CC) $(TEST_FLAGS) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

$(B)/tests/examples/test_draw: $(DRAW)
$(TESTS): $(B)/tests/marks.o
$(TESTS) mutate: MARKS = $(B)/tests/marks.o -Wl,--wrap=_mark_point
$(BENCHES): $(B)/tests/bench/measure.a
$(filter-out $(B)/tests/nets/test_double,$(TESTS)) $(BENCHES) $(LAYOUT): %: %.o $(STATIC)
	$(call say,LD)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $< $(MARKS) $(filter-out $(STATIC),$(filter %.a,$^)) $(STATIC) $(CHECK_LIBS) $(PKG_LIBS) -lm -ldl -pthread

# The networks a second time, with doubles for floats (tests/nets/double.h). Below them lie the usual objects of lib/base
# alone, which know no floats: what is missing in double is an error of the linker's.
DOUBLE     := $(B)/tests/nets/test_double
DOUBLE_SRC := $(patsubst %,lib/tensor/%.c,ref tiles attend outer) $(patsubst %,lib/nets/%.c,ops norm attention tape layer turn cells exec clip_layer)
DOUBLE_OBJ := $(DOUBLE_SRC:%.c=$(B)/double/%.o)
$(DOUBLE).o: TEST_FLAGS += -include tests/nets/double.h
$(B)/double/%.o: %.c Makefile | $(DEPS_FIRST)
	$(call say,CC,$<)
	$(Q)$(CC) $(TEST_FLAGS) -include tests/nets/double.h $(CPPFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

$(DOUBLE): %: %.o $(DOUBLE_OBJ) $(filter $(B)/lib/base/%,$(LIB_OBJ)) $(B)/tests/marks.o
	$(call say,LD)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $(filter %.o,$^) -Wl,--wrap=_mark_point $(CHECK_LIBS) -lm -ldl -pthread

# The benchmark times the networks' operations: the linker sends their calls through its own functions.
TIMED := wf_attend wf_group_norm wf_layer_norm wf_activate wf_geglu
$(SUITE): $(SUITE_OBJ) $(DRAW) $(STATIC)
	$(call say,LD)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) $(TIMED:%=-Wl,--wrap=%) -o $@ $(SUITE_OBJ) $(DRAW) $(STATIC) $(PKG_LIBS) -lm -pthread

# What the other benches share with it.
$(B)/tests/bench/measure.a: $(B)/tests/bench/suite/measure.o $(B)/tests/bench/suite/work.o
	$(call say,AR)
	$(Q)rm -f $@ && $(AR) rcs $@ $^

# With clang's fuzzer its own main is linked in; else replay.c feeds the stored corpus, once.
FUZZ_MAIN := $(if $(FUZZING),,$(B)/tests/fuzz/replay.o)
$(FUZZERS): %: %.o $(FUZZ_MAIN) $(STATIC)
	$(call say,LD)
	$(Q)$(CC) $(CFLAGS) $(if $(FUZZING),-fsanitize=fuzzer) $(LDFLAGS) -o $@ $< $(FUZZ_MAIN) $(STATIC) $(PKG_LIBS) -lm -pthread

-include $(LIB_OBJ:.o=.d) $(DOUBLE_OBJ:.o=.d) $(EXAMPLES:=.d) $(TOOL_OBJ:.o=.d) $(DRAW_OBJ:.o=.d) $(TESTS:=.d) $(FUZZERS:=.d) $(BENCHES:=.d) $(SUITE_OBJ:.o=.d) $(LAYOUT).d

# ---- trying it -------------------------------------------------------------------------------------------------

demo: all
	$(Q)$(B)/examples/compose --model examples/model --out $(B)/demo
	$(Q)$(B)/examples/words examples/model $(B)/demo/words.png

gallery: all
	$(Q)sh examples/gallery/gallery.sh $(B) $(B)/gallery

# The bundled adapters, made again by weft's own trainer.
train-demo: all
	$(Q)PYTHON='$(PYTHON)' sh examples/gallery/train-demo.sh $(B) $(B)/train-demo

# The guide's pictures are rows of the gallery, side by side.
GUIDE = merge switch turns composite loratorio subbands klora klora-stronger zip blora blora-blocks balance curves masks find-masks \
        regions blend blocks phases new-adapter
docs-images: gallery
	$(Q)cp $(GUIDE:%=$(B)/gallery/strips/%.png) docs/images/methods/
	$(Q)cp $(B)/gallery/conflicts-monster-hatching.png docs/images/methods/conflicts.png
	$(Q)cp $(B)/gallery/strips/bf16.png docs/images/bf16.png

# Each item is one command line for tests/check.sh. The tests of what OpenBLAS multiplies run again with the products
# that it would choose on an older CPU: its tier of networks, and what is made of weights before (lib/tensor/gemm.h,
# linalg.h), the latter on whole networks in run/test_pairs and run/test_families.
corpus   = tests/fuzz/corpus/$(patsubst fuzz_%,%,$(notdir $1))
REPLAYS  = $(foreach f,$(FUZZERS),'$f $(call corpus,$f)')
HASWELL  = $(if $(shell grep -m1 -ow avx2 /proc/cpuinfo 2>/dev/null),\
             $(foreach t,$(filter $(BLAS_TESTS:%=$(B)/tests/%),$(TESTS)),'env OPENBLAS_CORETYPE=Haswell WEFT_TIER=openblas $t'))
BLAS_TESTS = $(addprefix tensor/test_,gemm linalg product attend) $(addprefix nets/test_,layer cells forms) \
             $(addprefix run/test_,aligned pairs families) \
             $(addprefix adapter/test_,create families peft peft2 save slice units) merge/% fuse/% plan/test_zip
PROGRAMS = $(TESTS:%='%') $(REPLAYS)
SCRIPTS  = $(foreach s,$(sort $(foreach d,harness abi ffi install examples bench,$(wildcard tests/$d/*.sh))) \
             tests/mutate/fresh.sh,'$s')
CHECK    = B='$(B)' CC='$(CC)' CFLAGS='$(CFLAGS)' PYTHON='$(PYTHON)' WEFT_TESTS=tests tests/check.sh

# Everything that `check` runs, built and not run.
programs: $(TESTS) $(FUZZERS) $(BENCHES) $(SUITE) $(LAYOUT)

check: all programs
	$(Q)$(CHECK) $(PROGRAMS) $(HASWELL) $(SCRIPTS)

# For the sanitizers: what runs our code, without the scripts that look at a library as it is installed.
check-programs: all programs
	$(Q)$(CHECK) $(PROGRAMS) 'tests/examples/tool.sh' 'tests/examples/messages.sh' 'tests/examples/composing.sh'

SELF = +$(Q)$(MAKE) --no-print-directory

# libcheck forks for each test, and a child that ends early hides its leaks: here all tests of a program share it.
asan:
	$(SELF) B=$(B)/asan TENSOR_CFLAGS=-O2 CFLAGS='-g -O1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined' \
	  CK_FORK=no check-programs

# clang's sanitizer finds undefined behaviour that gcc's does not. It traps (Illegal instruction; a debugger says where), so
# that it needs nothing of clang's that is not installed with it. The same build has to be free of warnings.
ubsan:
	$(SELF) B=$(B)/clang CC=clang TENSOR_CFLAGS=-O2 CFLAGS='-g -O1 -Wall -Wextra -Wpedantic -Werror -fsanitize=undefined -fsanitize-trap=undefined' \
	  check-tests

check-tests: all programs
	$(Q)$(CHECK) $(PROGRAMS)

tsan:
	$(SELF) B=$(B)/tsan CFLAGS='-g -O1 -fsanitize=thread' check-threads

# Where threads meet; a thousand failed allocations and twenty-step pictures show a race no better than one step.
check-threads: $(filter-out %/test_memory %/test_compose,$(filter $(foreach d,base tensor run,$(B)/tests/$d/%),$(TESTS)))
	$(Q)$(CHECK) $(^:%='%')

# 64-bit ARM on another machine: a cross compiler, Debian's libraries for arm64 (.ci/aarch64), and qemu. Emulation is
# slow: what runs is the tests of what differs there, which is lib/tensor, one of networks that sit on it, and the ABI.
ARM_ROOT = $(CURDIR)/$(B)/aarch64/root
ARM_LIBS = usr/lib/aarch64-linux-gnu
ARM      = PKG_CONFIG_SYSROOT_DIR='$(ARM_ROOT)' PKG_CONFIG_LIBDIR='$(ARM_ROOT)/$(ARM_LIBS)/pkgconfig:$(ARM_ROOT)/$(ARM_LIBS)/openblas-pthread/pkgconfig' \
           $(MAKE) --no-print-directory B='$(B)/aarch64' CC='$(ARM_CC) --sysroot=$(ARM_ROOT)' \
           CFLAGS='-O2 -g -Wall -Wextra -Wpedantic -Werror' LDFLAGS='-Wl,-rpath,/$(ARM_LIBS)/openblas-pthread' \
           EMULATOR='qemu-aarch64 -L $(ARM_ROOT)'
ARM_CC   = aarch64-linux-gnu-gcc
# Its own tier is the one that every such processor gets.
EMULATED = $(filter $(foreach t,tensor/% nets/test_layer,$(B)/tests/$t),$(TESTS))

check-aarch64:
	+$(Q).ci/aarch64 $(B)/aarch64; status=$$?; [ $$status != 77 ] || exit 0; [ $$status = 0 ] && $(ARM) check-emulated

check-emulated: all $(EMULATED) $(LAYOUT)
	$(Q)EMULATOR='$(EMULATOR)' $(CHECK) $(EMULATED:%='env WEFT_TIER=neon $(EMULATOR) %') 'tests/abi/layout.sh'

FUZZ_SECONDS ?= 60
fuzz:
	$(SELF) B=$(B)/fuzz CC=clang FUZZING=1 CFLAGS='-g -O1 -fsanitize=fuzzer-no-link,address,undefined' fuzz-run

# Inputs that are found go under $(B); the stored ones seed the search.
fuzz-run: $(FUZZERS)
	$(Q)$(foreach f,$(FUZZERS),mkdir -p $(f)_found && $f -verbosity=0 -print_final_stats=1 -max_total_time=$(FUZZ_SECONDS) $(f)_found $(call corpus,$f) &&) true

# What tests/run/test_families.c measures goes behind the last line of docs/adapters.md that is not a table's.
table: $(B)/tests/run/test_families
	$(Q)WEFT_TESTS=tests WEFT_TABLE=$(B)/adapters.table $<
	$(Q)sed '/^<!-- what follows/q' docs/adapters.md | cat - $(B)/adapters.table > $(B)/adapters.md
	$(Q)cp $(B)/adapters.md docs/adapters.md

# One thing wrong at a time: do the tests notice? JOBS at a time; MUTANTS is
# a pattern for the room or the name of those wanted.
JOBS ?= $(shell nproc)
mutate: programs
	$(Q)B='$(B)' JOBS='$(JOBS)' MUTANTS='$(MUTANTS)' \
	  COMPILE='$(CC) $(LIB_FLAGS) $(CPPFLAGS) $(CFLAGS)' LINK='$(CC) $(CFLAGS) $(LDFLAGS)' \
	  LIBS='$(MARKS) $(CHECK_LIBS) $(PKG_LIBS) -lm -ldl -pthread' tests/mutate/mutate.sh

# For example BENCH_ARGS='--only steps --rounds 5', PYTHON=venv/bin/python for its peers; tests/bench/suite/main.c has all.
bench: $(SUITE) $(BENCHES)
	$(Q)mkdir -p $(B)/bench
	$(Q)PYTHON='$(PYTHON)' $(SUITE) --out $(B)/bench $(BENCH_ARGS)

# What each way of composing keeps of subject and style, judged on the bundled world (docs/quality.md). PYTHON needs torch, for
# the judge alone; QUALITY_ARGS='--only klora,zip' or --quick or --list.
quality: programs
	$(Q)$(PYTHON) tests/bench/quality/run.py --build '$(B)' $(QUALITY_ARGS)

# ---- installing --------------------------------------------------------------------------------------------------

TOOL := $(B)/install/weft
dest  = $(DESTDIR)$1

# A path below PREFIX is written with ${prefix}, so that the file can be moved with the tree.
below = $(patsubst $(PREFIX)/%,$${prefix}/%,$1)

$(B)/weft.pc: pkgconfig/weft.pc.in include/weft/base.h FORCE
	@mkdir -p $(@D)
	$(Q)sed -e 's|@prefix@|$(PREFIX)|' -e 's|@libdir@|$(call below,$(LIBDIR))|' \
	  -e 's|@includedir@|$(call below,$(INCDIR))|' -e 's|@version@|$(VERSION)|' $< > $@

install: $(STATIC) $(SHARED) $(TOOL) $(B)/weft.pc
	$(Q)install -d $(call dest,$(LIBDIR))/pkgconfig $(call dest,$(INCDIR))/weft
	$(Q)install -m 644 $(STATIC) $(call dest,$(LIBDIR))
	$(Q)install -m 755 $(SHARED) $(call dest,$(LIBDIR))
	$(Q)ln -sf libweft.so.$(ABI) $(call dest,$(LIBDIR))/libweft.so
	$(Q)install -m 644 $(HEADERS) $(call dest,$(INCDIR))/weft
	$(Q)install -m 644 $(B)/weft.pc $(call dest,$(LIBDIR))/pkgconfig
	$(Q)$(if $(TOOL),install -d $(call dest,$(BINDIR)) && install -m 755 $(TOOL) $(call dest,$(BINDIR)))
	$(Q)$(if $(MANUALS),install -d $(call dest,$(MANDIR))/man1 && install -m 644 $(MANUALS) $(call dest,$(MANDIR))/man1)

uninstall:
	$(Q)rm -f $(addprefix $(call dest,$(LIBDIR))/,libweft.a libweft.so libweft.so.$(ABI) pkgconfig/weft.pc)
	$(Q)rm -f $(call dest,$(BINDIR))/weft $(addprefix $(call dest,$(MANDIR))/man1/,$(notdir $(MANUALS)))
	$(Q)rm -rf $(call dest,$(INCDIR))/weft

deps:
	$(Q)CC='$(CC)' PACKAGES='$(PACKAGES)' .ci/deps

clean:
	$(Q)rm -rf $(B)

help:
	@echo 'make             the library, static and shared, and the examples, in $(B)/'
	@echo 'make deps        install the libraries weft needs (Debian, Ubuntu; elsewhere it names them)'
	@echo 'make demo        the bundled model under every method, as PNG pictures in $(B)/demo/'
	@echo 'make train-demo  the bundled adapters, made again by weft train, beside the bundled ones: $(B)/train-demo/train-demo.png'
	@echo 'make gallery     every way to compose, as one page: $(B)/gallery/index.html; docs-images: the guide has them'
	@echo 'make check       all tests; asan, ubsan, tsan: the same under sanitizers; fuzz: search with clang'
	@echo 'make check-aarch64   what differs on 64-bit ARM, by a cross compiler and qemu (Debian)'
	@echo 'make mutate      break the library in one place after the other; do the tests notice?'
	@echo 'make bench       measure, beside PyTorch where PYTHON has it; table: adapter families against their libraries, into docs/adapters.md'
	@echo 'make quality     what each way of composing keeps of subject and style; PYTHON needs torch'
	@echo 'make install     into PREFIX ($(PREFIX)), below DESTDIR when set; uninstall takes it away'
	@echo 'make clean       remove $(B)/'
	@echo 'V=1 shows the commands. CC, CFLAGS, CPPFLAGS, LDFLAGS, PREFIX, LIBDIR, BINDIR, DESTDIR are yours.'
