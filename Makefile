# Two commands for everybody, each complete in a fresh clone with Python 3.11 or later:
#   make demo   environment, install, and the whole story on a throw-away PostgreSQL
#   make test   environment, install, lint-free tests against real servers
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The default editable install puts a finder before every import, which costs 12 ms.
EDITABLE := --config-settings editable_mode=compat
WORKERS ?= $(shell nproc 2>/dev/null || echo 2)

# Only what the lock files name, by its hash, is ever installed.
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check
LOCKED := $(INSTALL) --require-hashes -r requirements/build.txt

.PHONY: demo test test-between test-long lint types layers format bench clean
.PHONY: lock sbom audit

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

# Names what is installed anew: the newest releases that pyproject.toml allows.
lock: $(VENV)/.tools
	requirements/lock $(VENV)/tools/bin/uv

# What a container or an installation from requirements/run.txt is made of (CycloneDX).
sbom: $(VENV)/.tools
	mkdir -p build
	$(VENV)/tools/bin/cyclonedx-py requirements requirements/run.txt \
		--pyproject pyproject.toml --output-reproducible --of JSON \
		-o build/drkit.cdx.json
	@echo "build/drkit.cdx.json"

# Whether advisories are known of it: 0 none, 1 some, 2 they could not be asked.
audit: $(VENV)/.tools
	$(VENV)/tools/bin/python requirements/audit.py requirements/run.txt

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or later is needed; name one: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml requirements/demo.txt | $(VENV)/bin/python
	$(LOCKED) -r requirements/demo.txt
	$(INSTALL) --no-deps --no-build-isolation $(EDITABLE) -e .
	touch $@

$(VENV)/.dev: pyproject.toml requirements/dev.txt | $(VENV)/bin/python
	$(LOCKED) -r requirements/dev.txt
	$(INSTALL) --no-deps --no-build-isolation $(EDITABLE) -e .
	touch $@

$(VENV)/.tools: requirements/tools.txt | $(VENV)/bin/python
	$(PYTHON) -m venv $(VENV)/tools
	$(VENV)/tools/bin/pip install --quiet --disable-pip-version-check \
		--require-hashes -r requirements/tools.txt
	touch $@
