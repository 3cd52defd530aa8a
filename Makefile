# Two commands matter to a newcomer: `make demo` and `make test`. README says the rest.
.DELETE_ON_ERROR:
SHELL := /bin/bash
PYTHON ?= python3
# Passed to every pip call, e.g. PIP_ARGS="--find-links DIR" where DIR holds a CPU build of torch.
PIP_ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check -q $(PIP_ARGS)

.PHONY: help venv demo test test-all check gpu-check ci-100 clean

help:
	@echo "make demo       set up .venv, train the two-tower network on the 100 bundled images (a minute on 2 cores, after the download)"
	@echo "make test       set up .venv, run ruff, mypy, the import-layer check and the fast tests (5 minutes)"
	@echo "make test-all   the same with the slow tests"
	@echo "make venv       set up .venv alone; PIP_ARGS=... is passed to pip"
	@echo "make gpu-check  what this machine can do: limits, GPU tests, network, stream, end to end (10 minutes)"
	@echo "make ci-100     make the bundled data set anew (needs scikit-image, in an environment of its own)"

venv: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml tools/preflight.py
	@command -v $(PYTHON) >/dev/null || { echo "python3 is missing: apt-get install python3 python3-venv python3-dev"; exit 2; }
	@$(PYTHON) tools/preflight.py
	@$(PYTHON) -m venv $(VENV)
	@echo "installing torch, DALI and the rest into $(VENV) ..."
	@$(PIP) -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "installing the tools that check the code ..."
	@$(PIP) -e '.[dev]'
	@touch $@

demo: $(VENV)/.installed
	@$(BIN)/alexnet-train --recipe small --out runs/demo --overwrite

check: $(VENV)/.installed-dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

test: check
	@$(BIN)/python -m pytest -m "not slow and not gpu"

test-all: check
	@$(PIP) -e '.[ray]'
	@$(BIN)/python -m pytest -m "not gpu"

gpu-check: $(VENV)/.installed-dev
	@$(BIN)/python -m alexnet.tools.gpu_check --out runs/gpu-check

ci-100: $(VENV)/.installed
	@test -d .venv-samples || $(PYTHON) -m venv .venv-samples
	@.venv-samples/bin/python -m pip install -q scikit-image click rich scipy && .venv-samples/bin/python -m pip install -q --no-deps -e .
	@rm -rf build/ci-100* && .venv-samples/bin/python -m alexnet.tools.samples.ci_100 build/ci-100-source
	@$(BIN)/alexnet-prep shard build/ci-100-source --out build/ci-100
	@rm -rf shards/ci-100/train shards/ci-100/val && cp -r build/ci-100/* shards/ci-100/
	@$(BIN)/python -c "from pathlib import Path; from alexnet.shards.checksums import write_checksums; write_checksums(Path('shards/ci-100'))"

clean:
	rm -rf $(VENV) .venv-samples build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
