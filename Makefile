# Every command a person needs; each sets up what it lacks first (see README.md).
SHELL := /bin/bash
VENV := .venv
PYTHON := $(VENV)/bin/python
CLIENTS := tests/clients
TYPES := tests/dashboards/types
BENCH := .tools/bench
COMPILED := .tools/compiled
# What is asked of the compiled gateway in `make test`; `make test-compiled` asks everything.
COMPILED_TESTS := $(addprefix tests/wire/test_,answers.py build.py drain.py early_answers.py faults_upload.py fields.py \
    framing.py memory.py once.py order.py smuggling.py) \
    $(addprefix tests/limits/test_,content.py fields.py order.py waiting.py)
# Files of tests, two at a time: most of them wait for sockets.
TWO_AT_A_TIME := -n 2 --dist loadfile
# Seconds of the benchmark's soak; `make bench SOAK=600` for ten minutes. BENCH_ARGS: see `python -m benchmarks --help`.
SOAK := 60
BENCH_ARGS :=
PYTHON_CODE := gateway grafana tests tools benchmarks setup.py

.PHONY: setup setup-test system-packages run test test-compiled lint compiled bench dashboards dashboard-previews

# What running needs: the virtual environment with the package.
setup: $(VENV)/.stamp-run

# What testing needs on top: test tools, the real clients, and a browser.
setup-test: $(VENV)/.stamp-test $(CLIENTS)/node_modules/.stamp $(TYPES)/node_modules/.stamp system-packages

run: setup
	@exec $(PYTHON) tools/run.py

test: setup-test
	@$(MAKE) --no-print-directory --jobs=2 lint compiled
	@if [ -e $(COMPILED)/.stamp ]; then PYTHONPATH=$(abspath $(COMPILED)) $(PYTHON) -m pytest -q $(TWO_AT_A_TIME) $(COMPILED_TESTS); fi
	@exec $(PYTHON) -m pytest $(TWO_AT_A_TIME)

test-compiled: setup-test compiled
	@PYTHONPATH=$(abspath $(COMPILED)) exec $(PYTHON) -m pytest $(TWO_AT_A_TIME) tests/wire tests/limits tests/clients

# The same gateway with its hot modules compiled to C (setup.py): what the benchmark measures.
compiled: $(COMPILED)/.stamp

lint: setup-test
	@$(VENV)/bin/ruff check $(PYTHON_CODE)
	@$(VENV)/bin/ruff format --check $(PYTHON_CODE)
	@$(VENV)/bin/mypy

# The Grafana dashboards, written by their generator: for importing, and for the chart.
dashboards: $(VENV)/.stamp-test
	@exec $(PYTHON) -m grafana.generator

# A picture of each dashboard for docs/dashboards.md, out of a real Prometheus that has seen real traffic.
dashboard-previews: setup-test
	@exec $(PYTHON) -m tests.dashboards.preview

# The gateway beside its peers; the results go to benchmarks/RESULTS.md.
bench: setup compiled $(BENCH)/.stamp
	@exec $(PYTHON) -m benchmarks --soak $(SOAK) $(BENCH_ARGS)

$(VENV)/.stamp-run: pyproject.toml tools/constraints.txt tools/setup.sh
	@tools/setup.sh package

$(VENV)/.stamp-test: pyproject.toml tools/constraints.txt tools/setup.sh
	@tools/setup.sh package-test

$(CLIENTS)/node_modules/.stamp: $(CLIENTS)/package.json $(CLIENTS)/package-lock.json tools/setup.sh
	@tools/setup.sh node

$(TYPES)/node_modules/.stamp: $(TYPES)/package.json $(TYPES)/package-lock.json tools/setup.sh
	@tools/setup.sh types

system-packages:
	@tools/setup.sh system

$(COMPILED)/.stamp: setup.py pyproject.toml tools/setup.sh $(shell find gateway -name '*.py') | $(VENV)/.stamp-test
	@tools/setup.sh compiled

$(BENCH)/.stamp: benchmarks/peers/requirements.txt benchmarks/peers/package.json benchmarks/peers/package-lock.json tools/setup.sh
	@tools/setup.sh bench
