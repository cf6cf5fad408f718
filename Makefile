# Ten targets at most; `make help` lists them. Everything runs in .venv, which is made when it is missing or out of date.
SHELL := /bin/bash
.DEFAULT_GOAL := help
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
ALGORITHM ?= grpo
SEED ?= 0

.PHONY: help install demo test lint bench drill lock clean

help: ## Show this list
	@grep -hE '^[a-z%-]+:.*## ' Makefile | sed -E 's/^([a-z%-]+):.*## /\1\t/' | column -t -s $$'\t'

install: $(STAMP) ## Make .venv with everything pinned in requirements/cpu.lock

$(STAMP): requirements/cpu.lock requirements/install.sh pyproject.toml
	@./requirements/install.sh
	@touch $@

demo: $(STAMP) ## A real model learns a stated preference while it serves (ALGORITHM=grpo SEED=0)
	@$(BIN)/iterpo demo --algorithm $(ALGORITHM) --seed $(SEED)

test: lint ## Everything that must hold: lint, types, import contracts, protos, all tests
	$(BIN)/python -m pytest -n 2 -m "not engine and not e2e"
	$(BIN)/python -m pytest -m "engine or e2e"

lint: $(STAMP) ## ruff, mypy, import contracts, buf (protos, and that they understand the last release's)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/buf lint
	$(BIN)/buf breaking --against protos/released.binpb

bench: $(STAMP) ## Measure serving and learning (20 minutes); results go to benchmarks/results/
	$(BIN)/python -m benchmarks

bench-%: $(STAMP) ## One: bench-serving, bench-labels, bench-people (30 minutes), bench-methods (40 minutes), bench-pipeline (30 minutes), bench-learner (hours), bench-soak (25 minutes: 200 swaps under 32 streams, both ways of delivery), bench-pages (20 minutes), bench-overhead (20 minutes), bench-replicas (10 minutes), bench-cluster (half an hour), bench-scale (a minute; with --measure ten)
	$(BIN)/python -m benchmarks.$*

drill: $(STAMP) ## Break one thing after the other, and see the right alert fire, alone (40 minutes; as root: one mounts a small disk)
	$(BIN)/python -m benchmarks.drill

lock: $(STAMP) ## Resolve requirements/cpu.lock anew from pyproject.toml (CONTRIBUTING.md says what it needs)
	@PATH="$(CURDIR)/$(BIN):$$PATH" ./requirements/lock.sh

clean: ## Remove .venv and caches; .iterpo (models, policies, feedback) stays
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
