#!/usr/bin/env bash
# The made-up language from nothing to a score, in about half a minute: recipes/toy/run.sh [asr train options]
set -euo pipefail
cd "$(dirname "$0")/../.."
PATH="$PWD/.venv/bin:$PATH"

python recipes/toy/make_toy.py runs/toy/corpus
asr prepare folder runs/toy/corpus --output runs/toy/manifests --name toy --holdout 20
asr train recipes/toy/toy.toml --output runs/toy "$@"
asr evaluate runs/toy/model.pt runs/toy/manifests/toy-dev.jsonl --output runs/toy/dev.tsv
