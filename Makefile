# Two commands do all the set-up themselves: make demo, make test.
PYTHON ?= python3
BIN := .venv/bin
PACKAGES := $(wildcard plugins/*/pyproject.toml examples/*/pyproject.toml)
PLUGINS := $(patsubst %/pyproject.toml,%,$(PACKAGES))

.PHONY: demo test lint bench reliability clean

demo: .venv/ready
	$(BIN)/ark demo

test: lint
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n 2 --dist loadfile -p no:cacheprovider tests plugins examples

# All that can go wrong, on purpose: some minutes more than what make test runs of it.
reliability: .venv/ready
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n 2 --dist load -p no:cacheprovider -m "long or not long" tests/reliability

# FILMS: a folder of PNG or JPEG films; with a GPU: make bench FILMS=... GPU=--gpu
bench: .venv/ready
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/all.py --films $(FILMS) $(GPU)

lint: .venv/ready
	$(BIN)/ruff check --no-cache ark_framework plugins examples tests benchmarks docs/generate.py
	$(BIN)/ruff format --no-cache --check ark_framework plugins examples tests benchmarks docs/generate.py
	$(BIN)/mypy --cache-dir=/dev/null -p ark_framework
	$(BIN)/mypy --cache-dir=/dev/null $(foreach plugin,$(PLUGINS),$(wildcard $(plugin)/*.py)) benchmarks docs/generate.py

.venv/ready: pyproject.toml $(PACKAGES)
	test -d .venv || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --upgrade pip
	$(BIN)/python -m pip install -q -e ".[dev]" $(foreach plugin,$(PLUGINS),-e $(plugin))
	touch $@

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache
