# lmbatch: the two commands of a newcomer are `make demo` and `make test`. `make help` lists the rest.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/bash

VENV    := .venv
BIN     := $(VENV)/bin
STAMP   := $(VENV)/.installed
PYTHON  ?= $(shell command -v python3.11 || command -v python3)

# make preprocess CORPUS=wudao [RAW=…] [STORE=s3://…] [TOKENIZER=…] [ON=local|slurm] [SITE=file] [WORKERS=n] [SET="a.b=v c.d=w"]
CORPUS    ?= demo
RAW       ?=
STORE     ?=
TOKENIZER ?=
ON        ?=
SITE      ?=
WORKERS   ?=
SET       ?=

# make recipe NAME=s0 [SIZE=small|full] [RAW=folder-or-uri]
NAME ?= list
SIZE ?= small

# make test-storm [RUNS=n] [SEED=n] [JSON=1]
RUNS ?= 150
SEED ?=
JSON ?=

# make image TARGET=train [BASE_IMAGE=…] [ENGINE=docker|podman|buildah] [OUTPUT=…] (docker/README.md)
TARGET     ?= train
BASE_IMAGE ?=
ENGINE     ?=
OUTPUT     ?=

.PHONY: help venv demo recipe test test-shapes check preprocess tokenizer s3-up s3-down cluster-up cluster-status cluster-down
.PHONY: image image-base image-dir image-sif image-sqsh lock-images reference lock bench clean distclean

help: ## List the targets
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo '  make preprocess CORPUS=wudao [RAW=folder-or-uri] [STORE=s3://…] [TOKENIZER=folder] [ON=local|slurm] [SITE=file] [WORKERS=n] [SET="a.b=v"]'
	@echo '  make recipe NAME=s0|s1|s2|s3|s4 [SIZE=small|full] [RAW=folder-or-uri]'

venv: $(STAMP) ## Install everything into .venv, every version pinned by constraints.txt

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo 'lmbatch needs Python 3.11 or newer; set PYTHON=/path/to/python3.11' >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { echo 'this Python cannot make a virtual environment: apt-get install python3-venv' >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[s3,train,deepspeed,fast,zh,dedup,serve,chat,tracking,demo,dev]'
	@touch $@

demo: $(STAMP) ## Corpus → shards in object storage → training, killed and resumed → generated text
	@$(BIN)/python -m demo.run

# Values reach the command through the environment, so that a path with a space or a quote stays one word.
recipe: export LMBATCH_MAKE_RAW := $(RAW)
recipe: $(STAMP) ## One of the five recipes, from raw text to inference: NAME=s0 … s4, SIZE=small or full
	@args=("$(NAME)" --size "$(SIZE)"); \
	[[ -z $$LMBATCH_MAKE_RAW ]] || args+=(--raw "$$LMBATCH_MAKE_RAW"); \
	$(BIN)/python -m recipes "$${args[@]}"

test: $(STAMP) ## Everything that this machine can test, in two processes
	@$(BIN)/python tests/halves.py

test-shapes: $(STAMP) ## Resumes from every shape (processes, ZeRO stage) into every other, all 132
	LMBATCH_ALL_SHAPES=1 $(BIN)/python -m pytest tests/fault/test_train_shapes.py

test-storm: $(STAMP) ## Faults by the hundred in tiny training runs; every resume is compared with a quiet run: RUNS=150 SEED=drawn
	@OMP_NUM_THREADS=1 PYTHONPATH=src:tests $(BIN)/python -m support.checkpoint_storm --runs "$(RUNS)" $(if $(SEED),--seed "$(SEED)") $(if $(JSON),--json)

check: $(STAMP) ## Lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python docker/lock_requirements.py check
	@$(BIN)/lmbatch config reference | diff -u configs/REFERENCE.md - || { echo 'configs/REFERENCE.md is out of date: make reference' >&2; exit 1; }

# Values reach the command through the environment, so that a path with a space or a quote stays one word.
preprocess: export LMBATCH_MAKE_RAW := $(RAW)
preprocess: export LMBATCH_MAKE_STORE := $(STORE)
preprocess: export LMBATCH_MAKE_TOKENIZER := $(TOKENIZER)
preprocess: $(STAMP) ## Turn the corpus CORPUS into verified shards in STORE
	@args=(--config "configs/corpora/$(CORPUS).yaml"); \
	[[ -z "$(ON)" ]] || args+=(--on "$(ON)"); \
	[[ -z "$(SITE)" ]] || args+=(--site "$(SITE)"); \
	[[ -z $$LMBATCH_MAKE_RAW ]] || args+=(--raw "$$LMBATCH_MAKE_RAW"); \
	[[ -z $$LMBATCH_MAKE_STORE ]] || args+=(--store "$$LMBATCH_MAKE_STORE"); \
	[[ -z $$LMBATCH_MAKE_TOKENIZER ]] || args+=(--tokenizer "$$LMBATCH_MAKE_TOKENIZER"); \
	[[ -z "$(WORKERS)" ]] || args+=(--workers "$(WORKERS)"); \
	for item in $(SET); do args+=(--set "$$item"); done; \
	$(BIN)/lmbatch preprocess "$${args[@]}"

tokenizer: $(STAMP) ## Train the tokenizer of the corpus CORPUS (configs/tokenizers/CORPUS_bpe.yaml)
	@$(BIN)/lmbatch tokenizer train --config configs/tokenizers/$(CORPUS)_bpe.yaml

s3-up: $(STAMP) ## Start a real S3 server on this machine (see cluster/README.md)
	@$(BIN)/python cluster/s3_server.py start

s3-down: $(STAMP) ## Stop it
	@$(BIN)/python cluster/s3_server.py stop

cluster-up: ## Install (as root) and start a real Slurm on this machine (see cluster/README.md)
	@cluster/install.sh
	@$(PYTHON) cluster/slurm_cluster.py up

cluster-status: ## Show its daemons, nodes and queue
	@$(PYTHON) cluster/slurm_cluster.py status

cluster-down: ## Stop it
	@$(PYTHON) cluster/slurm_cluster.py down

image: export LMBATCH_IMAGE_ACTION := build
image-base: export LMBATCH_IMAGE_ACTION := base
image-dir: export LMBATCH_IMAGE_ACTION := dir
image-sif: export LMBATCH_IMAGE_ACTION := sif
image-sqsh: export LMBATCH_IMAGE_ACTION := sqsh
image: ## Build the container image TARGET=preprocess|train|serve (see docker/README.md)
image-base: ## Make a base for CPUs from this machine's Debian packages, which images then stand on
image-dir: ## The image as a folder, for Charliecloud
image-sif: ## The image as a file, for Apptainer
image-sqsh: ## The image as a file, for enroot and pyxis
image image-base image-dir image-sif image-sqsh:
	@$(PYTHON) docker/images.py $$LMBATCH_IMAGE_ACTION $(TARGET) --engine=$(ENGINE) --base="$(BASE_IMAGE)" \
	  $(if $(OUTPUT),--output="$(OUTPUT)")

reference: $(STAMP) ## Write configs/REFERENCE.md from the schema
	@$(BIN)/lmbatch config reference > configs/REFERENCE.md

bench: $(STAMP) ## Measure, and print ratios (tests/bench/README.md)
	@$(BIN)/lmbatch corpus fetch demo --into data/raw/demo
	@for file in tests/bench/bench_*.py; do echo "== $$file"; $(BIN)/python "$$file" || exit 1; done

lock-images: $(STAMP) ## Write docker/requirements: what constraints.txt pins, with hashes (takes minutes)
	@$(BIN)/python docker/lock_requirements.py write

lock: ## Pin what is installed in .venv (run it after a deliberate upgrade)
	@{ echo '# Every package of the project and its tests, pinned. Made with: make lock'; \
	  $(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu$$//'; } > constraints.txt.new && mv constraints.txt.new constraints.txt

clean: ## Remove what the demo and the checks made; your own corpora, stores and runs stay
	@test ! -x $(BIN)/python || $(BIN)/python cluster/s3_server.py stop --state data/demo-s3 >/dev/null 2>&1 || true
	rm -rf data/raw/demo data/tokenizers/demo_bpe data/shards/demo data/demo-s3 data/jobs/demo data/export/demo \
	  runs/demo-straight runs/demo-interrupted .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
	find src tests demo cluster -name __pycache__ -type d -prune -exec rm -rf {} +
	rmdir data/raw data/tokenizers data/shards data/jobs data/export data runs 2>/dev/null || true

distclean: clean ## Remove .venv too
	rm -rf $(VENV) src/lmbatch.egg-info
