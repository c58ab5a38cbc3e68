#!/usr/bin/env bash
# Sentences to a synthetic training corpus in data/synthetic: recipes/synthetic/run.sh [make_speech.py options]
#
# ROOT (environment; default: data) holds text/: librispeech-train-clean-100.txt.gz (an utterance a line) and
# gutenberg-23-books.txt.gz. The manifests of every dev and test set must be in data/manifests (recipes/librispeech).
# The same command again goes on where it was interrupted.
set -euo pipefail
cd "$(dirname "$0")/../.."
PATH="$PWD/.venv/bin:$PATH"
text="${ROOT:-data}/text"
shopt -s nullglob
held_out=(data/manifests/*dev*.jsonl data/manifests/*test*.jsonl data/manifests/speechocean762*.jsonl)

# What dev and test sets are read from, by lines: the language models' list.
lines=$(python -c "import tomllib; print(*tomllib.load(open('recipes/lm/chars.toml', 'rb'))['text']['skip'], sep='\n')")
mapfile -t skip <<<"$lines"

exec python -m recipes.synthetic.make_speech --lines "$text/librispeech-train-clean-100.txt.gz" \
    --books "$text/gutenberg-23-books.txt.gz" --exclude "${held_out[@]}" --skip "${skip[@]}" "$@"
