# Everything happens in .venv, .demo (the demo), .matrix (other Pythons), .bench (the benchmarks), .docs and site (the
# pages): `make clean` leaves no trace.
PYTHON ?= python3
BIN := .venv/bin

# uv does not read pip's configuration: whoever gave pip another index means it for us too.
PIP_INDEX := $(shell $(PYTHON) -m pip config get global.index-url 2>/dev/null)
ifneq ($(PIP_INDEX),)
export UV_DEFAULT_INDEX ?= $(PIP_INDEX)
endif

# Hundreds of processes are started here, and each would compile the package again.
unexport PYTHONDONTWRITEBYTECODE

VENDOR := airflow_training/plugins/static/vendor
BENCHMARKS := $(filter-out __init__,$(basename $(notdir $(wildcard benchmarks/*.py))))

.PHONY: help install engines demo test test-all test-matrix bench docs pictures vendor stack lint format constraints clean

help: ## What can be made
	@sed -nE 's/^([a-z-]+):.*## (.*)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

install: .venv/installed ## Install the package and its tools into .venv

# The package and its tests take 3.14 too (make test-matrix), but the demo trains with TensorFlow, which has no wheels for
# it.
.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' || \
		{ echo "Python 3.10 to 3.13 is needed; name one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@echo "Installing into .venv, once; this takes a minute or two ..."
	@$(PYTHON) -m venv --clear .venv || \
		{ echo "Python's venv module is missing; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt uv
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode --constraint constraints.txt --editable '.[dev]'
	@touch $@

engines: install ## Install PostgreSQL, Chromium, Podman and Ray, for the tests that need them (Debian, as root)
	@tests/engines/install
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[ray]'

demo: install ## Train a model in a real Airflow on this machine; ARGS=--keep leaves it running
	@$(BIN)/airflow-training demo $(ARGS)

test: lint ## Every check, and a test of everything that a change can break
	$(BIN)/python -m pytest --numprocesses auto --dist loadgroup --no-loadscope-reorder $(ARGS)

test-all: lint ## Every test, the slow ones and that of the stack too (Debian, as root)
	$(BIN)/python -m pytest --numprocesses auto --dist loadgroup --no-loadscope-reorder -m "not stack" $(ARGS)
	@$(MAKE) stack

test-matrix: install ## The unit tests on each supported Python (or on ARGS=3.12), and with the oldest dependencies
	@tests/matrix $(ARGS)

bench: .bench/installed ## How fast it is, beside other providers too; ARGS="service peers" measures these two
	@set -e; for name in $(or $(ARGS),$(BENCHMARKS)); do echo "== $$name"; .bench/bin/python -m benchmarks.$$name; done

.bench/installed: .venv/installed
	@echo "Installing into .bench, once; this takes a minute or two ..."
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python .bench
	@$(BIN)/uv pip install --quiet --python .bench/bin/python --compile-bytecode --constraint constraints.txt \
		--editable '.[dev]' --group bench
	@touch $@

pictures: install ## Take the pictures of the docs again, from a running Airflow (Debian, as root)
	@dpkg --status chromium > /dev/null 2>&1 || { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium; }
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[dev]' --group pictures
	$(BIN)/python -m docs.pictures.take

# Their files are in the repository: who installs the package, or a checkout of it, needs no npm.
vendor: ## Take the scripts that the training page is made with from npm again, in the versions of its package.json
	@rm -rf .npm && mkdir .npm && cp $(VENDOR)/package.json .npm
	@cd .npm && npm install --silent --ignore-scripts --no-package-lock
	@cp .npm/node_modules/uplot/dist/uPlot.iife.min.js $(VENDOR)/uplot.js
	@cp .npm/node_modules/uplot/dist/uPlot.min.css $(VENDOR)/uplot.css
	@cp .npm/node_modules/uplot/LICENSE $(VENDOR)/uplot.LICENSE
	@cp .npm/node_modules/lit-html/lit-html.js $(VENDOR)/lit-html.js
	@cp .npm/node_modules/lit-html/LICENSE $(VENDOR)/lit-html.LICENSE
	@rm -rf .npm

# Not --quiet: warnings that are not shown are not counted either. The variable spares us an announcement of Material's.
docs: .docs/installed ## The pages of docs/ as a site, in site/
	@NO_MKDOCS_2_WARNING=1 .docs/bin/mkdocs build --strict
	@echo "The pages are there: site/index.html"

# An environment of its own: it reads the package and does not import it, so it needs no Airflow, and who runs the tests
# does not need it.
.docs/installed: .venv/installed
	@echo "Installing into .docs, once ..."
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python .docs
	@$(BIN)/uv pip install --quiet --python .docs/bin/python --group docs
	@touch $@

stack: engines ## Bring up docker-compose.yaml with Podman, and train in it (Debian, as root)
	@tests/stack/images
	$(BIN)/python -m pytest -m stack tests/stack

lint: install ## Format, mistakes, types and the direction of imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install ## Format the code and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

constraints: install ## Choose new versions of everything, for all supported Pythons
	$(BIN)/uv pip compile --quiet --universal --upgrade --python-version 3.10 --all-extras --no-annotate --no-header \
		--no-emit-index-url --no-emit-find-links pyproject.toml --output-file constraints.txt

clean: ## Remove what was installed and what the demo left
	find airflow_training benchmarks dags docs tests -name __pycache__ -prune -exec rm -rf {} +
	rm -rf .venv .demo .matrix .bench .docs site .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis dist
