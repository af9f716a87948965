# `make` alone prints this menu. The first real target sets everything up inside this folder; only Kafka's jars, and the
# tools of test-deploy, are kept outside, in ~/.cache/millstream (MILLSTREAM_CACHE says otherwise).
.DEFAULT_GOAL := help
SHELL := /bin/bash

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
PROJECT := examples/flights
UNTIL  ?=
TICK   ?= 1h
PACKAGES := libs/expression libs/core libs/tiles libs/cli libs/backtest services/ingest services/features services/trainer services/serving services/drift

help: ## print this menu
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## install everything into .venv (done by the other targets when needed)

$(READY): locks/dev.txt pyproject.toml $(addsuffix /pyproject.toml,$(PACKAGES)) tools/setup.sh
	@PYTHON="$(PYTHON)" tools/setup.sh $(VENV) $(PACKAGES)

demo: $(READY) ## replay a year of flights through the whole loop (UNTIL=2013-04-01 for less, PROJECT=examples/bikes for bikes)
	@$(BIN)/millstream demo --project $(PROJECT) $(if $(UNTIL),--until $(UNTIL)) --tick $(TICK)

up: $(READY) ## the same servers and services, left running in the background (make down stops them)
	@$(BIN)/millstream up --detach --project $(PROJECT)

down: $(READY) ## stop what `make up` started
	@$(BIN)/millstream down

test: $(READY) check ## everything CI runs: lint, types, unit, contracts, connected, end to end (two at a time: they mostly wait)
	@$(BIN)/pytest -n 2 --dist loadfile

unit: $(READY) ## the fast tests: no server is started
	@$(BIN)/pytest -m "not connected and not e2e and not prove"

prove: $(READY) ## the long proofs: features through kills, losses and five million events; memory of ingest (an hour)
	@$(BIN)/pytest -m prove

test-servers: $(READY) ## the online store's tests on Valkey 8.1, and on the redis-server of this machine if it has one
	@tools/other-servers.sh $(VENV)

spark: $(READY) ## the windows computed by PySpark in local mode, as the local engine computes them (installs PySpark: 450 MB)
	@$$(command -v uv || echo .millstream/uv/bin/uv) pip install -q --python $(BIN)/python --require-hashes -r locks/spark.txt
	@$(BIN)/pytest libs/tiles/tests/test_ibis_plan.py libs/tiles/tests/test_ibis_filter.py

trino: $(READY) ## the same windows computed by a real Trino (fetches it: 208 MB)
	@$$(command -v uv || echo .millstream/uv/bin/uv) pip install -q --python $(BIN)/python --require-hashes -r locks/trino.txt
	@$(BIN)/pytest libs/tiles/tests/test_ibis_trino.py

test-clients: $(READY) ## Feast's own Go SDK and Java client ask a features service (builds them: Go 1.26, 25 MB, three minutes)
	@$(BIN)/python -m tests.clients.programs || echo "millstream: what could not be built is skipped"
	@$(BIN)/pytest tests/clients

torch: $(READY) ## the estimators of PyTorch (installs PyTorch: 4 GB on Linux, since its wheel brings CUDA; no GPU is needed)
	@$$(command -v uv || echo .millstream/uv/bin/uv) pip install -q --python $(BIN)/python --no-deps --compile-bytecode --require-hashes -r locks/torch.txt
	@$(BIN)/pytest services/trainer/tests/test_trainer_torch.py

test-deploy: $(READY) ## the charts, by Helm and its kin and on a control plane with KEDA (Go builds them the first time: an hour)
	@$(BIN)/python -m tests.deploy.tools
	@$(BIN)/python -m tests.deploy.plane_tools || echo "millstream: what needs a control plane is skipped, or with MILLSTREAM_MUST=1 fails"
	@MILLSTREAM_DEPLOY=1 $(BIN)/pytest tests/deploy tests/contracts/test_releases.py

images: $(READY) ## our images, built from the Dockerfiles, and how large each is (needs a Docker engine; half an hour on a busy machine, once)
	@$(BIN)/python -m tests.deploy.images

test-node: $(READY) ## our images in Docker, then the umbrella chart on a real Kubernetes node of this machine (root; Go builds it)
	@$(BIN)/python -m tests.deploy.tools
	@$(BIN)/python -m tests.deploy.node_tools || echo "millstream: what needs a node is skipped, or with MILLSTREAM_MUST=1 fails"
	@MILLSTREAM_NODE=1 $(BIN)/pytest tests/deploy/test_images.py tests/deploy/test_node.py

goldens: $(READY) ## rewrite what the charts render of their examples (then look at the difference)
	@$(BIN)/python -m tests.deploy.tools && $(BIN)/python -m tests.deploy.goldens

check: lint types ## lint, types, layers

lint: $(READY) ## ruff, formatting, import layers
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports

types: $(READY) ## mypy, strict
	@$(BIN)/mypy

bench-features: $(READY) ## what the features cost: bench/out/features.json (an hour; ONLY=bytewax for one part)
	@$(BIN)/python bench/features $(if $(ONLY),--only $(ONLY))

bench-loop: $(READY) ## what the loop decides and how well: bench/out/loop.json (ONLY=replicas for one part)
	@$(BIN)/python bench/loop $(if $(ONLY),--only $(ONLY))

bench-ingest: $(READY) ## what ingest takes on one core, beside two peers: bench/out/ingest.json (wants wrk; ONLY=single for one part)
	@PYTHONPATH=bench/shared $(BIN)/python bench/ingest $(if $(ONLY),--only $(ONLY))

bench-serving: $(READY) ## what serving answers on one core, beside its peers: bench/out/serving.json (wants wrk; ONLY=infer for one part)
	@PYTHONPATH=bench/shared $(BIN)/python bench/serving $(if $(ONLY),--only $(ONLY))

fix: $(READY) ## format and apply safe lint fixes
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

generate: $(READY) ## rewrite generated files: schemas, tables of topics and metrics, alerts, dashboards, values of the charts
	@$(BIN)/python -m millstream.contracts.generate && $(BIN)/python tools/metrics_table.py && $(BIN)/python tools/alerts.py && $(BIN)/python tools/dashboards.py && $(BIN)/python tools/charts.py

locks: $(READY) ## resolve every lock again
	@tools/lock.sh

clean: ## remove what was built and what ran here
	@rm -rf $(VENV) .millstream out

.PHONY: help setup demo up down test test-deploy test-node images goldens test-servers unit prove spark trino test-clients torch check lint types bench-features bench-loop bench-ingest bench-serving fix generate locks clean
