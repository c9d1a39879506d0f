# Two commands do all set-up on a machine with Python 3.11 or newer and make: `make demo`, `make test`.
PYTHON ?= python3
DEMO := .venv-demo
TEST := .venv

.PHONY: demo test check faults bench requirements docs pictures clean

demo: $(DEMO)/.ready
	$(DEMO)/bin/fl-jobs demo

# The whole suite, on real parts that the tests start and stop themselves.
test: $(TEST)/.ready
	$(TEST)/bin/ruff format --check service tests bench
	$(TEST)/bin/ruff check service tests bench
	$(TEST)/bin/mypy --strict service
	$(TEST)/bin/lint-imports
	$(TEST)/bin/pytest -n 2 --dist loadfile tests/unit tests/conformance tests/architecture tests/integration tests/e2e

# Crashes at every named point, kills, restarts: slower.
faults: $(TEST)/.ready
	$(TEST)/bin/pytest -n 2 tests/faults

check: $(TEST)/.ready
	$(TEST)/bin/ruff format --check service tests bench
	$(TEST)/bin/ruff check service tests bench
	$(TEST)/bin/mypy --strict service
	$(TEST)/bin/lint-imports
	$(TEST)/bin/pytest -n 2 tests/unit tests/architecture

bench: $(TEST)/.ready
	$(TEST)/bin/fl-jobs bench ingest
	$(TEST)/bin/fl-jobs bench latency

# The environments hold exact versions with hashes, and no addresses.
requirements: $(TEST)/.ready
	$(TEST)/bin/python requirements/compile.py

# What the documents say of the code: docs/reference, and the states in docs/architecture.md.
docs: $(TEST)/.ready
	$(TEST)/bin/python -m docs.generate

# The pictures of the README: runs the demo.
pictures: $(TEST)/.ready
	$(TEST)/bin/python -m docs.pictures

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

clean:
	rm -rf $(DEMO) $(TEST) .local fl-demo
