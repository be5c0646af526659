# `make` alone lists the targets.
.DEFAULT_GOAL := help
.PHONY: help setup up down status demo test test-faults test-mutants chaos chaos-compose bench lint lock clean secrets compose-demo compose-doctor backup restore test-compose
MAKEFLAGS += --no-print-directory

BIN := .venv/bin
COMPOSE ?= docker compose

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Install everything into .venv; PYTHON=… chooses the interpreter
	@PYTHON="$(PYTHON)" sh tools/setup.sh

up: setup ## Start the stack: PostgreSQL, S3, MLflow, Airflow
	@$(BIN)/cifar up

down: setup ## Stop the stack; runs, models and data stay
	@$(BIN)/cifar down

status: setup ## Show the services and their addresses
	@$(BIN)/cifar status

demo: setup ## Start the stack and run the training DAG; DATA=… is a folder, an archive or an s3:// URL
	@$(BIN)/cifar demo $(if $(DATA),--source "$(DATA)")

test: setup ## Run the tests, six to nine minutes on two cores; ARGS=… is passed to pytest
	@$(BIN)/python -m pytest -n 3 --no-loadscope-reorder --ignore tests/faults $(ARGS)

test-faults: setup ## Run the fault tests, which kill and damage trainings and services, and what is slow; half an hour to fifty minutes
	@$(BIN)/python -m pytest -n 2 tests/faults $(ARGS)

test-mutants: setup ## Break MODULE=… (data/splits, data; else all) in SAMPLE=40 places, SEED=0, and count what its tests notice
	@$(BIN)/python -m tests.mutants $(MODULE) $(if $(SAMPLE),--sample $(SAMPLE)) $(if $(SEED),--seed $(SEED)) $(ARGS)

CHAOS = $(if $(RUNS),--runs $(RUNS)) $(if $(SECONDS),--seconds $(SECONDS)) $(if $(SEED),--seed $(SEED))

chaos: setup ## Disturb RUNS=3 DAG runs by random faults, at most SECONDS=25 apart, SEED=7; then check what must hold
	@$(BIN)/python -m tests.chaos embedded $(CHAOS)

chaos-compose: setup ## The same with the containers of a compose deployment of its own (needs a Docker engine)
	@COMPOSE="$(COMPOSE)" $(BIN)/python -m tests.chaos compose $(CHAOS)

bench: setup ## Run the benchmarks; ARGS=… names some of them, or --help
	@$(BIN)/python -m benchmarks $(ARGS)

lint: setup ## Check style, types and imports
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports

secrets: ## Write random secrets for the compose deployment to .env
	@sh docker/secrets.sh

compose-demo: ## Run the training DAG on the compose deployment; DATA=… is an s3:// URL or a path below /sources
	@$(COMPOSE) run --rm cifar demo $(if $(DATA),--source "$(DATA)")

compose-doctor: ## Check the compose deployment: services, permissions, secrets, time, space
	@$(COMPOSE) run --rm cifar doctor

backup: ## Back up the compose deployment to a new folder; TO=… names it
	@COMPOSE="$(COMPOSE)" TO="$(TO)" sh docker/backup.sh

restore: ## Restore the backup FROM=… into a new compose deployment; FORCE=1 replaces existing data
	@COMPOSE="$(COMPOSE)" FROM="$(FROM)" FORCE="$(FORCE)" sh docker/restore.sh

test-compose: setup ## Run the tests of the compose deployment (needs a Docker engine; 40 minutes)
	@COMPOSE="$(COMPOSE)" $(BIN)/python -m pytest tests/compose $(ARGS)

lock: ## Update requirements.lock
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --all-extras --generate-hashes \
		--no-emit-index-url --no-emit-find-links pyproject.toml --output-file requirements.lock

clean: ## Delete .venv and caches; .cifar stays
	@rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
	@find . -name __pycache__ -not -path './.cifar/*' -prune -exec rm -rf {} +
