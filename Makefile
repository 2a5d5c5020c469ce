# Two commands do all the set-up themselves: make demo, make test.
PYTHON ?= python3
BIN := .venv/bin
PACKAGES := $(wildcard plugins/*/pyproject.toml examples/*/pyproject.toml)
PLUGINS := $(patsubst %/pyproject.toml,%,$(PACKAGES))

.PHONY: demo test lint bench reliability docs wheels release-check clean

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
	$(BIN)/ruff check --no-cache ark_framework plugins examples tests benchmarks docs/*.py .ci
	$(BIN)/ruff format --no-cache --check ark_framework plugins examples tests benchmarks docs/*.py .ci
	$(BIN)/mypy --cache-dir=/dev/null -p ark_framework
	$(BIN)/mypy --cache-dir=/dev/null $(foreach plugin,$(PLUGINS),$(wildcard $(plugin)/*.py)) benchmarks docs/*.py .ci/release.py

docs: .venv/ready
	$(BIN)/python docs/generate.py --check
	$(BIN)/mkdocs build --strict

# The core, the plugins and the examples, as wheels and sdists in dist/.
wheels: .venv/ready
	rm -rf dist
	set -e; for package in . $(PLUGINS); do (cd $$package && $(CURDIR)/$(BIN)/python -m hatchling build -d $(CURDIR)/dist); done
	$(BIN)/twine check --strict dist/*

# Before a tag: make release-check TAG=v1.2.3
release-check: .venv/ready
	$(BIN)/python .ci/release.py $(TAG)

.venv/ready: pyproject.toml $(PACKAGES)
	test -d .venv || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --upgrade pip
	$(BIN)/python -m pip install -q -e ".[dev]" $(foreach plugin,$(PLUGINS),-e $(plugin))
	touch $@

clean:
	rm -rf .venv dist site .mypy_cache .pytest_cache .ruff_cache
