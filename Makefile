# trademl: `make demo` runs the whole loop, `make test` passes the tests. `make help` lists the rest.

SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# A plain Linux install of torch is a CUDA build of several GB. Hand pip another index for it:
#   make demo TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu
TORCH_INDEX_URL ?=
# --no-compile: byte code is made for what is imported, not for 250 MB that never are. It has to be
# kept then, or every process that the tests start compiles torch anew.
unexport PYTHONDONTWRITEBYTECODE
PIP_INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --quiet --no-compile -c constraints.txt \
	$(if $(TORCH_INDEX_URL),--extra-index-url $(TORCH_INDEX_URL))

# Two workers, a file of tests each: modules share what they set up.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile

.PHONY: help demo test check format bench docs clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

demo: $(VENV)/.demo ## run the whole loop on bundled real ticks
	$(BIN)/trademl demo

test: $(VENV)/.dev ## run every test
	$(PYTEST)

check: $(VENV)/.dev ## format, lint, types, imports, tests that load: the gate before a commit
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	@found=$$($(BIN)/python -m pytest --collect-only -qq 2>&1) || { tail -n 40 <<<"$$found"; exit 1; }

format: $(VENV)/.dev ## format the code and mend what lint can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/.dev ## write docs/cli.md anew
	$(BIN)/typer trademl.cli.main utils docs --name trademl --output docs/cli.md

bench: $(VENV)/.dev ## run every benchmark and write dated results
	$(BIN)/python benchmarks/run_all.py

clean: ## remove the environment and everything that was built
	rm -rf $(VENV) benchmarks/.venvs .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(VENV)/bin/python:
	@command -v $(PYTHON) >/dev/null || { \
	  echo "$(PYTHON) is missing: apt-get install python3 python3-venv" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || { \
	  echo "$(PYTHON) is $$($(PYTHON) -V), expected Python 3.11 to 3.13: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "the venv module is missing: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# An install is marked by a file; it is done again when what it depends on changed.
$(VENV)/.demo: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "installing trademl[train,serve,backtest] into $(VENV) (a few minutes the first time)"
	$(PIP_INSTALL) -e '.[train,serve,backtest]'
	@touch $@

$(VENV)/.dev: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "installing trademl[all,dev] into $(VENV) (some minutes the first time)"
	$(PIP_INSTALL) -e '.[all,dev]'
	@touch $@ $(VENV)/.demo
