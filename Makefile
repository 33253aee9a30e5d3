# Everything a person types. Only Python 3.11 to 3.14 with `venv` and GNU make are assumed.

SUITABLE := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 15))
FOUND := $(shell for candidate in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$candidate -c '$(SUITABLE)' 2>/dev/null && echo $$candidate && break; done)
PYTHON ?= $(FOUND)
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check --no-input

.PHONY: run test check schema lock bench bench-ledger bench-api bench-data bench-read clean install
.DEFAULT_GOAL := install

run: install
	@exec $(BIN)/purser dev

test: check
	@$(BIN)/pytest

check: install
	@$(BIN)/ruff format --check --quiet . || { $(BIN)/ruff format --diff .; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/python -m schema.export --check
	@$(BIN)/python -m app.settings_table --check
	@$(BIN)/pytest --quiet tests/app/test_import_directions.py

schema: install
	@$(BIN)/python -m schema.export
	@$(BIN)/python -m app.settings_table

lock: install
	@index=$$($(BIN)/pip config get global.index-url 2>/dev/null || true); \
	cert=$$($(BIN)/pip config get global.cert 2>/dev/null || true); \
	$${index:+env UV_DEFAULT_INDEX="$$index"} $${cert:+env SSL_CERT_FILE="$$cert"} \
	$(BIN)/uv pip compile pyproject.toml --extra development --extra checks --upgrade --universal \
		--python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url \
		--no-emit-find-links --quiet --output-file requirements.lock

bench: install
	@exec $(BIN)/python -m benchmarks

bench-ledger: install
	@exec $(BIN)/python -m benchmarks.ledger

bench-api: install
	@exec $(BIN)/python -m benchmarks.api

bench-data: install
	@exec $(BIN)/python -m benchmarks.data

bench-read: install
	@exec $(BIN)/python -m benchmarks.reading

clean:
	@if [ -x $(BIN)/purser ]; then $(BIN)/python -m app.development.clean; fi
	@rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

install: $(INSTALLED)

$(INSTALLED): $(VENV)/locked pyproject.toml
	@$(PIP) --no-index --no-deps --no-build-isolation --editable .
	@touch $(INSTALLED)

# No index is named: pip asks the one it is configured for, and compares hashes.
$(VENV)/locked: requirements.lock
	@$(if $(PYTHON),$(PYTHON) -c '$(SUITABLE)' 2>/dev/null,false) || { \
		echo "Purser needs Python 3.11 to 3.14; choose one: make run PYTHON=python3.12" >&2; exit 1; }
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	@echo "installing what requirements.lock names (once)"
	@$(PIP) --require-hashes --no-deps --only-binary :all: --no-compile -r requirements.lock
	@touch $(VENV)/locked
