"""`asr lm`: texts in, a word n-gram model out; a language model and sentences in, its perplexity out."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from asr.cli.base import app, note
from asr.errors import ConfigError

if TYPE_CHECKING:
    from asr.decoding.words import WordModel

lm = typer.Typer(
    no_args_is_help=True,
    help="Language models: word n-grams and perplexity; `asr train` trains LSTMs.",
    epilog="Example: asr lm perplexity words.ngram dev.jsonl",
)
app.add_typer(lm, name="lm")

TEXTS = "Texts (.txt, .gz) or manifests (JSON lines). A text with blank lines is a book, else a line is a sentence."
FIGURES = ("per_word", "per_word_with_unknown", "per_character", "unknown_rate")


@lm.command(
    epilog="Example: asr lm ngram books.txt.gz train.jsonl --exclude dev.jsonl --exclude test.jsonl "
    "--max-ngrams 2800000 --output words.ngram"
)
def ngram(
    texts: list[str] = typer.Argument(..., metavar="TEXT...", help=TEXTS),
    output: Path = typer.Option(
        ..., "--output", "-o", help="Model file: .arpa or .arpa.gz for ARPA, else the binary."
    ),
    order: int = typer.Option(4, help="Words of the longest n-grams."),
    max_ngrams: int = typer.Option(
        0, help="Prune to so many n-grams of two and more words; 0 keeps all."
    ),
    vocabulary: int = typer.Option(0, help="Most frequent words kept; 0 keeps all."),
    words: Path | None = typer.Option(
        None,
        help="Word list or pronunciation dictionary (such as CMUdict): its words are known too, as never seen.",
    ),
    exclude: list[str] | None = typer.Option(
        None, help="Manifest or text; refuse TEXT if it holds text of it. May be repeated."
    ),
    skip: list[str] | None = typer.Option(
        None, metavar="FILE:FIRST-LAST", help="Leave out these lines of a TEXT. May be repeated."
    ),
) -> None:
    """Build a word n-gram model: interpolated modified Kneser-Ney, pruned by relative entropy."""
    from asr import leaks, sentences
    from asr.ngram import NgramOptions, build, save

    options = NgramOptions(order, vocabulary, max_ngrams)
    known = sentences.read_words(words) if words is not None else []
    found = sentences.read(texts, skip or [])
    if exclude:
        leaks.refuse(found, sentences.read(exclude))
    else:
        note("nothing is kept out of the model: --exclude names dev and test manifests")
    count = sum(len(sentence.text.split()) for sentence in found)
    note(f"{len(found)} sentences, {count} words")
    model = build([sentence.text for sentence in found], options, known)
    save(output, model)
    counts = ", ".join(f"{count} {n}-grams" for n, count in enumerate(model.counts, 1))
    note(f"{counts}, {output.stat().st_size / 1e6:.1f} MB")
    typer.echo(output)


@lm.command(epilog="Example: asr lm perplexity words.ngram dev-clean.jsonl --json")
def perplexity(
    model: Path = typer.Argument(..., help="Model file: .pt is an LSTM, else n-grams."),
    texts: list[str] = typer.Argument(..., metavar="TEXT...", help=TEXTS),
    word_lm: Path | None = typer.Option(
        None, help="Word LSTM (.pt) to mix n-grams with, word by word, as the search does."
    ),
    share: float | None = typer.Option(
        None, help="The word LSTM's part of the mixture, 0 to 1; default: 0.5."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object."),
) -> None:
    """Measure how well a language model predicts sentences; lower is better."""
    from asr import sentences
    from asr.language.perplexity import of_lstm, of_words
    from asr.lm_checkpoint import load_lm

    if share is not None and word_lm is None:
        raise ConfigError("--share: of what --word-lm names, and it names nothing")
    found = [sentence.text for sentence in sentences.read(texts)]
    if model.suffix == ".pt" and word_lm is None:
        trained = load_lm(model)
        result = of_lstm(trained.model, trained.tokenizer, found)
    else:
        result = of_words(_words(model, word_lm, 0.5 if share is None else share), found)
    figures = asdict(result) | {name: getattr(result, name) for name in FIGURES}
    if as_json:
        typer.echo(json.dumps(figures))
        return
    for name, value in figures.items():
        typer.echo(f"{name.replace('_', ' ')}: {value:.6g}")


def _words(ngram: Path, word_lm: Path | None, share: float) -> "WordModel":
    """The n-grams of a file, with a word LSTM beside them where one is named."""
    from asr.decoding.word_mixture import WordMixture
    from asr.lm_checkpoint import load_lm
    from asr.model.lm import WordLm
    from asr.ngram import NgramModel
    from asr.tokenizer import WordTokenizer

    if ngram.suffix == ".pt":
        raise ConfigError(f"{ngram}: --word-lm is mixed with n-grams, this is an LSTM")
    if not 0 < share < 1:
        raise ConfigError(f"--share is {share:g}; it must be more than 0 and less than 1")
    ngrams = NgramModel.load(ngram)
    if word_lm is None:
        return ngrams
    trained = load_lm(word_lm, "words")
    assert isinstance(trained.model, WordLm)
    assert isinstance(trained.tokenizer, WordTokenizer)
    return WordMixture(ngrams, trained.model, trained.tokenizer, share)
