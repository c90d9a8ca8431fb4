# `make run` starts the exporter, `make test` runs all tests. Both need python3 (3.11 or newer), its venv
# module, and on the first run a way to PyPI.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: run demo demo-tools test coverage check bench docs lock test-tools clean

# config.yaml where there is one, else simulated servers.
run: .venv/run.stamp
	@if [ -e config.yaml ]; then exec $(BIN)/build-exporter run --config config.yaml; \
	else exec $(BIN)/build-exporter demo; fi

# Simulated servers, the exporter, Prometheus, Alertmanager and Grafana, as far as they are installed.
demo: demo-tools .venv/run.stamp
	@exec $(BIN)/build-exporter demo --all

# On Debian, as root, they are installed; elsewhere this does nothing.
demo-tools:
	@.ci/demo-tools

test: .venv/test.stamp
	$(BIN)/pytest -n 2

# The same, with the lines that no test runs; it takes longer.
coverage: .venv/test.stamp
	$(BIN)/pytest -n 2 --cov --cov-report=term:skip-covered --cov-fail-under=90

check: .venv/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python docs/build.py --check
	$(BIN)/python grafana/build.py --check
	$(BIN)/python deploy/prometheus_rule.py --check
	$(BIN)/pytest tests/test_layout.py

bench: .venv/test.stamp
	@for file in benchmarks/bench_*.py; do $(BIN)/python $$file || exit 1; done

# Writes the tables of docs/ and what is generated in grafana/ and deploy/ anew.
docs: .venv/test.stamp
	$(BIN)/python docs/build.py
	$(BIN)/python grafana/build.py
	$(BIN)/python deploy/prometheus_rule.py

# Takes the newest packages that fit into the image, each with its hashes.
LOCK := $(BIN)/uv pip compile --quiet --upgrade --no-annotate --generate-hashes --python-platform linux \
	--python-version 3.13 --custom-compile-command "make lock"
lock: .venv/test.stamp
	$(PIP) install uv
	$(LOCK) --extra postgresql --output-file deploy/image/requirements.txt pyproject.toml
	echo hatchling | $(LOCK) --output-file deploy/image/build-requirements.txt -

# Programs that some tests run (Debian, as root); without them those tests are skipped and named.
test-tools:
	.ci/install-tools

clean:
	rm -rf .venv .coverage* .hypothesis .mypy_cache .pytest_cache .ruff_cache dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("build-exporter needs Python 3.11 or newer")'
	$(PYTHON) -m venv .venv

.venv/run.stamp: pyproject.toml | .venv/bin/python
	$(PIP) install --editable .
	@touch $@

.venv/test.stamp: pyproject.toml | .venv/bin/python
	$(PIP) install --editable '.[dev]'
	@touch $@ .venv/run.stamp
