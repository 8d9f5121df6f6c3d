# Every target does all the set-up it needs, once, into .venv.
.DEFAULT_GOAL := help
.PHONY: help setup test test-unit test-slow lint demo bench clean
# Variables that make passes on to setup.sh (make setup PYTHON=python3.13). A variable that is not set stays unset.
export PYTHON CXX TORCH_INDEX_URL

VENV := $(CURDIR)/.venv/bin
# Processes that run tests, one thread each. They take the files in the order of their names: those in tests/unit, which
# are quick, come last, so that no process waits long for the other. They keep bytecode: without it every process would
# compile the tests and the package anew.
JOBS ?= 2
PYTEST := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 "$(VENV)/python" -m pytest \
	-n $(JOBS) --dist loadfile --no-loadscope-reorder
SHELL_SCRIPTS := $(wildcard scripts/*.sh) .ci/run

help: ## this list
	@echo 'Targets (each does all the set-up it needs into .venv):'
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | while IFS='	' read -r name text; do \
		printf '  make %-10s %s\n' "$$name" "$$text"; done
	@echo
	@echo 'Settings of the set-up, as in "make setup PYTHON=python3.13":'
	@echo '  PYTHON           the Python to use, 3.11 to 3.14; a torch >= 2.6 that it can import already is kept'
	@echo '  CXX              the C++ compiler (default: g++)'
	@echo '  TORCH_INDEX_URL  the package index to take torch from. On a machine without a GPU, the URL that PyTorch'\''s page'
	@echo '                   "Get Started" shows for CPU saves several GB of CUDA libraries; other builds likewise.'
	@echo '  PIP_...          environment variables that pip itself reads'
	@echo 'Settings of the tests: JOBS (processes, default 2), PYTEST_ARGS (as in PYTEST_ARGS="-k gap -x")'

setup: ## make .venv: torch, fairseq and the rest (about 3 minutes; nothing is installed twice)
	@scripts/setup.sh

test: setup ## run the tests (not the slow ones)
	$(PYTEST) -m "not slow" $(PYTEST_ARGS)

test-unit: setup ## run the unit tests: no training, under a minute
	$(PYTEST) -m "not slow" tests/unit $(PYTEST_ARGS)

test-slow: setup ## run the slow tests
	$(PYTEST) -m slow $(PYTEST_ARGS)

lint: setup ## check style, types and shell scripts
	"$(VENV)/ruff" format --check .
	"$(VENV)/ruff" check .
	"$(VENV)/mypy"
	"$(VENV)/shellcheck" $(SHELL_SCRIPTS)

demo: setup ## train and compare on the embedded corpus
	@"$(VENV)/dual-fairseq" demo runs/demo

bench: setup ## measure what training a pair costs (tables to runs/bench; BENCH_ARGS="--parts step", --help lists them)
	OMP_NUM_THREADS=1 "$(VENV)/python" benchmarks/training.py $(BENCH_ARGS)

clean: ## remove build artefacts and caches; keeps .venv and runs/
	rm -rf build dist ./*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name .venv -prune -o -name __pycache__ -prune -exec rm -rf {} +
