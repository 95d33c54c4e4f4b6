# `make demo` and `make test` work on a fresh machine: each first makes the environment in .venv.
SHELL := bash
.DELETE_ON_ERROR:
.PHONY: setup demo test fast lint clean

BOOTSTRAP ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTHON := $(BIN)/python
PIP := $(PYTHON) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
READY := $(VENV)/.ready

# Made again when what it depends on changes; pip leaves alone what is already as pinned.
$(READY): pyproject.toml constraints.txt
	$(BOOTSTRAP) -m venv $(VENV)
	$(PIP) torch setuptools
	$(PIP) --no-build-isolation --editable '.[torch,onnx,test,dev]'
	# The model definitions are all we use: with its dependencies, torchvision would replace torch.
	$(PIP) --no-deps torchvision
	touch $@

setup: $(READY)

demo: setup
	$(PYTHON) benchmarks/demo.py

test: setup
	$(PYTHON) -m pytest -n 2

fast: setup
	$(PYTHON) -m pytest -n 2 -m "not slow"

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
