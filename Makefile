# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

# Every target sets itself up: all it needs is make and Python 3.11 or newer with pip.
# Another interpreter: make test PYTHON=python3.12

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt

.PHONY: help demo test bench lint types clean

help: ## show this list
	@sed -n 's/^\([a-z]*\):.*## /\1: /p' Makefile

demo: $(VENV)/.demo ## ask questions about Wikipedia passages, BTRReader beside the ordinary reader
	$(BIN)/btr demo

test: $(VENV)/.dev ## run all tests, the examples in docstrings included (PYTEST_ARGS: more options for pytest)
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadgroup tests btr_haystack components $(PYTEST_ARGS)

bench: $(VENV)/.dev ## measure the speed of reading against the ordinary reader
	$(BIN)/python benchmarks/reading.py

lint: $(VENV)/.dev ## check style, format and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(VENV)/.dev ## check types
	$(BIN)/mypy btr_haystack btr_cli components examples benchmarks

clean: ## remove the virtual environment and everything else that was made here, except indexes and models
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find btr_haystack btr_cli components tests examples benchmarks -name __pycache__ -prune -exec rm -rf {} +

# Debian and Ubuntu ship Python without ensurepip: there, the pip that runs outside of the environment puts pip into it.
$(VENV)/.venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make ... PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV) >/dev/null 2>&1 || \
		{ $(PYTHON) -m venv --without-pip --clear $(VENV) && $(PYTHON) -m pip --python $(BIN)/python install pip; }
	@touch $@

$(VENV)/.demo: $(VENV)/.venv pyproject.toml constraints.txt
	$(PIP) --editable '.[compare]'
	@touch $@

$(VENV)/.dev: $(VENV)/.venv pyproject.toml constraints.txt
	$(PIP) --editable '.[dev]'
	@touch $@ $(VENV)/.demo
