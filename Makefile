# Plain `make` prints this list. Each target makes the environment first if it is not there.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed
# Files in the order they are found in, each whole, so that a service for all tests of a file starts once.
SIDE_BY_SIDE := --numprocesses logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help install demo recipes serve format lint type test test-slow chaos bench k8s starter

help:
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(READY) ## create .venv and install everything (3 to 6 minutes, mostly torch)

$(READY): requirements.txt requirements-mlflow-server.txt pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV); torch alone is about 2 GB ..."
	@$(BIN)/python -m pip install --quiet --upgrade pip
	@$(BIN)/python -m pip install --quiet --requirement requirements.txt
	@$(BIN)/python -m pip install --quiet --no-deps --upgrade --target $(VENV)/mlflow-server --requirement requirements-mlflow-server.txt
	@touch $(READY)

demo: $(READY) ## fine-tune a small model on emoji pictures, show before and after, search
	@$(BIN)/python -m examples.demo

recipes: $(READY) ## a task each, on real data: texts, pictures, labels, many languages (see examples/README.md)
	@$(BIN)/python -m examples.recipes

serve: $(READY) ## the fine-tuning service on ports 51000 (gRPC) and 52000 (HTTP)
	@$(BIN)/python -m flows.serve flows/finetune.yml

format: $(READY) ## format the code
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

lint: $(READY) ## check format and style
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .

type: $(READY) ## check types
	@$(BIN)/mypy

test: lint type ## what CI runs: lint, types, tests
	@$(BIN)/pytest -m "not slow" $(SIDE_BY_SIDE)

test-slow: lint type ## the same with the slow tests, one after the other
	@$(BIN)/pytest

chaos: $(READY) ## kill, starve and confuse a service at random moments and count what is lost (a minute or two a fault)
	@$(BIN)/python -W ignore -m tests.chaos --rounds $(or $(ROUNDS),2)

bench: $(READY) ## run the benchmarks and write their results (about an hour on 2 cores)
	@$(BIN)/python -m benchmarks.training_throughput
	@$(BIN)/python -m benchmarks.kernels
	@$(BIN)/python -m benchmarks.retrieval
	@$(BIN)/python -m benchmarks.recipe_quality --sets emoji
	@$(BIN)/python -m benchmarks.service_load
	@$(BIN)/python -m benchmarks.push_memory

k8s: $(READY) ## write k8s/ from the flows
	@$(BIN)/python -m k8s.export

starter: $(READY) ## pre-train the starter model again (see its model card)
	@$(BIN)/python -m examples.starter
