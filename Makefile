# Every target sets up first: one virtual environment, one pip install, remembered by a stamp file.
# CONFIG= picks the run, ARGS= is passed on: make train ARGS="--set train.steps=100"
CONFIG ?= configs/sandbox.yaml
ARGS ?=
PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/installed
MASKMILL := $(VENV)/bin/maskmill

.DEFAULT_GOAL := help
.PHONY: help setup pseudolabel train sandbox-table evaluate status report test test-slow mutants check format clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 15

setup: $(STAMP) ## install everything into .venv

$(STAMP): pyproject.toml setup.py
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

pseudolabel: $(STAMP) ## stage one: label the images of CONFIG
	$(MASKMILL) run pseudolabel --config $(CONFIG) $(ARGS)

train: $(STAMP) ## stage two: train the variants of CONFIG, end with a table of results and a report
	$(MASKMILL) run train evaluate report --config $(CONFIG) $(ARGS)

sandbox-table: $(STAMP) ## what each ingredient gains on the sandbox: 7 arms, 3 seeds, controls
	$(MASKMILL) run --config configs/sandbox-table.yaml $(ARGS)

evaluate: $(STAMP) ## score the trained variants
	$(MASKMILL) run evaluate --config $(CONFIG) $(ARGS)

report: $(STAMP) ## draw the report's page
	$(MASKMILL) run report --config $(CONFIG) $(ARGS)

status: $(STAMP) ## what is fresh, stale or missing, and why
	$(MASKMILL) status --config $(CONFIG) $(ARGS)

test: $(STAMP) ## the tests, in a process a core
	$(VENV)/bin/python -m pytest -m "not slow" -n logical --maxprocesses 8 --dist worksteal $(ARGS)

test-slow: $(STAMP) ## the tests that take minutes
	$(VENV)/bin/python -m pytest -m slow $(ARGS)

mutants: $(STAMP) ## wrong changes of the code that no test notices; ARGS="MODULE --count 20 --seed 1"
	$(VENV)/bin/python -m tools.mutants $(ARGS)

check: $(STAMP) ## lint, format check and types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

format: $(STAMP) ## rewrite the code in the project's format
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

clean: ## remove the manifests and artifacts of RUN=name; of every run after a question (not .venv)
ifdef RUN
	@case "$(RUN)" in */*|.*) echo 'RUN is the name of a run, not a path'; exit 1;; esac
	rm -rf "artifacts/$(RUN)" "manifests/$(RUN)"
else
	@printf 'remove the labels, trainings and manifests of every run? [y/N] '; read -r answer; \
	test "$$answer" = y && rm -rf artifacts manifests/*/ || echo 'nothing removed; make clean RUN=name removes one run'
endif
