# Set-up, the tests and the demo, on a fresh Linux machine with Python 3.11 or newer and make.
NEW_ENOUGH := -c 'import sys; sys.exit(sys.version_info < (3, 11))'
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do $$p $(NEW_ENOUGH) 2>/dev/null && { echo $$p; break; }; done)
BIN := .venv/bin
READY := .venv/ready
SIDE_BY_SIDE := --numprocesses logical --maxprocesses 4 --dist loadfile

.PHONY: help setup run demo test lint types boundaries unit browser nightly screenshots clean

help:  ## show this list
	@grep -E '^[a-z]+:.*##' Makefile | sed 's/:.*##/	/' | expand -t 14

setup: $(READY)  ## build .venv with what running and testing need

$(READY): requirements.txt requirements-dev.txt
	@test -n "$(PYTHON)" && $(PYTHON) $(NEW_ENOUGH) \
		|| { echo "Python 3.11 or newer is needed and was not found. Name one: make PYTHON=/path/to/python3.11"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv \
		|| { rm -rf .venv; echo "Python cannot make a virtual environment; on Debian or Ubuntu: apt-get install python3-venv"; exit 1; }
	@echo "Installing into .venv (about 2 GB with the CPU build of torch, a few minutes)"
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --progress-bar off -r requirements-dev.txt
	@touch $(READY)

run: setup  ## open the dashboard
	$(BIN)/streamlit run app.py

demo: setup  ## the whole workflow on the embedded sample
	@$(BIN)/python -m lora_lightning demo

test: setup lint types boundaries unit browser  ## everything that CI runs
	@echo "All checks passed."

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

boundaries: setup
	$(BIN)/lint-imports

unit: setup
	$(BIN)/python -m pytest -m "not slow and not browser" $(SIDE_BY_SIDE)

browser: setup
	@CHROMIUM=$$($(BIN)/python tools/chromium.py) && echo "browser: $$CHROMIUM" && export CHROMIUM \
		&& $(BIN)/python -m pytest -m "browser and not slow" $(SIDE_BY_SIDE)

nightly: setup  ## the long forms
	$(BIN)/python -m pytest -m slow

screenshots: setup  ## draw the pictures of the docs again
	@CHROMIUM=$$($(BIN)/python tools/chromium.py) && export CHROMIUM && $(BIN)/python -m tests.e2e.screenshots docs/images

clean:  ## remove .venv and caches; the workspace stays
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
