# The environment is .venv at the root; `make env` builds it once and again only when the
# requirements change. PYTHON chooses the interpreter that it is made with (3.11 or newer).
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
SAMPLES = $(wildcard $(addprefix data/samples/*.,wav flac ogg opus mp3))

.DEFAULT_GOAL := help
.PHONY: help env demo test lint types clean

help: ## this list
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/'

env: $(STAMP) ## .venv with everything the project needs

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version.split()[0]; sys.version_info >= (3, 11) or sys.exit(f"Python 3.11 or newer is needed; $(PYTHON) is {v}: make PYTHON=python3.11 env")'
	@echo "building .venv: a few minutes, and a download of several hundred megabytes (gigabytes where torch comes with CUDA)" >&2
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[av,dev,onnx,phonemes]'
	@touch $@

demo: env ## transcribe data/samples with the bundled model into out/demo
	@test -n "$(SAMPLES)" || { echo "error: data/samples holds no audio" >&2; exit 2; }
	$(BIN)/asr transcribe $(SAMPLES) --format txt --output-dir out/demo

# A process a core, each with one thread: the tests' matrices are too small to share out. Subprocesses inherit it.
test: export OMP_NUM_THREADS ?= 1
test: env ## the tests
	$(BIN)/python -m pytest -q -n auto --dist loadfile

lint: env ## ruff: format and rules
	$(BIN)/ruff format --check
	$(BIN)/ruff check

types: env ## mypy on asr/
	$(BIN)/mypy

clean: ## remove out/ and the tools' caches; runs/ and .venv stay
	rm -rf out build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
