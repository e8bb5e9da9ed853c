# Every command a person needs; each sets up what it lacks first (see README.md).
SHELL := /bin/bash
VENV := .venv
PYTHON := $(VENV)/bin/python
CLIENTS := tests/clients
TYPES := tests/dashboards/types
BENCH := .tools/bench
CHART := deploy/helm/fal-gateway
CHART_MODELS := tests/chart/models
CHART_TOOLS := .tools/chart
CHECKOV := .tools/checkov
E2E := .tools/e2e
K8S := .tools/k8s
COMPILED := .tools/compiled
# What is asked of the compiled gateway in `make test`; `make test-compiled` asks everything.
COMPILED_TESTS := $(addprefix tests/wire/test_,answers.py build.py drain.py early_answers.py faults_upload.py fields.py \
    framing.py memory.py once.py order.py smuggling.py) \
    $(addprefix tests/limits/test_,content.py fields.py order.py waiting.py) tests/tracing/test_exchanges.py
# Files of tests, two at a time: most of them wait for sockets.
TWO_AT_A_TIME := -n 2 --dist loadfile
# Seconds of the benchmark's soak; `make bench SOAK=600` for ten minutes. BENCH_ARGS: see `python -m benchmarks --help`.
SOAK := 60
BENCH_ARGS :=
# Of `make chaos` (tests/chaos/README.md): the seed that draws callers and faults (left out: any), and how long.
SEED :=
SECONDS := 120
PYTHON_CODE := gateway grafana tests tools benchmarks deploy setup.py

.PHONY: setup setup-test system-packages run test test-compiled chart-test chart-readme lint compiled bench dashboards dashboard-previews e2e e2e-k8s chaos

# What running needs: the virtual environment with the package.
setup: $(VENV)/.stamp-run

# What testing needs on top: test tools, the real clients, Grafana's types, a browser, and helm.
setup-test: $(VENV)/.stamp-test $(CLIENTS)/node_modules/.stamp $(TYPES)/node_modules/.stamp $(CHART_TOOLS)/.stamp system-packages

run: setup
	@exec $(PYTHON) tools/run.py

test: setup-test
	@$(MAKE) --no-print-directory --jobs=2 lint compiled
	@if [ -e $(COMPILED)/.stamp ]; then PYTHONPATH=$(abspath $(COMPILED)) $(PYTHON) -m pytest -q $(TWO_AT_A_TIME) $(COMPILED_TESTS); fi
	@exec $(PYTHON) -m pytest $(TWO_AT_A_TIME)

test-compiled: setup-test compiled
	@PYTHONPATH=$(abspath $(COMPILED)) exec $(PYTHON) -m pytest $(TWO_AT_A_TIME) tests/wire tests/limits tests/clients tests/tracing

# Everything about the chart; `make test` asks all but checkov, which takes minutes to install.
chart-test: setup-test $(CHECKOV)/.stamp
	@exec $(PYTHON) -m pytest $(TWO_AT_A_TIME) tests/chart

# Its table of values, out of values.yaml.
chart-readme: $(VENV)/.stamp-test
	@$(PYTHON) tools/chart_readme.py $(CHART)/values.yaml >$(CHART)/README.md

# What takes minutes: the image in containers, the chart's tests, real proxies in front, a registry, two minutes of chaos
# (docs/image.md, docs/proxies.md, tests/chaos/README.md).
e2e: setup-test $(E2E)/.stamp
	@exec $(PYTHON) -m pytest --timeout 1800 tests/e2e

# Gateways under load and faults drawn from a seed, then the accounts compared; OUTAGES=1: how long each fault keeps
# callers out.
chaos: setup-test
	@exec $(PYTHON) -m tests.chaos $(if $(SEED),--seed $(SEED)) --seconds $(SECONDS) $(if $(OUTAGES),--outages)

# The chart before a real API server, which Go builds here; without Go it is left out.
e2e-k8s: setup-test $(K8S)/.stamp
	@if [ -e $(K8S)/.stamp ]; then exec $(PYTHON) -m pytest --timeout 600 tests/e2e/k8s; \
	else echo "e2e-k8s is left out: it builds a Kubernetes API server, and there is no Go here"; fi

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

$(CHART_TOOLS)/.stamp: $(CHART_MODELS)/package.json $(CHART_MODELS)/package-lock.json tools/setup.sh | $(VENV)/.stamp-test
	@tools/setup.sh chart

$(CHECKOV)/.stamp: tools/checkov.txt
	@tools/setup.sh checkov

$(TYPES)/node_modules/.stamp: $(TYPES)/package.json $(TYPES)/package-lock.json tools/setup.sh
	@tools/setup.sh types

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
