# Everything is installed inside the checkout: .venv and .cache. Data of `make run` and `make up` is in var/.

PORT ?= 8800
DATA ?= var
LIBRARY ?= examples/library
FAULTS ?=
SEED ?=
HOURS ?= 2
SEEDS ?= 1000
FIRST ?= 0

BIN := .venv/bin
SERVICES := services/ingest services/embedder services/graph-writer
PROJECTS := libs/eventlog $(SERVICES) cli
CACHES := PIP_CACHE_DIR=$(CURDIR)/.cache/pip UV_CACHE_DIR=$(CURDIR)/.cache/uv
TESTS := $(wildcard $(addprefix tests/,unit contracts schemas simulation integration e2e))

.PHONY: help install run up test docker-test simulate fmt lint types schemas-register bench faults faults-soak events-doc lock lock-jars
.DEFAULT_GOAL := help

help: ## print this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# `exec`, so that a make that is ended by SIGTERM ends the stack and not a shell between them.
run: ## install, start the stack, import LIBRARY (or our small one), search in it, serve until Ctrl-C
	@.ci/preflight --port $(PORT) --library "$(LIBRARY)"
	@$(MAKE) --no-print-directory install
	@exec $(BIN)/python -m paperlog.up --data "$(DATA)" --port $(PORT) "$(LIBRARY)"

up: ## install, start the stack, serve until Ctrl-C
	@.ci/preflight --port $(PORT)
	@$(MAKE) --no-print-directory install
	@exec $(BIN)/paperlog up --data "$(DATA)" --port $(PORT)

test: install ## every test that needs no Docker, end to end through real Kafka too
	@$(BIN)/python -m pytest -n 2 --dist loadfile --max-worker-restart 0 -m "not docker" $(TESTS)

docker-test: install ## the contract and end-to-end tests on the images of docker-compose.yml, and the compose file itself
	@$(BIN)/python -m pytest -m docker tests/contracts tests/e2e

simulate: install ## SEEDS simulated stories under faults, from FIRST on; 10000 are a night's work
	@$(BIN)/python -m tests.simulation.simulate $(SEEDS) --first $(FIRST)

fmt: install ## format the code
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

lint: install ## style, format, and who may import whom
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports

types: install ## strict type check
	@$(BIN)/mypy

schemas-register: install ## write the schemas, under their own ids, into the schema registry at SCHEMA_REGISTRY_URL
	@$(BIN)/paperlog schemas-register

bench: install ## throughput, store, peers, memory, search, starts: prints tables, writes JSON to bench/results
	@for each in $(sort $(wildcard bench/[a-z]*.py)); do echo "== $$each"; $(BIN)/python $$each || exit 1; done

faults: install ## every fault against a real stack, judged by the auditor; FAULTS="F1 F3" for some, SEED=n again
	@$(BIN)/python -m tests.faults.run $(if $(SEED),--seed $(SEED)) $(FAULTS)

faults-soak: install ## all faults mixed, one every 3 s, for HOURS
	@$(BIN)/python -m tests.faults.soak --hours $(HOURS) $(if $(SEED),--seed $(SEED))

events-doc: install ## write docs/events.md anew from schemas/
	@$(BIN)/python -m tests.schemas.events_doc

install: .venv/.installed ## everything into .venv and .cache, with hashes; seconds when it is there already
	@:

.venv/.installed: requirements.lock .ci/requirements-uv.lock .ci/install $(addsuffix /pyproject.toml,$(PROJECTS)) cli/src/paperlog/up/kafka-jars.lock
	@$(CACHES) .ci/install $(PROJECTS)

lock: install ## resolve the dependencies anew: requirements.lock, each service's part, .ci/requirements-uv.lock, bench/peers/requirements.lock
	@$(CACHES) $(BIN)/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 \
	    --custom-compile-command "make lock" --no-emit-package eventlog --group dev \
	    $(addsuffix /pyproject.toml,$(PROJECTS)) -o requirements.lock
	@for each in $(SERVICES); do $(CACHES) $(BIN)/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 \
	    --custom-compile-command "make lock" --no-emit-package eventlog --constraint requirements.lock \
	    $$each/pyproject.toml -o $$each/requirements.lock || exit 1; done
	@echo uv | $(CACHES) $(BIN)/uv pip compile --quiet --universal --generate-hashes \
	    --custom-compile-command "make lock" - -o .ci/requirements-uv.lock
	@$(CACHES) $(BIN)/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 \
	    --custom-compile-command "make lock" --constraint requirements.lock \
	    bench/peers/requirements.in -o bench/peers/requirements.lock

lock-jars: ## resolve Kafka's jars anew (needs Maven): cli/src/paperlog/up/kafka-jars.lock
	@.ci/lock-jars cli/src/paperlog/up/kafka-jars.lock
