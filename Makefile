# Everything a user types: make run, make test. The rest serves these two.
PYTHON ?= python3
VENV   := .venv
PY     := $(VENV)/bin/python
PIP    := $(PY) -m pip --disable-pip-version-check --quiet --quiet
SPEED  ?= 70

.PHONY: help setup run test lint benchmarks soak clean
.DEFAULT_GOAL := help

help:
	@echo "make run         set up if needed, then a whole experiment on the virtual bench (about 2 minutes)"
	@echo "make test        lint, types, import contracts and every test (about 20 minutes on 2 cores)"
	@echo "make benchmarks  speed, as ratios to named peers, with the conditions"
	@echo "make soak        what takes longer; finished items are not repeated"
	@echo "make setup       only the set-up: .venv from requirements.lock, kernels compiled"

setup: $(VENV)/.ready-run

# Run again by itself when pyproject.toml or the lock change.
$(VENV)/.ready-run: pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "operando needs Python 3.11 or newer, this is " + sys.version)'
	@test -x $(PY) || $(PYTHON) -m venv $(VENV) || { echo "python3-venv is missing: sudo apt-get install python3-venv"; exit 1; }
	@echo "installing the locked packages into $(VENV) ..."
	@sed '/^# tests only/,$$d' requirements.lock > $(VENV)/run.lock
	@$(PIP) install --no-deps --require-hashes --only-binary=:all: -r $(VENV)/run.lock
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@echo "compiling the reduction kernels ..."
	@$(PY) -m controller.reduce_main --warm
	@touch $@

$(VENV)/.ready-test: $(VENV)/.ready-run
	@echo "installing what the tests need ..."
	@$(PIP) install --no-deps --require-hashes --only-binary=:all: -r requirements.lock
	@touch $@

run: setup
	@$(VENV)/bin/operando run hil_tests/experiments/quickstart.toml --bench --speed $(SPEED)

lint: $(VENV)/.ready-test
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

test: $(VENV)/.ready-test lint
	@.ci/mosquitto
	@.ci/chromium
	@# Three at a time on two cores, for whole runs mostly wait; file by file. They depend on what else the machine does:
	@# what failed is run once more, alone, and said.
	$(PY) -m pytest -n 3 --dist loadfile || { echo; echo "FAILED at the first try; once more, alone:"; $(PY) -m pytest --last-failed; }

benchmarks: $(VENV)/.ready-test
	$(PY) -m tests.benchmarks

soak: $(VENV)/.ready-test
	$(PY) -m hil_tests.soak

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
