#!/usr/bin/env bash
# LibriSpeech to a model and its scores: recipes/librispeech/run.sh mini|here|100h|960h [asr train options]
#
# ROOT (environment; default: data) holds the corpora: LibriSpeech/, and for `here` the others that here.toml names.
# What is missing of LibriSpeech is downloaded (MIRROR: from another host). `mini` and `here` add synthetic speech, read
# from ROOT/text (recipes/lm/README.md says where its books come from); without that folder mini trains on speech alone.
# PROCESSES (default 1) trains with so many under torchrun. Every stage leaves alone what is done: the same command again
# goes on where it was interrupted.
set -euo pipefail
cd "$(dirname "$0")/../.."
PATH="$PWD/.venv/bin:$PATH"
source recipes/librispeech/search.sh
config=${1:-}
root=${ROOT:-data}
manifests=data/manifests
run="runs/$config"
tests="dev-clean test-clean test-other"

case "$config" in
mini) subsets="train-clean-5 $tests" ;;
here) subsets="train-clean-5 train-clean-100 $tests" ;;
100h) subsets="train-clean-100 $tests" ;;
960h) subsets="train-clean-100 train-clean-360 train-other-500 dev-other $tests" ;;
*) echo "usage: recipes/librispeech/run.sh mini|here|100h|960h [asr train options]" >&2 && exit 2 ;;
esac
shift

# Exit status 1 says that some utterances cannot be used; they are named, and the rest is good to train on.
prepare() { asr prepare "$@" --output "$manifests" || [ $? -eq 1 ]; }

for subset in $subsets; do # download and prepare
    if [ ! -d "$root/LibriSpeech/$subset" ]; then
        prepare librispeech "$root" --download --subset "$subset" ${MIRROR:+--mirror "$MIRROR"}
    elif [ ! -f "$manifests/$subset.jsonl" ]; then
        prepare librispeech "$root/LibriSpeech"
    fi
done
if [ "$config" = here ] && [ ! -f "$manifests/speechocean762.jsonl" ]; then
    prepare common_voice "$root/CommonVoice-en/validated.tsv" --name commonvoice --holdout 0.05
    prepare folder "$root/kathleen" --holdout 40
    prepare ljspeech "$root/LJSpeech" --holdout 20
    prepare vctk "$root/VCTK" --holdout 20
    prepare kaldi_dir "$root/speechocean762"
fi
if [[ $config = mini || $config = here ]] && [ ! -f "$manifests/synthetic-train.jsonl" ]; then
    if [ "$config" = mini ] && [ ! -d "$root/text" ]; then
        echo "$root/text is not there: no synthetic speech, so expect more errors than published" >&2
        set -- --set "data.train=['$manifests/train-clean-5.jsonl']" "$@"
    else
        ROOT="$root" recipes/synthetic/run.sh --hours 8
    fi
fi

train() { # recipe, name of the run, options of asr train
    local arguments=(-m asr train "recipes/librispeech/$1.toml" --output "runs/$2" "${@:3}")
    if [ "${PROCESSES:-1}" -gt 1 ]; then
        torchrun --nproc-per-node "$PROCESSES" "${arguments[@]}"
    else
        python "${arguments[@]}"
    fi
}

train "$config" "$config" "$@"
if [ "$config" = here ]; then # its further parts
    train here-on here-on --init runs/here/model.pt "$@"
    train here-phonemes here-phonemes --init runs/here-on/model.pt "$@"
    train here-crf here-crf --init runs/here-phonemes/model.pt "$@"
    train here-crf here-crf-2 --init runs/here-phonemes/model.pt --set training.seed=2 --set training.learning_rate=1.4e-3 "$@"
    asr average runs/here-crf/model.pt runs/here-crf-2/model.pt --output runs/here-crf/mean.pt
    texts=("$root"/text/{librispeech-train-clean-100,gutenberg-23-books}.txt.gz "$manifests"/{commonvoice,kathleen,ljspeech}-train.jsonl)
    train here-speller here-speller --init runs/here-crf/mean.pt --set "spelling.texts=[$(printf '"%s",' "${texts[@]}")]" "$@"
    run=runs/here-speller
fi

# The search is the bundled model's, with its language models; the confidence is not fitted. Only here has layers for
# phonemes: the others are searched without, as mini was measured.
if [ "$config" = here ]; then
    sed -e '/calibration/d' -e 's|"english-|"../../asr/assets/english-|' asr/assets/english.toml > "$run/model.toml"
else
    write_search "$run"
fi

evaluate() { # name of a set, options of asr evaluate
    asr evaluate "$run/model.pt" "$manifests/$1.jsonl" "${@:2}" || [ $? -eq 1 ]
}
[ "$config" != here ] || tests="$tests speechocean762"
for name in $tests; do
    echo "== $name, greedy"
    evaluate "$name" --greedy
    echo "== $name, with the search"
    evaluate "$name" --output "$run/$name.tsv"
done
