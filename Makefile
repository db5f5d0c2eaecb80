# One check for people and CI. `make setup` once; PY may name another interpreter.
PY ?= .venv/bin/python

.PHONY: setup check fix lint types docs test slow

setup:
	python3 -m venv .venv
	$(PY) -m pip install -q -c constraints.txt -e '.[dev]'

check: lint types test

lint:
	$(PY) -m ruff format --check src tests benchmarks docs/pages.py
	$(PY) -m ruff check src tests benchmarks docs/pages.py

types:
	$(PY) -m mypy

docs:
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict --quiet

test:
	$(PY) -m pytest

slow:
	$(PY) -m pytest -m "slow or browser or server or waits"

fix:
	$(PY) -m ruff format src tests benchmarks docs/pages.py
	$(PY) -m ruff check --fix src tests benchmarks docs/pages.py
