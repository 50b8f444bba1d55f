# Two commands do everything: `make demo` and `make test`. The first run makes a virtual environment and builds the core.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
export TF_CPP_MIN_LOG_LEVEL ?= 2

.PHONY: demo test check bench native native-check setup clean

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
	$(BIN)/freshet demo --out demo-out

test: setup check
	$(BIN)/pytest

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup
	$(BIN)/python -m tests.benchmarks --out bench-out

native-check: setup
	$(BIN)/cmake -S native/tests -B build/native-check -DCMAKE_BUILD_TYPE=Debug
	$(BIN)/cmake --build build/native-check
	$(BIN)/ctest --test-dir build/native-check --output-on-failure

clean:
	rm -rf build demo-out bench-out $(VENV)
