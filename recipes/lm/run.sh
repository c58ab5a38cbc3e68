#!/usr/bin/env bash
# Builds runs/lm/words.ngram and trains runs/lm/chars/model.pt, then measures both on dev-clean.
#
#   recipes/lm/run.sh [TEXT_FOLDER] [asr train option...]
#
# TEXT_FOLDER, data/text unless given, holds librispeech-train-clean-100.txt.gz and gutenberg-23-books.txt.gz; the
# manifests of recipes/librispeech must be in data/manifests.
set -euo pipefail
cd "$(dirname "$0")/../.."
text=${1:-data/text}
shift || true
manifests=data/manifests

train=("$text"/{librispeech-train-clean-100,gutenberg-23-books}.txt.gz "$manifests"/{commonvoice,kathleen,ljspeech}-train.jsonl)
held_out=(dev-clean test-clean test-other speechocean762 commonvoice-dev kathleen-dev ljspeech-dev vctk-dev)
mapfile -t skip < <(sed -n 's/^ *"\(.*:[0-9]*-[0-9]*\)",.*/--skip\n\1/p' recipes/lm/chars.toml)

asr lm ngram "${train[@]}" "${skip[@]}" $(printf -- "--exclude $manifests/%s.jsonl " "${held_out[@]}") \
    --max-ngrams 1600000 --output runs/lm/words.ngram
asr train recipes/lm/chars.toml --output runs/lm/chars \
    --set "text.train=[$(printf '"%s",' "${train[@]}")]" "$@"
for model in runs/lm/words.ngram runs/lm/chars/model.pt; do
    asr lm perplexity "$model" "$manifests/dev-clean.jsonl"
done
