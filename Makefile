# Two commands do everything on a machine that has Python 3.10 or newer and make: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
PY = $(VENV)/bin/python
TORCH ?= torch==2.13.0
export OMP_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM ?= false

.PHONY: help demo test test-all lint docs tiny data install install-dev clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## /  make \1\t/' | expand -t 20

demo: install ## Install, then teach the built-in tiny model new words and compare its answers
	@$(PY) examples/demo.py

test: install-dev ## Install what the tests need, then run them
	@OMP_NUM_THREADS=1 $(PY) -m pytest

test-all: install-dev ## The tests that take long, too
	@OMP_NUM_THREADS=1 $(PY) -m pytest -m 'not gpu'

lint: install-dev ## Check style
	@$(PY) -m ruff check .

docs: install ## Rewrite the pages that are made from the code
	@$(PY) -m swift.arguments.docs

tiny: install ## Train the built-in tiny model again from nothing (about half an hour)
	@bash recipes/tiny_chat/train.sh $(PY)

data: install ## Rewrite the small data sets of examples/data
	@$(PY) examples/data/make_data.py
	@$(PY) examples/data/make_media.py
	@$(PY) examples/data/make_eval.py

install: $(VENV)/.installed

install-dev: $(VENV)/.installed-dev

# An environment that sees the packages of this Python keeps a torch that is already installed. Without one, torch is
# pinned where there is no NVIDIA GPU, to a version for which a CPU build can be offered; with a GPU, pip decides.
$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo 'Python 3.10 or newer is needed: make PYTHON=...'; exit 1; }
	@if $(PYTHON) -c 'import torch' 2>/dev/null; then $(PYTHON) -m venv --system-site-packages $(VENV); else $(PYTHON) -m venv $(VENV); fi

$(VENV)/.torch: | $(VENV)/bin/python
	@if $(PY) -c 'import torch' 2>/dev/null; then echo 'torch is there'; \
	elif command -v nvidia-smi >/dev/null 2>&1; then $(PY) -m pip install -q torch; \
	else $(PY) -m pip install -q '$(TORCH)'; fi
	@touch $@

# Offline, an environment that has the packages is used as it is.
$(VENV)/.installed: pyproject.toml | $(VENV)/.torch
	@$(PY) -m pip install -q -e . || $(PY) -m pip install -q --no-build-isolation -e . || test -x $(VENV)/bin/swift
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(VENV)/.torch
	@$(PY) -m pip install -q -e '.[dev]' || $(PY) -m pip install -q --no-build-isolation -e '.[dev]' || $(PY) -c 'import pytest, swift'
	@touch $@ $(VENV)/.installed

clean: ## Remove the environment and what the demo wrote
	rm -rf $(VENV) demo_output
