# `make demo` and `make test` are all a fresh clone needs; both set up .venv first.
# PYTHON chooses the interpreter that .venv is made with: make setup PYTHON=python3.12

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Modules are compiled when they are first imported: most of what the packages bring never is, which saves half a minute.
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile
ZIG := ziglang==0.17.1
# Two test processes with one thread each use two cores better than one process with two threads.
WORKERS ?= 2
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -n $(WORKERS)

# The peers of the benchmarks are installed into an environment of their own. BENCH holds options, see --help.
BENCH ?=
BENCH_VENV := benchmarks/.venv
BENCH_PYTHON := $(BENCH_VENV)/bin/python

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev demo nano test test-all check format docs experiment bench-train bench-generate \
	bench-lookup bench-data bench-quality clean

help: ## Show what there is to make.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.runtime-installed ## Make .venv and install gpt2kit into it.

setup-dev: $(VENV)/.dev-installed ## The same, with what the tests and checks need.

demo: setup ## Prepare the sample text, train on it, write text, measure it: minutes, offline.
	$(BIN)/gpt2kit demo

nano: setup ## Make the small base model anew: hours, and the corpora (make nano CORPORA=path).
	$(BIN)/python recipes/nano/build.py --corpora $(CORPORA)

test: setup-dev ## Run the quick tests.
	$(PYTEST) -m "not slow"

test-all: setup-dev ## Run all tests, the slow ones too.
	$(PYTEST)

check: setup-dev ## Lint, format, types, import layers, documentation.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/make_cli_reference.py --check
	$(BIN)/python tools/check_docs.py

format: setup-dev ## Bring the code into its format.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: setup-dev ## Write docs/cli.md anew from the commands.
	$(BIN)/python tools/make_cli_reference.py

experiment: setup ## Make a study of docs/experiments: make experiment STUDY=data_size (a trial: OPTIONS="--quick").
	$(BIN)/python -m experiments.$(STUDY) $(OPTIONS)

bench-train: $(BENCH_VENV)/.installed ## Measure fine-tuning beside the peers: an hour or more (a trial: BENCH="--quick").
	$(BENCH_PYTHON) -m benchmarks.train $(BENCH)

bench-generate: $(BENCH_VENV)/.installed ## Measure writing beside the peers: an hour.
	$(BENCH_PYTHON) -m benchmarks.generate $(BENCH)

bench-lookup: setup ## Measure what guessing from the text gains and costs: a minute or two.
	$(BIN)/python -m benchmarks.lookup $(BENCH)

bench-data: $(BENCH_VENV)/.installed ## Measure preparing text beside the peers: minutes.
	$(BENCH_PYTHON) -m benchmarks.data $(BENCH)

bench-quality: $(BENCH_VENV)/.installed ## Measure the time to a validation loss beside the Trainer: half an hour.
	$(BENCH_PYTHON) -m benchmarks.quality $(BENCH)

clean: ## Remove .venv and caches; data, models and results stay.
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis build dist src/*.egg-info
	find src tests scripts tools -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "gpt2kit needs Python 3.11 or newer, \
	and $(PYTHON) is %d.%d: name another one, e.g. make $(MAKECMDGOALS) PYTHON=python3.12" % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV)

# The kernel of the native engine is compiled by what Python was compiled by, or what CC names, or else by Zig from a wheel.
$(VENV)/.runtime-installed: requirements.txt pyproject.toml $(wildcard src/gpt2kit/native/*.[ch]) | $(BIN)/python
	@if ! $${CC:-$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_config_var("CC"))')} --version > /dev/null 2>&1; \
	then $(PIP_INSTALL) $(ZIG) && export CC="$$($(BIN)/python -c 'import ziglang; print(*ziglang.__path__)')/zig cc"; fi; \
	echo "$(PIP_INSTALL) -r requirements.txt"; \
	$(PIP_INSTALL) -r requirements.txt
	@touch $@

$(VENV)/.dev-installed: requirements-dev.txt $(VENV)/.runtime-installed
	$(PIP_INSTALL) -r requirements-dev.txt
	@touch $@

$(BENCH_VENV)/.installed: benchmarks/install.py $(wildcard benchmarks/requirements*.txt) requirements.txt pyproject.toml
	@test -x $(BENCH_PYTHON) || $(PYTHON) -m venv $(BENCH_VENV)
	$(BENCH_PYTHON) benchmarks/install.py
	@touch $@
