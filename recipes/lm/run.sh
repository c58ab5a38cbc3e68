#!/usr/bin/env bash
# Builds runs/lm/words.ngram and runs/lm/pronunciations.gz, trains runs/lm/words/model.pt and runs/lm/chars/model.pt, then
# measures all on dev-clean.
#
#   recipes/lm/run.sh [TEXT_FOLDER] [asr train option...]
#
# Needs flite, which pronounces the words that CMUdict lacks, and a list of such (apt-get install flite wamerican-large).
#
# TEXT_FOLDER, data/text unless given, holds librispeech-train-clean-100.txt.gz and gutenberg-23-books.txt.gz; the
# manifests of recipes/librispeech must be in data/manifests.
set -euo pipefail
cd "$(dirname "$0")/../.."
PATH="$PWD/.venv/bin:$PATH"
case ${1:---} in
--*) text=data/text ;;
*) text=$1 && shift ;;
esac
manifests=data/manifests
list=/usr/share/dict/american-english-large
[ -r "$list" ] && command -v flite >/dev/null || {
    echo "recipes/lm/run.sh: needs flite and $list: apt-get install flite wamerican-large" >&2
    exit 2
}

train=("$text"/{librispeech-train-clean-100,gutenberg-23-books}.txt.gz "$manifests"/{commonvoice,kathleen,ljspeech}-train.jsonl)
held_out=(dev-clean test-clean test-other speechocean762 commonvoice-dev kathleen-dev ljspeech-dev vctk-dev)
dictionary=$(python -c 'from asr import phonemes; print(phonemes.cmudict())')
lines=$(sed -n 's/^ *"\(.*:[0-9]*-[0-9]*\)",.*/--skip\n\1/p' recipes/lm/chars.toml)
mapfile -t skip <<<"$lines"

asr lm ngram "${train[@]}" "${skip[@]}" $(printf -- "--exclude $manifests/%s.jsonl " "${held_out[@]}") \
    --max-ngrams 1600000 --words "$dictionary" --output runs/lm/words.ngram
python -m recipes.lm.pronounce runs/lm/words.ngram --words "$list" \
    --output runs/lm/pronunciations.gz
for recipe in words chars; do
    asr train "recipes/lm/$recipe.toml" --output "runs/lm/$recipe" \
        --set "text.train=[$(printf '"%s",' "${train[@]}")]" "$@"
done
for model in runs/lm/words.ngram runs/lm/words/model.pt runs/lm/chars/model.pt; do
    echo "== $model"
    asr lm perplexity "$model" "$manifests/dev-clean.jsonl"
done
echo "== n-grams and word LSTM as the search mixes them"
asr lm perplexity runs/lm/words.ngram "$manifests/dev-clean.jsonl" --word-lm runs/lm/words/model.pt --share 0.65
