#!/usr/bin/env bash
# One vector or attention on real speech: recipes/one_vector/run.sh [asr train options]
#
# Needs the manifests of recipes/librispeech/run.sh here. Trains four decoders on the bundled model's encoder, scores
# them on dev-clean, short and long utterances apart, and prints the table of the README.
set -euo pipefail
cd "$(dirname "$0")/../.."
PATH="$PWD/.venv/bin:$PATH"
dev=data/manifests/dev-clean.jsonl

train() { # name, attention, cell
    local run="runs/one_vector/$1" attention=$2 cell=$3
    shift 3
    asr train recipes/one_vector/one_vector.toml --init asr/assets/english.pt --output "$run" \
        --set "model.decoder.attention.kind=$attention" --set "model.decoder.cell=$cell" "$@"
    asr evaluate "$run/model.pt" "$dev" --greedy --output "$run/dev.tsv" || [ $? -eq 1 ]
}

train vector-rnn fixed rnn "$@"
train vector-gru fixed gru "$@"
train vector-lstm fixed lstm "$@"
train attention-lstm location lstm "$@"
python recipes/one_vector/by_length.py runs/one_vector/*/dev.tsv
