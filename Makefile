# All files are in .venv, .demo, .matrix (other Pythons), .bench (benchmarks), .docs and site (documentation), which
# `make clean` removes.
PYTHON ?= python3
BIN := .venv/bin

# uv does not read pip's configuration; an index configured for pip applies here too.
PIP_INDEX := $(shell $(PYTHON) -m pip config get global.index-url 2>/dev/null)
ifneq ($(PIP_INDEX),)
export UV_DEFAULT_INDEX ?= $(PIP_INDEX)
endif

# Otherwise hundreds of processes would each compile the package again.
unexport PYTHONDONTWRITEBYTECODE

VENDOR := airflow_training/plugins/static/vendor
BENCHMARKS := $(filter-out __init__,$(basename $(notdir $(wildcard benchmarks/*.py))))

.PHONY: help install engines demo test test-all beside-tests test-slow test-matrix bench docs messages pictures vendor \
	stack lint format constraints clean

help: ## Show this list
	@sed -nE 's/^([a-z-]+):.*## (.*)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

install: .venv/installed ## Install the package and its tools into .venv

# The package and its tests run on 3.14 too (make test-matrix), but the demo needs TensorFlow, which has no wheels for it.
.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' || \
		{ echo "Python 3.10 to 3.13 is required; choose one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@echo "Installing into .venv (once, takes a minute or two) ..."
	@$(PYTHON) -m venv --clear .venv || \
		{ echo "Python's venv module is missing; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt uv
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode --constraint constraints.txt --editable '.[dev]'
	@touch $@

engines: install ## Install PostgreSQL, Chromium, PyTorch, Podman and Ray for the tests that need them (Debian, as root)
	@tests/engines/install
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[ray]'

demo: install ## Train a model with a real Airflow on this machine; ARGS=--keep keeps it running afterwards
	@$(BIN)/airflow-training demo $(ARGS)

test: lint ## Run all checks and the fast tests; ARGS are pytest's
	$(BIN)/python -m pytest --numprocesses auto --dist loadgroup --no-loadscope-reorder $(ARGS)

# Linting and making the images of the stack leave the processors idle in part, so both are done beside the tests.
test-all: engines ## Run all tests, including the slow ones and make stack (Debian, as root)
	@$(MAKE) --no-print-directory --jobs 2 beside-tests test-slow
	$(BIN)/python -m pytest -m stack tests/stack

# With a low priority: the tests measure how slow the machine is.
beside-tests: install
	@nice $(MAKE) --no-print-directory lint
	@nice tests/stack/images

test-slow: install
	$(BIN)/python -m pytest --numprocesses auto --dist loadgroup --no-loadscope-reorder -m "not stack" $(ARGS)

test-matrix: install ## Run the unit tests on each supported Python (or ARGS=3.12), and with the oldest dependencies
	@tests/matrix $(ARGS)

bench: .bench/installed ## Run the benchmarks, also of other providers; ARGS="service peers" runs these two
	@set -e; for name in $(or $(ARGS),$(BENCHMARKS)); do echo "== $$name"; .bench/bin/python -m benchmarks.$$name; done

.bench/installed: .venv/installed
	@echo "Installing into .bench (once, takes a minute or two) ..."
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python .bench
	@$(BIN)/uv pip install --quiet --python .bench/bin/python --compile-bytecode --constraint constraints.txt \
		--editable '.[dev]' --group bench
	@touch $@

pictures: install ## Take the screenshots of the docs in a running Airflow (Debian, as root)
	@dpkg --status chromium > /dev/null 2>&1 || { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium; }
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[dev]' --group pictures
	$(BIN)/python -m docs.pictures.take

# The files are in the repository, so that an installation needs no npm.
vendor: ## Fetch the third-party scripts of the training page from npm, in the versions of their package.json
	@rm -rf .npm && mkdir .npm && cp $(VENDOR)/package.json .npm
	@cd .npm && npm install --silent --ignore-scripts --no-package-lock
	@cp .npm/node_modules/uplot/dist/uPlot.iife.min.js $(VENDOR)/uplot.js
	@cp .npm/node_modules/uplot/dist/uPlot.min.css $(VENDOR)/uplot.css
	@cp .npm/node_modules/uplot/LICENSE $(VENDOR)/uplot.LICENSE
	@cp .npm/node_modules/lit-html/lit-html.js $(VENDOR)/lit-html.js
	@cp .npm/node_modules/lit-html/LICENSE $(VENDOR)/lit-html.LICENSE
	@rm -rf .npm

# Not --quiet, which also hides warnings from --strict. The variable turns off an announcement of Material for MkDocs.
docs: .docs/installed ## Build the documentation in site/
	@NO_MKDOCS_2_WARNING=1 .docs/bin/mkdocs build --strict
	@echo "Built site/index.html"

# A separate environment: MkDocs reads the package without importing it, so it needs no Airflow, and tests need no MkDocs.
.docs/installed: .venv/installed
	@echo "Installing into .docs (once) ..."
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python .docs
	@$(BIN)/uv pip install --quiet --python .docs/bin/python --group docs
	@touch $@

messages: install ## Quote the package's error messages in docs/troubleshooting.md
	$(BIN)/python -m docs.error_messages

stack: engines ## Start docker-compose.yaml with Podman and train in it (Debian, as root)
	@tests/stack/images
	$(BIN)/python -m pytest -m stack tests/stack

lint: install ## Check format, code, types and import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install ## Format the code and apply automatic fixes
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

constraints: install ## Update constraints.txt to the newest versions, for all supported Pythons
	$(BIN)/uv pip compile --quiet --universal --upgrade --python-version 3.10 --all-extras --no-annotate --no-header \
		--no-emit-index-url --no-emit-find-links pyproject.toml --output-file constraints.txt

clean: ## Remove all environments, caches and files of the demo
	find airflow_training benchmarks dags docs tests -name __pycache__ -prune -exec rm -rf {} +
	rm -rf .venv .demo .matrix .bench .docs site .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis dist
