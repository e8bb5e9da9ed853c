# Every command a person needs; each sets up what it lacks first (see README.md).
SHELL := /bin/bash
VENV := .venv
PYTHON := $(VENV)/bin/python
CLIENTS := tests/clients
BENCH := .tools/bench
E2E := .tools/e2e
K8S := .tools/k8s
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

.PHONY: setup setup-test system-packages run test test-compiled lint compiled bench e2e e2e-k8s

# What running needs: the virtual environment with the package.
setup: $(VENV)/.stamp-run

# What testing needs on top: test tools, the real clients, and a browser.
setup-test: $(VENV)/.stamp-test $(CLIENTS)/node_modules/.stamp system-packages

run: setup
	@exec $(PYTHON) tools/run.py

test: setup-test
	@$(MAKE) --no-print-directory --jobs=2 lint compiled
	@if [ -e $(COMPILED)/.stamp ]; then PYTHONPATH=$(abspath $(COMPILED)) $(PYTHON) -m pytest -q $(TWO_AT_A_TIME) $(COMPILED_TESTS); fi
	@exec $(PYTHON) -m pytest $(TWO_AT_A_TIME)

test-compiled: setup-test compiled
	@PYTHONPATH=$(abspath $(COMPILED)) exec $(PYTHON) -m pytest $(TWO_AT_A_TIME) tests/wire tests/limits tests/clients

# What takes minutes: the image in containers, real proxies in front, a registry (docs/image.md, docs/proxies.md).
e2e: setup-test $(E2E)/.stamp
	@exec $(PYTHON) -m pytest --timeout 1800 tests/e2e

# The chart before a real API server, which Go builds here; without Go it is left out.
e2e-k8s: setup-test $(K8S)/.stamp
	@if [ -e $(K8S)/.stamp ]; then exec $(PYTHON) -m pytest --timeout 600 tests/e2e/k8s; \
	else echo "e2e-k8s is left out: it builds a Kubernetes API server, and there is no Go here"; fi

# The same gateway with its hot modules compiled to C (setup.py): what the benchmark measures.
compiled: $(COMPILED)/.stamp

lint: setup-test
	@$(VENV)/bin/ruff check gateway tests tools benchmarks setup.py
	@$(VENV)/bin/ruff format --check gateway tests tools benchmarks setup.py
	@$(VENV)/bin/mypy

# The gateway beside its peers; the results go to benchmarks/RESULTS.md.
bench: setup compiled $(BENCH)/.stamp
	@exec $(PYTHON) -m benchmarks --soak $(SOAK) $(BENCH_ARGS)

$(VENV)/.stamp-run: pyproject.toml tools/constraints.txt tools/setup.sh
	@tools/setup.sh package

$(VENV)/.stamp-test: pyproject.toml tools/constraints.txt tools/setup.sh
	@tools/setup.sh package-test

$(CLIENTS)/node_modules/.stamp: $(CLIENTS)/package.json $(CLIENTS)/package-lock.json tools/setup.sh
	@tools/setup.sh node

system-packages:
	@tools/setup.sh system

$(COMPILED)/.stamp: setup.py pyproject.toml tools/setup.sh $(shell find gateway -name '*.py') | $(VENV)/.stamp-test
	@tools/setup.sh compiled

$(BENCH)/.stamp: benchmarks/peers/requirements.txt benchmarks/peers/package.json benchmarks/peers/package-lock.json tools/setup.sh
	@tools/setup.sh bench

$(E2E)/.stamp: tools/setup.sh
	@tools/setup.sh e2e

$(K8S)/.stamp: tests/e2e/k8s/go.mod tests/e2e/k8s/go.sum
	@tools/setup.sh k8s
