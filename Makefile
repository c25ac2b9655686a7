# Two commands do all the set-up: `make demo` and `make test`. `make help` lists the rest.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Processes that run the tests, a file of tests at a time and in the order of their names; 0 runs all in one.
WORKERS ?= 2

# gcc drops the stores to AMX's tile configuration in llama.cpp and every quantized model then crashes;
# without these two passes AMX works. Processors without AMX need nothing.
AMX := $(shell grep -qm1 amx_tile /proc/cpuinfo 2>/dev/null && echo yes)
ifeq ($(AMX),yes)
export CMAKE_ARGS := -DCMAKE_C_FLAGS="-fno-tree-dse -fno-dse" -DCMAKE_CXX_FLAGS="-fno-tree-dse -fno-dse" $(CMAKE_ARGS)
endif

.PHONY: help install demo test test-slow check format bench schemas clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV); llama-cpp-python is compiled, which takes about 5 minutes the first time"
	@$(BIN)/python -m pip install --quiet --upgrade pip
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

install: $(STAMP) ## create .venv and install everything

demo: $(STAMP) ## from data to a gated GGUF: base FAIL, adapter PASS, quants, release
	@$(BIN)/harness demo

test: $(STAMP) ## the test suite, without what is marked slow
	@$(BIN)/python -m pytest -m "not slow" -q -n $(WORKERS) --dist loadfile --no-loadscope-reorder
	@echo "next: make check · make demo · make test-slow"

test-slow: $(STAMP) ## what is marked slow
	@$(BIN)/python -m pytest -m slow -q

check: $(STAMP) ## format, lint, types, layers, drift of generated documents
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python -m harness.specs.schemas --check docs/schemas
	@$(BIN)/harness check recipes/*.yaml

format: $(STAMP) ## format and mend what can be mended
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench: $(STAMP) ## measurements against other tools
	@for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

schemas: $(STAMP) ## write docs/schemas
	@$(BIN)/python -m harness.specs.schemas docs/schemas

clean: ## remove the environment and caches, keep runs and releases
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
