# Everything goes through .venv, which `make demo` and `make test` create and complete.
PYTHON ?= python3
VENV_PYTHON := .venv/bin/python
# Two OpenMP threads on a shared machine can be ten times slower than one.
export OMP_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev demo test lint claims bench doctor clean clean-all

help: ## print this list
	@echo 'make TARGET, with TARGET one of'
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

setup: ## create .venv with torch and the OpenMMLab hosts (once: 10 to 25 minutes)
	@$(PYTHON) scripts/bootstrap.py

setup-dev: ## the same with the test and lint tools
	@$(PYTHON) scripts/bootstrap.py --dev

demo: setup ## set up, make the data, train a pose model with our loss, draw the pictures
	@$(VENV_PYTHON) -m benchmarks.demo

test: setup-dev ## set up, check style and types, run the tests
	@$(MAKE) --no-print-directory check-code
	@$(VENV_PYTHON) -m pytest -m 'not slow' $(PYTEST_ARGS)

lint: setup-dev ## check style (ruff) and types (mypy)
	@$(MAKE) --no-print-directory check-code

.PHONY: check-code
check-code:
	@$(VENV_PYTHON) -m ruff check .
	@$(VENV_PYTHON) -m ruff format --check .
	@$(VENV_PYTHON) -m mypy

claims: setup ## train the grid behind the tables of the READMEs (hours; resumable)
	@$(VENV_PYTHON) -m benchmarks.claims

bench: setup ## measure time and memory against the hosts
	@$(VENV_PYTHON) -m benchmarks.speed

doctor: ## versions, what is registered, what does not fit together
	@if [ -x $(VENV_PYTHON) ]; then $(VENV_PYTHON) -m mmloss_plugins doctor; \
	else $(PYTHON) -m mmloss_plugins doctor; fi

clean: ## remove caches and runs; .venv and its compiled mmcv stay
	@rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis work_dirs build dist *.egg-info
	@find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

clean-all: clean ## remove .venv as well: the next set-up starts from nothing
	@rm -rf .venv
