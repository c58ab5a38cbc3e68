#!/usr/bin/env bash
# Your own recordings to a model and its score: recipes/custom/run.sh FOLDER [asr train options]
#
# FOLDER holds recordings, each with its text in a .txt file of the same name, in any depth of subfolders.
# HOLDOUT (environment; default 0.1) is the fraction, or number, of utterances kept for scoring. Everything goes to
# runs/custom-<name of FOLDER>, features to data/cache; the same command again goes on where it was interrupted. The network
# and its training are those of the bundled model's first part, so that a training can begin with its weights (--init).
set -euo pipefail
[ $# -ge 1 ] && [ -d "$1" ] || { echo "usage: recipes/custom/run.sh FOLDER [asr train options]; FOLDER must exist" >&2; exit 2; }
folder=$(cd "$1" && pwd)
shift
cd "$(dirname "$0")/../.."
PATH="$PWD/.venv/bin:$PATH"
source recipes/librispeech/search.sh
run="runs/custom-$(basename "$folder")"
manifests="$run/manifests"
mkdir -p "$run"
[ -f "$run/folder" ] || echo "$folder" >"$run/folder"
if [ "$(cat "$run/folder")" != "$folder" ]; then
    echo "$run: of another folder, $(cat "$run/folder"): remove or rename it" >&2
    exit 2
fi

# Exit status 1 says that some utterances cannot be used or look odd; they are named, and the rest is good to train on.
asr prepare folder "$folder" --output "$manifests" --name custom --holdout "${HOLDOUT:-0.1}" \
    --check --report "$run/check.json" || [ $? -eq 1 ]
asr train recipes/librispeech/here.toml --output "$run" \
    --set "data.only=[]" --set "data.exclude=[]" --set data.train="[\"$manifests/custom-train.jsonl\"]" --set data.dev="[\"$manifests/custom-dev.jsonl\"]" "$@"
[ -f "$run/model.toml" ] || write_search "$run"
echo "== held out, greedy"
asr evaluate "$run/model.pt" "$manifests/custom-dev.jsonl" --greedy || [ $? -eq 1 ]
echo "== held out, with the search of $run/model.toml"
asr evaluate "$run/model.pt" "$manifests/custom-dev.jsonl" --output "$run/dev.tsv" || [ $? -eq 1 ]
echo "next: asr transcribe RECORDING --model '$run/model.pt'"
