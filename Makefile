PYTHON ?= .venv/bin/python
.PHONY: install check lint types test quick format lock image

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

# Two halves at once, for two cores.
test:
	@$(PYTHON) -m pytest -m "not slow" > .pytest-quick.log 2>&1 & quick=$$!; \
	$(PYTHON) -m pytest -m slow; slow=$$?; \
	wait $$quick; quick=$$?; cat .pytest-quick.log; rm .pytest-quick.log; \
	exit $$((slow + quick))

quick:
	$(PYTHON) -m pytest -m "not slow"

format:
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .
	$(PYTHON) -m tests.helm.config_schema

LOCK = $(PYTHON) -m uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-annotate \
	--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock"

lock:               ## what the images install, pinned with hashes, at the newest versions that pyproject.toml allows
	$(LOCK) requirements/build.in --output-file requirements/build.lock
	$(LOCK) pyproject.toml --output-file requirements/serve.lock
	$(LOCK) pyproject.toml --extra gpu --no-emit-package onnxruntime --output-file requirements/gpu.lock
	$(LOCK) pyproject.toml --extra distill --output-file requirements/distill.lock

image:              ## build the image for CPUs and check it, on a Docker engine of its own where none is running
	tests/docker/with-engine $(PYTHON) -m pytest tests/docker
