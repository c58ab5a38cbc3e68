"""Training text and held-out transcripts in, the places where the one holds the other out.

A shared short sentence is chance; shared are whole sentences of at least SENTENCE_WORDS words, and any SPAN_WORDS
words in a row. All of it is compared after normalisation.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asr.errors import CorpusError
from asr.sentences import Sentence

SENTENCE_WORDS = 6
SPAN_WORDS = 12
MAX_NAMED = 3


@dataclass(frozen=True)
class Leak:
    """A sentence of the training text that holds held-out text, and a held-out sentence that it holds."""

    training: Sentence
    held_out: Sentence
    text: str  # what they share


def find(training: Sequence[Sentence], held_out: Sequence[Sentence]) -> list[Leak]:
    """The sentences of `training` that are one of `held_out`, or in which a span of one begins."""
    whole = {s.text: s for s in held_out if len(s.text.split()) >= SENTENCE_WORDS}
    leaks = {
        number: Leak(sentence, whole[sentence.text], sentence.text)
        for number, sentence in enumerate(training)
        if sentence.text in whole
    }
    for number, leak in _spans(training, held_out):
        leaks.setdefault(number, leak)
    return [leaks[number] for number in sorted(leaks)]


def refuse(training: Sequence[Sentence], held_out: Sequence[Sentence]) -> None:
    """Raise CorpusError in one line if the training text holds held-out text: how much and where."""
    leaks = find(training, held_out)
    if leaks:
        places = "; ".join(
            f"{leak.training.path}:{leak.training.line} has {leak.held_out.path}:{leak.held_out.line} "
            f"({leak.text!r})"
            for leak in leaks[:MAX_NAMED]
        )
        more = f"; and {len(leaks) - MAX_NAMED} more" if len(leaks) > MAX_NAMED else ""
        raise CorpusError(
            f"{len(leaks)} of {len(training)} sentences hold text that is kept out: {places}{more}"
        )


def _spans(
    training: Sequence[Sentence], held_out: Sequence[Sentence]
) -> Iterator[tuple[int, Leak]]:
    """Where a span of a held-out sentence begins in the training text, which may go on in the sentences after."""
    wanted = {
        tuple(words[i : i + SPAN_WORDS]): sentence
        for sentence in held_out
        for words in [sentence.text.split()]
        for i in range(len(words) - SPAN_WORDS + 1)
    }
    ids: dict[str, int] = {}
    for span in wanted:
        for word in span:
            ids.setdefault(word, len(ids) + 1)
    words = [word for sentence in training for word in sentence.text.split()]
    row = np.array([ids.get(word, 0) for word in words], np.uint64)
    hashes = (
        _hashes(np.lib.stride_tricks.sliding_window_view(row, SPAN_WORDS))
        if len(row) >= SPAN_WORDS
        else row[:0]
    )
    spans = np.array([[ids[word] for word in span] for span in wanted], np.uint64)
    lengths = [len(sentence.text.split()) for sentence in training]
    numbers = np.repeat(np.arange(len(training)), lengths)
    hits = np.flatnonzero(np.isin(hashes, _hashes(spans.reshape(-1, SPAN_WORDS))))
    for hit in hits.tolist():
        span = tuple(words[hit : hit + SPAN_WORDS])
        if span in wanted:
            number = int(numbers[hit])
            yield number, Leak(training[number], wanted[span], " ".join(span))


def _hashes(rows: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """One number for each row (n, SPAN_WORDS); the same for the same row."""
    result = np.zeros(len(rows), np.uint64)
    for column in range(SPAN_WORDS):
        result = result * np.uint64(0x9E3779B97F4A7C15) + rows[:, column]
    return result
