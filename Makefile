# Two commands for everybody, each complete in a fresh clone with Python 3.11 or later:
#   make demo   environment, install, and the whole story on a throw-away PostgreSQL
#   make test   environment, install, lint-free tests against real servers
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The default editable install puts a finder before every import, which costs 12 ms.
EDITABLE := --config-settings editable_mode=compat
WORKERS ?= $(shell nproc 2>/dev/null || echo 2)

.PHONY: demo test test-between test-long lint types layers format bench clean

demo: $(VENV)/.demo
	$(BIN)/drkit demo --report build/demo

test: $(VENV)/.dev
	tests/run -n $(WORKERS) -m "not long and not between"

# What `make test` leaves out of the versions between the oldest and the newest.
test-between: $(VENV)/.dev
	tests/run -n $(WORKERS) -m "between and not long"

test-long: $(VENV)/.dev
	tests/run -n $(WORKERS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

layers: $(VENV)/.dev
	$(BIN)/lint-imports

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.dev
	$(BIN)/python benchmarks/compare.py --size 3.5GB --rounds 5

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or later is needed; name one: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install --quiet --disable-pip-version-check $(EDITABLE) -e '.[demo]'
	touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install --quiet --disable-pip-version-check $(EDITABLE) -e '.[dev]'
	touch $@
