# Every command a person needs; each sets up what it lacks first (see README.md).
SHELL := /bin/bash
VENV := .venv
PYTHON := $(VENV)/bin/python
CLIENTS := tests/clients
BENCH := .tools/bench
# Seconds of the benchmark's soak; `make bench SOAK=600` for ten minutes. BENCH_ARGS: see `python -m benchmarks --help`.
SOAK := 60
BENCH_ARGS :=

.PHONY: setup setup-test system-packages run test lint bench

# What running needs: the virtual environment with the package.
setup: $(VENV)/.stamp-run

# What testing needs on top: test tools, the real clients, and a browser.
setup-test: $(VENV)/.stamp-test $(CLIENTS)/node_modules/.stamp system-packages

run: setup
	@exec $(PYTHON) tools/run.py

test: lint
	@exec $(PYTHON) -m pytest

lint: setup-test
	@$(VENV)/bin/ruff check gateway tests tools
	@$(VENV)/bin/ruff format --check gateway tests tools
	@$(VENV)/bin/mypy

# The gateway beside its peers; the results go to benchmarks/RESULTS.md.
bench: setup $(BENCH)/.stamp
	@exec $(PYTHON) -m benchmarks --soak $(SOAK) $(BENCH_ARGS)

$(VENV)/.stamp-run: pyproject.toml tools/constraints.txt tools/setup.sh
	@tools/setup.sh package

$(VENV)/.stamp-test: pyproject.toml tools/constraints.txt tools/setup.sh
	@tools/setup.sh package-test

$(CLIENTS)/node_modules/.stamp: $(CLIENTS)/package.json $(CLIENTS)/package-lock.json tools/setup.sh
	@tools/setup.sh node

system-packages:
	@tools/setup.sh system

$(BENCH)/.stamp: benchmarks/peers/requirements.txt benchmarks/peers/package.json benchmarks/peers/package-lock.json tools/setup.sh
	@tools/setup.sh bench
