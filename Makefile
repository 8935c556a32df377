PYTHON ?= .venv/bin/python
.PHONY: install check lint types test quick format

install:            ## a virtual environment with everything the checks need
	python3 -m venv .venv
	.venv/bin/pip install "torch>=2.13,<2.14"
	.venv/bin/pip install -e ".[bulk,ray,distill,dev]"

check: lint types test

lint:
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .

types:
	$(PYTHON) -m mypy

test:
	$(PYTHON) -m pytest

quick:
	$(PYTHON) -m pytest -m "not slow"

format:
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .
	$(PYTHON) -m tests.helm.config_schema
