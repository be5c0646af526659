# `make` alone lists the targets.
.DEFAULT_GOAL := help
.PHONY: help setup up down status demo test test-faults bench lint lock clean secrets compose-demo compose-doctor backup restore test-compose
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

status: setup ## Show what runs and where
	@$(BIN)/cifar status

demo: setup ## Train, compare and promote on real images; DATA=… is a folder, zip or s3:// URL
	@$(BIN)/cifar demo $(if $(DATA),--source "$(DATA)")

test: setup ## Run the tests, about six minutes on two cores; ARGS=… is passed to pytest
	@$(BIN)/python -m pytest -n 3 --no-loadscope-reorder --ignore tests/faults $(ARGS)

test-faults: setup ## Kill, freeze and damage trainings and services, and see what is left; another five minutes
	@$(BIN)/python -m pytest -n 2 tests/faults $(ARGS)

bench: setup ## Measure speed beside what it is compared with; ARGS=… names benchmarks, or --help
	@$(BIN)/python -m benchmarks $(ARGS)

lint: setup ## Check style, types and import direction
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports

secrets: ## Write .env for the compose deployment: every secret, random
	@sh docker/secrets.sh

compose-demo: ## Run the training DAG on the compose deployment; DATA=… is an s3:// URL or a path below /sources
	@$(COMPOSE) run --rm cifar demo $(if $(DATA),--source "$(DATA)")

compose-doctor: ## Check the compose deployment: services, permissions, secrets, time, space
	@$(COMPOSE) run --rm cifar doctor

backup: ## Copy databases and buckets of the compose deployment into a new folder; TO=… names it
	@COMPOSE="$(COMPOSE)" TO="$(TO)" sh docker/backup.sh

restore: ## Bring a backup into a new compose deployment; FROM=… names it, FORCE=1 replaces what is there
	@COMPOSE="$(COMPOSE)" FROM="$(FROM)" FORCE="$(FORCE)" sh docker/restore.sh

test-compose: setup ## Build the compose deployment, run it, break it (needs a Docker engine; 40 minutes)
	@COMPOSE="$(COMPOSE)" $(BIN)/python -m pytest tests/compose $(ARGS)

lock: ## Pin all dependencies anew in requirements.lock
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --all-extras --generate-hashes \
		--no-emit-index-url --no-emit-find-links pyproject.toml --output-file requirements.lock

clean: ## Remove .venv and caches; the stack's data in .cifar stay
	@rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
	@find . -name __pycache__ -not -path './.cifar/*' -prune -exec rm -rf {} +
