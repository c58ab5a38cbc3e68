"""A word n-gram language model in a file in, log-probabilities of words out: what a search adds where a word ends.

Read are ARPA files of any tool (.arpa, .arpa.gz) and this project's own binary, which is a tenth of the size and
loads in a fraction of a second. The n-grams are a trie: the children of a context are sorted by word, so that a
state is the handful of trie nodes that the last words lead to.
"""

from array import array
from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from asr.ngram.files import BEGIN, END, TAGS, Floats, Ints, Ngrams, read

State = tuple[int, ...]
"""Trie nodes of the last words: of the last one, of the last two, and so on; -1 is none."""


class NgramModel:
    """The n-grams as the search asks for them: one word at a time, in a microsecond or two."""

    def __init__(self, ngrams: Ngrams) -> None:
        self.order, self.counts = ngrams.order, ngrams.counts
        self._ids = {word: index for index, word in enumerate(ngrams.words)}
        self._log_probs = [_array("f", level.log_probs) for level in ngrams.levels]
        self._backoffs = [_array("f", level.backoffs) for level in ngrams.levels]
        self._words = [_array("I", level.words) for level in ngrams.levels]
        self._first = [
            _array(
                "I", np.append(0, np.bincount(longer.parents, minlength=len(level.words)).cumsum())
            )
            for level, longer in zip(ngrams.levels, ngrams.levels[1:], strict=False)
        ]

    @classmethod
    def load(cls, path: str | Path) -> "NgramModel":
        """Read a model of either format. Raises CheckpointError naming the file and what is wrong with it."""
        return cls(read(path))

    def start(self) -> State:
        """The state before the first word of a sentence."""
        return (self._ids[BEGIN],) if self.order > 1 else ()

    def score(self, state: State, word: str) -> tuple[float, State]:
        """The log-probability of `word` in nats after the words that led to `state`, and the state after it.

        A word that is not in the vocabulary is <unk>.
        """
        return self._score(state, self._ids.get(word, 0))

    def scores(self, asked: Sequence[tuple[State, str]]) -> tuple[Floats, list[State]]:
        """The log-probabilities (N,) in nats of words, each after a state, and the states after them."""
        found = [self.score(state, word) for state, word in asked]
        return np.array([log_prob for log_prob, _ in found], float), [after for _, after in found]

    def end(self, state: State) -> float:
        """The log-probability, in nats, that the sentence ends here."""
        return self._score(state, self._ids[END])[0]

    @property
    def unknown(self) -> float:
        """The log-probability of <unk> without context, in nats."""
        return float(self._log_probs[0][0])

    def unigrams(self) -> dict[str, float]:
        """The log-probability of every word of the vocabulary without context, in nats."""
        return {w: self._log_probs[0][i] for w, i in self._ids.items() if w not in TAGS}

    def __contains__(self, word: object) -> bool:
        """Whether a word is in the vocabulary."""
        return word in self._ids and word not in TAGS

    def _score(self, state: State, word: int) -> tuple[float, State]:
        log_prob = self._log_probs[0][word]
        nodes = [word]
        for length, context in enumerate(state):  # from the shortest context to the longest
            node = -1
            if context >= 0:
                words, first = self._words[length + 1], self._first[length]
                end = first[context + 1]
                node = bisect_left(words, word, first[context], end)
                if node < end and words[node] == word:
                    log_prob = self._log_probs[length + 1][node]
                else:
                    node = -1
                    log_prob += self._backoffs[length][context]
            nodes.append(node)
        del nodes[self.order - 1 :]
        while nodes and nodes[-1] < 0:
            nodes.pop()
        return log_prob, tuple(nodes)


def _array(code: str, values: Ints | Floats) -> "array[Any]":
    """The values where Python reads a single one fastest."""
    result: array[Any] = array(code)
    result.frombytes(values.astype(code).tobytes())
    return result
