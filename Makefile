# Two commands matter: `make demo` and `make test`. Both set themselves up in .venv first.
.DEFAULT_GOAL := help
.PHONY: help setup demo test lint format types check bare examples node perf constraints clean

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
STAMP := .venv/.raybolt-setup
PACKAGE := $(wildcard *.py) py.typed adapters benchmarks env rl store
SEED ?= 0
ARGS ?=

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20

setup: $(STAMP) ## make .venv with everything pinned by constraints.txt

$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" && "$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "raybolt needs Python 3.11 or newer; found '$(PYTHON)'. Install one, or: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11" >&2; exit 1; }
	test -x $(BIN)/python || "$(PYTHON)" -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[all,dev]"
	@touch $@

demo: setup ## train the SQL agent with the tiny model (about 6 minutes on 2 cores)
	$(BIN)/raybolt demo --seed $(SEED) $(ARGS)

test: setup ## run the whole test suite
	$(BIN)/python -m pytest $(ARGS)

lint: setup ## check style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: setup ## put the code into its standard form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The repository root is the package, so mypy gets a folder called raybolt that links to its parts.
types: setup ## check types
	rm -rf .types && mkdir -p .types/raybolt
	for part in $(PACKAGE); do ln -s ../../$$part .types/raybolt/$$part; done
	cd .types && ../$(BIN)/mypy --config-file ../pyproject.toml --cache-dir ../.mypy_cache -p raybolt

check: lint types test ## lint, types and tests: what every change must pass

bare: setup ## install the wheel without any agent framework and run what needs none
	.ci/bare

examples: setup ## run every example in its short mode
	.ci/examples

# For tests/adapters/test_http_node.py alone. Version 6 runs on Node.js 20; 7 asks for 22.
node: .node/node_modules/openai ## install the npm package openai for the test in JavaScript

.node/node_modules/openai:
	npm install --prefix .node --no-save --no-package-lock --no-audit --no-fund --loglevel=error openai@6

perf: setup ## measure what raybolt itself costs
	for file in benchmarks/perf/[a-z]*.py; do $(BIN)/python -m raybolt.benchmarks.perf.$$(basename $$file .py) || exit 1; done

# Left out: the CUDA libraries, which a CUDA build of torch pins itself and a CPU build does without.
constraints: setup ## resolve constraints.in again into constraints.txt
	$(BIN)/python -m pip install --quiet uv
	{ sed -n '/^# /p' constraints.in; $(BIN)/uv pip compile --quiet --no-header --no-annotate \
	  --python-version 3.11 constraints.in | grep -vE '^(cuda|nvidia|triton)'; } > constraints.new
	mv constraints.new constraints.txt

clean: ## remove what the other targets made, runs/ excepted
	rm -rf .venv .venv-bare .node .types .mypy_cache .ruff_cache .pytest_cache build dist *.egg-info
