# Start with `make demo` and `make test`. The first run creates a virtual environment and builds the native core.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
export TF_CPP_MIN_LOG_LEVEL ?= 2
# With bytecode on disk each of the many processes starts 0.4 s earlier.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test test-live check bench bench-live profile native native-check native-check-address native-check-thread fuzz \
        native-fuzz setup clean

# Also after a change in native/, such as a pull: a core of other sources would write other bytes.
setup: $(VENV)/ready

CORE := CMakeLists.txt $(shell find native -type f -not -path 'native/tests/*' -not -path 'native/fuzz/*')
$(VENV)/ready: constraints.txt pyproject.toml $(CORE)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt cmake ninja nanobind scikit-build-core
	flock $(VENV)/native.lock \
	$(BIN)/python -m pip install --quiet --no-build-isolation --constraint constraints.txt --editable '.[dev]'
	touch $@

# Rebuild the native core, whatever changed.
native:
	flock $(VENV)/native.lock $(BIN)/python -m pip install --quiet --no-build-isolation --no-deps --editable .

demo: setup
	$(BIN)/springtide demo --out demo-out

# Two processes, distributed by file, because many tests wait; one that crashes ends the run. Sequentially: .venv/bin/pytest
PROCESSES := -n 2 --dist loadfile --no-loadscope-reorder --max-worker-restart=0
test: setup check
	$(BIN)/pytest $(PROCESSES) --durations=15

# On a real Kafka and a real Flink on this machine, separate for each of two processes. Requires Java 17 and Maven
# (.ci/install-java).
test-live: setup
	$(BIN)/pytest $(PROCESSES) --durations=15 tests/live

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup
	$(BIN)/python -m tests.benchmarks --out bench-out

# On a real Kafka and a real Flink, compared with Flink SQL. Requires Java 17 and Maven.
bench-live: setup
	$(BIN)/python -m tests.benchmarks.live --out bench-out/live

# Flame graphs of trainer, join and replica.
profile: setup
	$(BIN)/python -m tests.profile --out profile-out

# The C++ core under sanitizers, one build for each; requires only g++.
CHECKED := build/native-check
native-check: setup $(addprefix native-check-,address thread)

native-check-address: SANITIZE := address,undefined
native-check-thread: SANITIZE := thread
native-check-address native-check-thread: native-check-%: setup
	$(BIN)/cmake -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN)/ninja) -S native/tests -B build/$@ -DSPRINGTIDE_SANITIZE=$(SANITIZE)
	$(BIN)/cmake --build build/$@ --parallel 2
	$(BIN)/ctest --test-dir build/$@ --output-on-failure --parallel 2

# Fuzz every decoder of external bytes for FUZZ_SECONDS in total; the inputs depend only on FUZZ_SEED.
FUZZ_SECONDS ?= 60
FUZZ_SEED ?= 1
fuzz: native-fuzz
	$(BIN)/python -m tests.fuzz --seconds $(FUZZ_SECONDS) --seed $(FUZZ_SEED) --native $(CHECKED)-address/fuzz --crashes build/crashes

# The programs that `fuzz` runs: part of the build for the address sanitizer.
native-fuzz: setup
	$(BIN)/cmake -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN)/ninja) -S native/tests -B $(CHECKED)-address -DSPRINGTIDE_SANITIZE=address,undefined
	$(BIN)/cmake --build $(CHECKED)-address --target fuzzers --parallel 2

clean:
	rm -rf build demo-out bench-out profile-out $(VENV)
