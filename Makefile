# `make demo` and `make test` need git, make and Python 3.11 or later: everything else is installed into .venv here.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo test test-fast test-fp32 test-images lint bench seeds images lock

BIN := .venv/bin
READY := .venv/.ready
VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
COMMIT = $(shell git describe --always --abbrev=40 --exclude '*' --dirty=-changed)

# Tests run in two processes, the files of tests each in one of them; most compute on one thread.
WORKERS ?= 2
PARALLEL = --numprocesses $(WORKERS) --dist loadfile
test test-fast test-fp32: export OMP_NUM_THREADS ?= 1
test-fast: export GRAFTLINE_TEST_PRECISION ?= fp32

# For images: `docker` may be a client without an engine behind it, so each is asked. BUILD_FLAGS go to `build` as they are.
CONTAINERS ?= $(shell for engine in docker podman; do if $$engine info >/dev/null 2>&1; then echo $$engine; break; fi; done)
# On x86_64 an image without CUDA needs PyTorch's CPU builds, which PyPI does not have.
TARGETS ?= $(if $(TORCH_INDEX)$(TORCH)$(filter-out x86_64,$(shell uname -m)),cpu cuda,cuda)
BASE_IMAGE ?=
NODE_IMAGE ?=
TORCH_INDEX ?=
TORCH ?=
BUILD_FLAGS ?=
# The first that the engine has: `make images TARGETS=cpu` may have built another than is built without TARGETS.
IMAGE ?= $(firstword $(shell for target in $(TARGETS) cpu cuda; do image="graftline:$(VERSION)-$$target"; \
	$(CONTAINERS) image inspect "$$image" >/dev/null 2>&1 && echo "$$image"; done) graftline:$(VERSION)-$(firstword $(TARGETS)))
BUILD_ARGUMENTS = VERSION COMMIT $(foreach name,BASE_IMAGE NODE_IMAGE TORCH_INDEX TORCH,$(if $($(name)),$(name)))

help: ## what can be made
	@sed -n 's/^\([a-z0-9-]*\):[^#]*## \(.*\)/\1|\2/p' Makefile | awk -F '|' '{ printf "  make %-12s %s\n", $$1, $$2 }'

setup: $(READY) ## install everything into .venv (instant when nothing changed)
	@echo "ready: .venv"

# The stamp comes last: an interrupted installation has none and goes on where it stopped.
$(READY): requirements.lock pyproject.toml .ci/venv
	@.ci/venv
	@echo "Installing the locked packages into .venv (5.5 GB; two minutes and more) ..."
	@$(BIN)/python -m pip install --disable-pip-version-check --requirement requirements.lock
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(READY) ## real solar cells through the whole pipeline
	@$(BIN)/graftline demo

test: $(READY) ## all tests
	@$(BIN)/pytest $(PARALLEL)

test-fast: $(READY) ## the tests that need no training, pipeline or server
	@$(BIN)/pytest $(PARALLEL) -m 'not slow'

test-fp32: $(READY) ## the training tests as on a processor without bf16
	@GRAFTLINE_TEST_PRECISION=fp32 $(BIN)/pytest $(PARALLEL) -m slow tests/training tests/transfer

lint: $(READY) ## style, types, import direction, Dockerfile
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/pytest tests/house/test_architecture.py
	@$(BIN)/hadolint docker/Dockerfile

bench: $(READY) ## training beside the PyTorch tutorial and fastai, and what makes it fast (half an hour)
	@for script in depthwise memory folding training; do echo "== $$script"; $(BIN)/python benchmarks/$$script.py; done

seeds: $(READY) ## the demo over three seeds: accuracy, spread, seconds
	@$(BIN)/python benchmarks/seeds.py

images: ## container images graftline:VERSION-cpu and -cuda; docs/cluster.md tells the variables
	@engine="$(CONTAINERS)"; \
	test -n "$$engine" || { echo "make images: neither docker nor podman answers: start one of them" >&2; exit 1; }; \
	for target in $(TARGETS); do "$$engine" build --file docker/Dockerfile --target "$$target" $(BUILD_FLAGS) \
		$(foreach name,$(BUILD_ARGUMENTS),--build-arg "$(name)=$($(name))") \
		--tag "graftline:$(VERSION)-$$target" .; done

test-images: $(READY) ## the pipeline with each step in a container of IMAGE, held against a run without
	@GRAFTLINE_IMAGE="$(IMAGE)" $(BIN)/pytest -s -rs tests/runs/test_images.py

lock: $(READY) ## resolve requirements.lock again, after a change of dependencies in pyproject.toml
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet uv
	@$(BIN)/uv pip compile --universal --python-version 3.11 --extra dev --no-header --no-annotate --upgrade \
		pyproject.toml --output-file requirements.lock
