# The verbs of the project; CI runs the same ones.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV_INSTALL = $(BIN)/uv pip install --quiet --python $(BIN)/python
export OPENBLAS_NUM_THREADS := 1
# Tests start the commands hundreds of times: they are compiled once, not each time.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup postgres cluster compare dev demo check test test-daybreak test-outside test-cluster bench bench-simulator bench-forecast bench-policies docs lock clean

setup: $(BIN)/daybreak

# Only the package and what it needs to run, as pinned.
$(BIN)/daybreak: requirements.txt requirements.lock pyproject.toml | $(BIN)/pip
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "daybreak needs Python 3.11 or newer; name one with make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
	  { echo "Python's venv module is missing; on Debian and Ubuntu: apt-get install python3-venv"; exit 1; }

# An extra of the same name, as pinned: PostgreSQL for the log, Dask for `simulate --cluster`.
postgres cluster: setup
	$(BIN)/pip install --quiet --disable-pip-version-check uv
	$(UV_INSTALL) -c requirements-dev.lock --editable '.[$@]'

# What checks and tests need as well: by uv, which takes half the time for all of it.
dev: $(VENV)/dev-installed

$(VENV)/dev-installed: requirements-dev.lock pyproject.toml | $(BIN)/pip
	$(BIN)/pip install --quiet --disable-pip-version-check uv
	$(UV_INSTALL) --require-hashes -r requirements-dev.lock
	$(UV_INSTALL) --no-deps --editable .
	touch $(BIN)/daybreak $@

demo: setup
	$(BIN)/daybreak demo

check: dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: test-daybreak test-outside

test-daybreak: dev
	@scripts/test-services
	$(BIN)/pytest -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder \
	  $(PYTEST_ARGS)

# The forecasters that ours are compared with.
test-outside: $(VENV)-bench/installed
	$(VENV)-bench/bin/python -m pytest tests/outside

# Against a real API server, which nothing here can fetch: see CONTRIBUTING.md.
test-cluster: dev
	@test -f "$$DAYBREAK_TEST_KUBECONFIG" || \
	  { echo "DAYBREAK_TEST_KUBECONFIG has to name the kubeconfig of a cluster"; exit 1; }
	@scripts/test-services
	$(BIN)/pytest tests/cluster tests/integration/test_cluster.py tests/integration/test_lease.py

bench: dev
	$(BIN)/python -m bench.run

bench-simulator: dev
	$(BIN)/python -m bench.simulator --day

# The outside forecasters stand in an environment of their own: one of their dependencies installs a
# top-level package `tests`.
TRACES ?= ../shared/traces
bench-forecast: $(VENV)-bench/installed
	$(VENV)-bench/bin/python -m bench.forecast --traces $(TRACES) $(BENCH_ARGS)

compare: $(VENV)-bench/installed

$(VENV)-bench/installed: requirements-dev.lock pyproject.toml | $(VENV)/dev-installed
	$(BIN)/uv venv --quiet --allow-existing --python $(BIN)/python $(VENV)-bench
	$(BIN)/uv pip install --quiet --python $(VENV)-bench/bin/python \
	  -c requirements-dev.lock --editable '.[compare]' pytest pytest-timeout hypothesis
	touch $@

bench-policies: dev
	$(BIN)/python -m bench.policies --traces $(TRACES) $(BENCH_ARGS)
	$(BIN)/python -m bench.ablations --traces $(TRACES)
	$(BIN)/python -m bench.troubles
	$(BIN)/python -m bench.seeds --traces $(TRACES)

# Everything in docs/ that the code writes.
docs: dev
	$(BIN)/python -m docs.make_schema
	$(BIN)/python -m docs.make_demo
	$(BIN)/python -m docs.make_seed

# Pin what the requirements resolve to today, with hashes, for every supported Python.
lock: dev
	$(BIN)/pip install --quiet uv
	$(BIN)/uv pip compile --universal --generate-hashes --python-version 3.11 --no-header \
	  requirements.txt -o requirements.lock
	$(BIN)/uv pip compile --universal --generate-hashes --python-version 3.11 --no-header \
	  -c requirements.lock --group dev --extra postgres --extra cluster pyproject.toml -o requirements-dev.lock
	$(BIN)/uv pip compile --universal --generate-hashes --python-version 3.11 --no-header \
	  -c requirements.lock --group image --extra postgres pyproject.toml -o deploy/requirements.lock

clean:
	rm -rf $(VENV) $(VENV)-bench .cache build *.egg-info
