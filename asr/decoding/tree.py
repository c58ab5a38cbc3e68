"""A tree of pronunciations: words that begin alike share their first phonemes, and are heard together until they part.

Source: Ney, Haeb-Umbach, Tran and Oerder 1992, "Improvements in beam search for 10000-word continuous speech
recognition"; each node knows the likeliest word beyond it (look-ahead; Ortmanns and Ney 2000, section 3).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asr.phonemes import BLANK

ROOT = 0
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class PronunciationTree:
    """N nodes, level by level, 0 the root; a node is the phonemes on the way to it."""

    phoneme: Ints  # (N,) the last of its phonemes; BLANK for the root
    first: Ints  # (N + 1,) the nodes that have one more are first[n] to first[n + 1], that excluded
    likeliest: Floats  # (N,) log probability of the likeliest of the words that begin so
    words: list[str]  # in the order of the nodes that are whole words
    first_word: Ints  # (N + 1,) the words that sound as a node are those from first_word[n] to first_word[n + 1]

    @classmethod
    def of(
        cls, pronunciations: Mapping[str, tuple[int, ...]], log_probs: Mapping[str, float]
    ) -> "PronunciationTree":
        """The tree of all words that have both a pronunciation and a log probability; there must be one."""
        spoken = [word for word in pronunciations if word in log_probs]
        padded = np.array([bytes(pronunciations[word]) for word in spoken])  # by zeros
        order = np.argsort(padded, kind="stable")
        spoken = [spoken[index] for index in order.tolist()]
        table = padded[order].view(np.uint8).reshape(len(spoken), -1)
        sizes, longest = np.count_nonzero(table, 1), table.shape[1]
        scores = np.array([log_probs[word] for word in spoken])
        other = np.ones(len(spoken), bool)  # than the word before, in the phonemes so far
        other[1:] = False
        node = np.zeros(len(spoken), np.int64)  # that each word has come to
        phoneme, parent, likeliest, count = [np.array([BLANK])], [], [scores.max(keepdims=True)], 1
        for place in range(longest):
            there = sizes > place
            other[1:] |= table[1:, place] != table[:-1, place]
            new = np.flatnonzero(there & other)
            reached = count + np.cumsum(there & other) - 1
            parent.append(node[new])
            phoneme.append(table[new, place].astype(np.int64))
            node = np.where(there, reached, node)
            best = np.full(len(new), -np.inf)
            np.maximum.at(best, node[there] - count, scores[there])
            likeliest.append(best)
            count += len(new)
        first = 1 + np.searchsorted(np.concatenate(parent), np.arange(count + 1))
        order = np.argsort(node, kind="stable")
        return cls(
            np.concatenate(phoneme),
            first,
            np.concatenate(likeliest),
            [spoken[index] for index in order.tolist()],
            np.searchsorted(node[order], np.arange(count + 1)),
        )

    def longer(self, nodes: Ints) -> tuple[Ints, Ints]:
        """Places (M,) in `nodes` (K,), and the nodes (M,) that have one phoneme more than the node there."""
        return spread(self.first[nodes], self.first[nodes + 1])


def spread(starts: Ints, ends: Ints) -> tuple[Ints, Ints]:
    """Ranges, each from a start (K,) to an end (K,), in one row: which of them (M,), and the numbers (M,)."""
    counts = ends - starts
    which = np.repeat(np.arange(len(counts)), counts)
    numbers: Any = np.arange(len(which)) - np.repeat(counts.cumsum() - counts, counts)
    return which, starts[which] + numbers
