# Each target sets up its own virtual environment in .venv; scripts/bootstrap does it.
.DEFAULT_GOAL := help
.PHONY: help demo test test-deep fuzz audit lint format clean
PY := .venv/bin/python
TIME ?= 600

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 19

demo: ## train both agents in both frameworks, evaluate them, print one table
	@sh scripts/bootstrap
	@$(PY) -m benchmarks.demo

test: ## lint, types, every test and every example
	@sh scripts/bootstrap
	@sh scripts/test

test-deep: ## the same with many more examples, new ones each time, then 100,000 of the suite's
	@sh scripts/bootstrap
	@HYPOTHESIS_PROFILE=nightly sh scripts/test
	@$(PY) -m parity check --examples 100000 --seed $$(date +%s)

fuzz: ## read files that nobody wrote, for TIME=600 seconds, guided by coverage where atheris runs
	@sh scripts/bootstrap
	@$(PY) -c 'import atheris' 2>/dev/null || PIP_CONSTRAINT=constraints.txt \
		$(PY) -m pip install --quiet --only-binary :all: '.[fuzz]' || true
	@$(PY) -m benchmarks.fuzz --seconds $(TIME)

audit: ## look the pinned packages up among known vulnerabilities (needs the network)
	@sh scripts/bootstrap
	@$(PY) -c 'import pip_audit' 2>/dev/null || $(PY) -m pip install --quiet pip-audit
	@$(PY) -m pip_audit --requirement constraints.txt --no-deps --disable-pip

lint: ## lint and types alone
	@sh scripts/bootstrap
	@sh scripts/lint

format: ## format the code and fix what the linter can fix
	@sh scripts/bootstrap
	@$(PY) -m ruff check --fix-only --quiet .
	@$(PY) -m ruff format .

clean: ## remove .venv, caches and builds (runs stay)
	rm -rf .venv build dist .hypothesis .import_linter_cache .pytest_cache .ruff_cache *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
