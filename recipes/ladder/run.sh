#!/usr/bin/env bash
# What one change does: recipes/ladder/run.sh [name of a change]...
#
# Needs the manifests of recipes/librispeech/run.sh here. Goes on from the bundled model for 150 steps with every
# change of changes.txt alone (or those named), and scores each on dev-clean, greedy (all 600 utterances) and by the
# bundled search (150). What is there is left alone. The table of all changes is printed at the end.
set -euo pipefail
cd "$(dirname "$0")/../.."
PATH="$PWD/.venv/bin:$PATH"
source recipes/ladder/changes.sh
dev=data/manifests/dev-clean.jsonl
corpora="train-clean-5 train-clean-100 commonvoice-train kathleen-train ljspeech-train vctk-train synthetic-train"

without() { # corpus: the value of data.train without it
    local name list=""
    for name in $corpora; do
        [ "${name%-train}" = "$1" ] || list+="'data/manifests/$name.jsonl',"
    done
    echo "[${list%,}]"
}

train() { # name, options of the change
    local run="runs/ladder/$1"
    shift
    if [ "${1:-}" = -x ]; then
        set -- --set "data.train=$(without "$2")"
    fi
    asr train recipes/librispeech/here.toml --init asr/assets/english.pt --output "$run" \
        --set training.hours=0 --set training.max_steps=150 --set training.learning_rate=1.4e-3 \
        --set training.cooldown=1.0 --set training.warmup_steps=10 --set training.ctc_alone_steps=0 \
        --set training.masks_from=0 --set training.guide=0 --set training.label_smoothing_from=0 \
        --set training.short_first_epochs=0 --set training.validate_every=150 --set training.validate_utterances=20 \
        --set model.phoneme_layers=3 \
        "$@"
}

score() { # name: the bundled search goes beside the model, whose default it so becomes
    local run="runs/ladder/$1"
    cp asr/assets/english-* "$run/"
    cp asr/assets/english.toml "$run/model.toml"
    [ -f "$run/greedy.tsv" ] || asr evaluate "$run/model.pt" "$dev" --greedy --output "$run/greedy.tsv" || [ $? -eq 1 ]
    [ -f "$run/search.tsv" ] || asr evaluate "$run/model.pt" "$dev" --limit 150 --output "$run/search.tsv" || [ $? -eq 1 ]
}

lines=$(changes recipes/ladder/changes.txt "$@")
while IFS= read -r line <&3; do
    name=${line%%:*} options=${line#"${line%%:*}"}
    # shellcheck disable=SC2086
    [ -f "runs/ladder/$name/model.pt" ] || train "$name" ${options#:}
    score "$name"
done 3<<<"$lines"
python -m recipes.ladder.rows runs/ladder
