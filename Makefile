# Two commands do everything: `make demo` and `make test`. The first run makes a virtual environment and builds the core.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
export TF_CPP_MIN_LOG_LEVEL ?= 2

.PHONY: demo test test-live check bench bench-live native native-check native-check-address native-check-thread fuzz setup clean

setup: $(VENV)/ready

$(VENV)/ready: constraints.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt cmake ninja nanobind scikit-build-core
	$(BIN)/python -m pip install --quiet --no-build-isolation --constraint constraints.txt --editable '.[dev]'
	touch $@

# Build the native core again after a change in native/.
native:
	flock $(VENV)/native.lock $(BIN)/python -m pip install --quiet --no-build-isolation --no-deps --editable .

demo: setup
	$(BIN)/springtide demo --out demo-out

# Two processes, a file in one of them: much of the time is waiting. One test at a time: .venv/bin/pytest
test: setup check
	$(BIN)/pytest -n 2 --dist loadfile

# On a real Kafka and a real Flink on this machine, of their own for each of two processes. Needs Java 17 and Maven
# (.ci/install-java) and fails without.
test-live: setup
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder tests/live

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup
	$(BIN)/python -m tests.benchmarks --out bench-out

# On a real Kafka and a real Flink, beside Flink SQL. Needs Java 17 and Maven.
bench-live: setup
	$(BIN)/python -m tests.benchmarks.live --out bench-out/live

# The C++ core under sanitizers, each in a build of its own; needs g++ alone.
native-check: setup $(addprefix native-check-,address thread)

native-check-address: SANITIZE := address,undefined
native-check-thread: SANITIZE := thread
native-check-address native-check-thread: native-check-%: setup
	$(BIN)/cmake -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN)/ninja) -S native/tests -B build/$@ -DSPRINGTIDE_SANITIZE=$(SANITIZE)
	$(BIN)/cmake --build build/$@ --parallel 2
	$(BIN)/ctest --test-dir build/$@ --output-on-failure --parallel 2

# What reads bytes from outside, fed with bytes nobody meant: FUZZ_SECONDS in all, the same inputs for the same FUZZ_SEED.
FUZZ_SECONDS ?= 60
FUZZ_SEED ?= 1
fuzz: setup
	$(BIN)/cmake -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN)/ninja) -S native/fuzz -B build/native-fuzz
	$(BIN)/cmake --build build/native-fuzz --parallel 2
	$(BIN)/python -m tests.fuzz --seconds $(FUZZ_SECONDS) --seed $(FUZZ_SEED) --native build/native-fuzz --crashes build/crashes

clean:
	rm -rf build demo-out bench-out $(VENV)
