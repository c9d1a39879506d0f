# Two commands do all set-up on a machine with Python 3.11 or newer and make: `make demo`, `make test`.
PYTHON ?= python3
DEMO := .venv-demo
TEST := .venv
BIN := $(TEST)/bin

.DEFAULT_GOAL := help
.PHONY: help demo test check lint format schemas faults bench docs pictures requirements clean

help: ## Show this list.
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(DEMO)/.ready ## Train a model over three hospitals on this machine, from nothing.
	$(DEMO)/bin/fl-jobs demo

test: lint ## Run the whole suite, on real components that the tests start and stop themselves.
	$(BIN)/pytest -n 2 --dist loadfile tests/unit tests/conformance tests/architecture tests/integration tests/e2e

check: lint ## Format, lint, types, imports and unit tests: before every commit.
	$(BIN)/pytest -n 2 tests/unit tests/architecture

lint: $(TEST)/.ready ## Check format, style, types and the rooms' imports.
	$(BIN)/ruff format --check service tests bench docs
	$(BIN)/ruff check service tests bench docs
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(TEST)/.ready ## Format the code, and fix what ruff can fix.
	$(BIN)/ruff check --fix-only service tests bench docs
	$(BIN)/ruff format service tests bench docs

schemas: $(TEST)/.ready ## Write the schemas and the examples of what we publish anew.
	$(BIN)/python -m tests.examples

faults: $(TEST)/.ready ## Run the slower tests: crashes at every named point, kills, restarts.
	$(BIN)/pytest -n 2 tests/faults

bench: $(TEST)/.ready ## Measure, beside baselines: about twelve minutes; `python -m bench --help` for parts.
	$(BIN)/python -m bench ingest
	$(BIN)/python -m bench latency

docs: $(TEST)/.ready ## Write what the documents say of the code anew.
	$(BIN)/python -m docs.generate

pictures: $(TEST)/.ready ## Draw the README's pictures anew: runs the demo.
	$(BIN)/python -m docs.pictures

requirements: $(TEST)/.ready ## Compile the exact, hashed environments of requirements/.
	$(BIN)/python requirements/compile.py

$(DEMO)/.ready: requirements/local.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 demo")'
	$(PYTHON) -m venv $(DEMO)
	$(DEMO)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/local.txt
	$(DEMO)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(TEST)/.ready: requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 test")'
	$(PYTHON) -m venv $(TEST)
	$(TEST)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	$(TEST)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

clean: ## Remove the environments and what local runs have left.
	rm -rf $(DEMO) $(TEST) .local fl-demo
