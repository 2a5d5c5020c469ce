# Two commands do all the set-up themselves: make demo, make test.
PYTHON ?= python3
BIN := .venv/bin
PLUGINS := $(patsubst %/pyproject.toml,%,$(wildcard plugins/*/pyproject.toml))

.PHONY: demo test lint clean

demo: .venv/ready
	$(BIN)/ark demo

test: lint
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n 2 --dist loadfile -p no:cacheprovider tests plugins

lint: .venv/ready
	$(BIN)/ruff check --no-cache ark_framework plugins tests benchmarks
	$(BIN)/ruff format --no-cache --check ark_framework plugins tests benchmarks
	$(BIN)/mypy --cache-dir=/dev/null

.venv/ready: pyproject.toml $(wildcard plugins/*/pyproject.toml)
	test -d .venv || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --upgrade pip
	$(BIN)/python -m pip install -q -e ".[dev]" $(foreach plugin,$(PLUGINS),-e $(plugin))
	touch $@

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache
