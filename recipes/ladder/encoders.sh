#!/usr/bin/env bash
# Encoders from nothing: recipes/ladder/encoders.sh [name of a change]...
#
# Needs the manifests of recipes/librispeech/run.sh here. Trains each encoder of encoders.txt alone (or those named) from
# random weights for 500 steps with CTC, without a decoder, and scores what CTC hears on 150 utterances of dev-clean.
# What is there is left alone. The table of all is printed at the end.
set -euo pipefail
cd "$(dirname "$0")/../.."
PATH="$PWD/.venv/bin:$PATH"
source recipes/ladder/changes.sh

lines=$(changes recipes/ladder/encoders.txt "$@")
while IFS= read -r line <&3; do
    name=${line%%:*} options=${line#"${line%%:*}"}
    run="runs/encoders/$name"
    # shellcheck disable=SC2086
    [ -f "$run/model.pt" ] || asr train recipes/librispeech/here.toml --output "$run" --set 'data.dev=[]' \
        --set training.hours=0 --set training.max_steps=500 --set training.ctc_alone_steps=500 ${options#:}
    printf '[decoding]\nbeam_size = 4\nctc_weight = 1.0\n' >"$run/model.toml"
    [ -f "$run/ctc.tsv" ] ||
        asr evaluate "$run/model.pt" data/manifests/dev-clean.jsonl --limit 150 --output "$run/ctc.tsv" || [ $? -eq 1 ]
done 3<<<"$lines"
python -m recipes.ladder.rows runs/encoders --of encoders
