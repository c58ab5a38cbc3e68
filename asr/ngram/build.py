"""Sentences in, a word n-gram model out: interpolated modified Kneser-Ney, pruned by relative entropy to a size.

Every n-gram is a row of its length's arrays, sorted by context and word; contexts and suffixes are row numbers.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from asr.errors import ConfigError
from asr.ngram.files import TAGS, Floats, Ints, Level, Ngrams
from asr.options import check_range

_UNKNOWN, _BEGIN, _END = range(3)  # ids of TAGS
_FALLBACK = (0.5, 1.0, 1.5)  # discounts where a text is too small to estimate them, as KenLM's
_ZERO = 1e-99  # ARPA has no logarithm of 0


@dataclass(frozen=True)
class NgramOptions:
    """What an n-gram model holds."""

    order: int = 4  # words of the longest n-grams
    vocabulary: int = 0  # most frequent words kept; no n-gram holds another word; 0 keeps all
    max_ngrams: int = 0  # pruned to at most so many, beside single words; 0 keeps all

    def __post_init__(self) -> None:
        check_range(self, "ngram", ("order",), 1, 6)
        check_range(self, "ngram", ("vocabulary", "max_ngrams"), 0)


@dataclass(frozen=True)
class _Table:
    """All n-grams of one length that occur."""

    words: Ints  # (n,) last words
    parents: Ints  # (n,) rows of the contexts, in the table before
    suffixes: Ints  # (n,) rows of the n-grams without their first word, in the table before
    counts: Ints  # (n,) occurrences
    begins: NDArray[np.bool_]  # (n,) whether the first word is <s>
    probs: Floats  # (n,)
    backoffs: Floats  # (n,) what the shorter context's probability is multiplied by where nothing longer is known


def build(sentences: Sequence[str], options: NgramOptions, words: Sequence[str] = ()) -> Ngrams:
    """A model of normalised sentences (Chen and Goodman 1999, interpolated modified Kneser-Ney).

    `words` are known to exist: they are in the vocabulary, in the sentences or not. <unk> has the probability of a
    word never seen. Raises ConfigError where there is no sentence.
    """
    if not any(sentences):
        raise ConfigError("an n-gram model needs at least one sentence")
    vocabulary, tokens = _tokens(sentences, options.vocabulary, words)
    tables = _smooth(_count(tokens, len(vocabulary), options.order), len(vocabulary))
    if options.max_ngrams and len(tables) > 1:  # single words are not pruned
        kept = _pruned(tables, options.max_ngrams)
        tables = _renormalised(tables, kept)
    else:
        kept = [np.ones(len(table.words), bool) for table in tables]
    return Ngrams(vocabulary, _levels(tables, kept))


def _tokens(
    sentences: Sequence[str], vocabulary: int, more: Sequence[str]
) -> tuple[tuple[str, ...], Ints]:
    """The vocabulary by id, and all sentences in one row of ids, each with <s> and </s>."""
    split = [sentence.split() for sentence in sentences]
    counts = Counter(word for sentence in split for word in sentence)
    frequent = sorted(counts, key=lambda word: (-counts[word], word))
    words = tuple(dict.fromkeys((*TAGS, *frequent[: vocabulary or None], *sorted(more))))
    ids = {word: number for number, word in enumerate(words)}
    row: list[int] = []
    for sentence in split:
        row.append(_BEGIN)
        row += [ids.get(word, _UNKNOWN) for word in sentence]
        row.append(_END)
    return words, np.array(row, np.int64)


def _count(tokens: Ints, size: int, order: int) -> list[_Table]:
    """Count all n-grams; none reaches over the end of a sentence or holds <unk>."""
    index = np.arange(len(tokens))
    breaks = (tokens == _BEGIN) | (tokens == _UNKNOWN)
    since = index - np.maximum.accumulate(np.where(breaks, index, 0))
    after_unknown = np.maximum.accumulate(np.where(tokens == _UNKNOWN, index, -1)) >= index - since
    longest = since + 1 - after_unknown  # of the n-grams that end here
    counts = np.bincount(tokens, minlength=size)
    counts[_UNKNOWN] = 0
    ids, zeros = np.arange(size), np.zeros(size)
    tables = [_Table(ids, ids, ids, counts, ids == _BEGIN, zeros, zeros)]
    nodes = tokens
    for length in range(2, order + 1):
        ends = np.flatnonzero(longest >= length)
        keys = nodes[ends - 1] * size + tokens[ends]
        _, first, inverse, counts = np.unique(
            keys, return_index=True, return_inverse=True, return_counts=True
        )
        parents, suffixes = nodes[ends - 1][first], nodes[ends][first]
        begins, zeros = tables[-1].begins[parents], np.zeros(len(first))
        tables.append(_Table(tokens[ends][first], parents, suffixes, counts, begins, zeros, zeros))
        nodes = np.full(len(tokens), -1)
        nodes[ends] = inverse
    return tables


def _smooth(tables: list[_Table], size: int) -> list[_Table]:
    """Estimate the probabilities, from the single words up."""
    smoothed: list[_Table] = []
    for number, table in enumerate(tables):
        adjusted = table.counts
        if number + 1 < len(tables):  # in how many contexts an n-gram occurs, not how often
            contexts = np.bincount(tables[number + 1].suffixes, minlength=len(table.words))
            adjusted = np.where(table.begins, table.counts, np.maximum(contexts, table.counts > 0))
        if number == 0:
            adjusted = np.where(table.words == _BEGIN, 0, adjusted)
            lower: Floats = np.full(size, 1 / (size - 1))
            probs, _ = _interpolated(adjusted, np.zeros(size, np.int64), 1, lower)
            probs[_BEGIN] = _ZERO
        else:
            before = smoothed[-1]
            lower = before.probs[table.suffixes]
            probs, backoffs = _interpolated(adjusted, table.parents, len(before.words), lower)
            smoothed[-1] = replace(before, backoffs=backoffs)
        smoothed.append(replace(table, probs=probs, backoffs=np.ones(len(probs))))
    return smoothed


def _interpolated(
    counts: Ints, parents: Ints, contexts: int, lower: Floats
) -> tuple[Floats, Floats]:
    """Probabilities (n,) and the weights (contexts,) that the shorter contexts get."""
    discounts = np.array((0.0, *_discounts(counts)))[np.minimum(counts, 3)]
    totals = np.bincount(parents, counts, contexts)
    freed = np.bincount(parents, discounts, contexts)
    known = totals > 0
    weights = np.where(known, freed / np.where(known, totals, 1), 1.0)
    return (counts - discounts) / np.where(known, totals, 1)[parents] + weights[
        parents
    ] * lower, weights


def _discounts(counts: Ints) -> tuple[float, ...]:
    """What is taken from counts of 1, 2 and more (Chen and Goodman 1999, equation 26)."""
    ones, twos, threes, fours = (int((counts == n).sum()) for n in range(1, 5))
    if not (ones and twos and threes and fours):
        return _FALLBACK
    share = ones / (ones + 2 * twos)
    found = (
        1 - 2 * share * twos / ones,
        2 - 3 * share * threes / twos,
        3 - 4 * share * fours / threes,
    )
    fits = all(0 < discount < n for n, discount in enumerate(found, 1))
    return found if fits else _FALLBACK


def _pruned(tables: list[_Table], limit: int) -> list[NDArray[np.bool_]]:
    """Which n-grams stay so that at most `limit` do, single words aside: those whose loss would change most.

    The change is the relative entropy of the model (Stolcke 1998, equation 3), with contexts weighed by how often
    they occur: Kneser-Ney's lower orders are no estimate of that. What an n-gram that stays begins or ends with
    stays too.
    """
    changes = [_changes(tables, number) for number in range(1, len(tables))]
    candidates = np.sort(np.concatenate(changes))
    low, high = 0, len(candidates)  # how many fall below the threshold
    while low < high:
        middle = (low + high) // 2
        threshold = candidates[middle]
        if sum(int(kept.sum()) for kept in _kept(tables, changes, threshold)[1:]) <= limit:
            high = middle
        else:
            low = middle + 1
    threshold = candidates[low] if low < len(candidates) else np.inf
    return _kept(tables, changes, threshold)


def _changes(tables: list[_Table], number: int) -> Floats:
    """The relative entropy between the model and the model without each n-gram of one length."""
    table, before = tables[number], tables[number - 1]
    probs, lower = table.probs, before.probs[table.suffixes]
    left, lower_left = _left(table.parents, probs, lower, len(before.words))
    new_left = left[table.parents] + probs
    new_backoffs = new_left / (lower_left[table.parents] + lower)
    backoffs = before.backoffs[table.parents]
    own = probs * np.log(lower * new_backoffs / probs)
    others = left[table.parents] * np.log(new_backoffs / backoffs)
    weights = before.counts[table.parents] / tables[0].counts.sum()
    return np.asarray(-weights * (own + others))


def _left(parents: Ints, probs: Floats, lower: Floats, contexts: int) -> tuple[Floats, Floats]:
    """What the n-grams of each context leave of 1, by themselves and in the shorter context's eyes."""
    left = 1 - np.bincount(parents, probs, contexts)
    lower_left = 1 - np.bincount(parents, lower, contexts)
    return np.maximum(left, 1e-12), np.maximum(lower_left, 1e-12)


def _kept(tables: list[_Table], changes: list[Floats], threshold: float) -> list[NDArray[np.bool_]]:
    kept = [np.ones(len(tables[0].words), bool), *(change >= threshold for change in changes)]
    for number in range(len(tables) - 1, 1, -1):
        kept[number - 1][tables[number].parents[kept[number]]] = True
        kept[number - 1][tables[number].suffixes[kept[number]]] = True  # or KenLM refuses the file
    return kept


def _renormalised(tables: list[_Table], kept: list[NDArray[np.bool_]]) -> list[_Table]:
    """New backoffs, with which the probabilities of what is kept sum to 1 again."""
    new = [tables[0]]
    for number in range(1, len(tables)):
        table, before, stays = tables[number], new[-1], kept[number]
        lower = before.probs[table.suffixes]
        left, lower_left = _left(
            table.parents[stays], table.probs[stays], lower[stays], len(before.words)
        )
        new[-1] = replace(before, backoffs=left / lower_left)
        backed_off = new[-1].backoffs[table.parents] * lower
        new.append(replace(table, probs=np.where(stays, table.probs, backed_off)))
    return new


def _levels(tables: list[_Table], kept: list[NDArray[np.bool_]]) -> tuple[Level, ...]:
    """The kept rows, numbered anew."""
    levels = []
    rows = np.arange(len(tables[0].words))
    for table, stays in zip(tables, kept, strict=True):
        parents = rows[table.parents[stays]]
        logs = np.log(table.probs[stays]), np.log(table.backoffs[stays])
        levels.append(Level(table.words[stays], parents, *logs))
        rows = np.cumsum(stays) - 1
    return tuple(levels)
