"""First pass: what the phoneme layers hear in, the likeliest texts of known words out, frame by frame.

CTC's prefix search (Graves 2008, section 7.5.2; Hannun et al. 2014) through a tree of pronunciations, with a word model
where a word ends. A hypothesis is a text of whole words and a node of the tree, the word that is being said; all ways
in which its phonemes may lie in the frames are summed up. The decoder has no say yet: the second pass asks it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from asr.decoding.tree import ROOT, Floats, Ints, PronunciationTree
from asr.decoding.words import WordModel
from asr.errors import ConfigError
from asr.options import check_range
from asr.phonemes import BLANK

SURE = math.log(0.99)  # log probability of a blank above which no phoneme begins in a frame


@dataclass(frozen=True)
class FirstPass:
    """Options of the first pass; weights are beside that of the phonemes, which is 1."""

    hypotheses: int = 1000  # kept at each frame
    beam_width: float = 15.0  # nats below the best one at which a hypothesis is dropped
    word_width: float = 9.0  # the same, at which no word of it may end
    ngram_weight: float = 1.0  # of the n-grams, mixed with the word LSTM where a search has one
    word_bonus: float = 0.0  # added per word, in nats; may be negative
    # Besides as it is, a recording is heard with frequencies lowered and raised by this share, as if speakers with a
    # longer and a shorter vocal tract had spoken; the log probabilities are the mean of the three. 0: only as it is.
    warp: float = 0.0

    def __post_init__(self) -> None:
        """Refuse values out of range; raises ConfigError naming the option and what is allowed."""
        check_range(self, "first_pass", ("hypotheses",), 1)
        check_range(self, "first_pass", ("beam_width", "word_width", "ngram_weight"), 0)
        check_range(self, "first_pass", ("warp",), 0, 0.5)
        if not math.isfinite(self.word_bonus):
            raise ConfigError(f"first_pass.word_bonus is {self.word_bonus}; it must be finite")


class _Texts:
    """Texts of whole words, by number; 0 is the empty one, every other is another with a word more."""

    def __init__(self, tree: PronunciationTree, words: WordModel, options: FirstPass) -> None:
        self._tree, self._model, self._options = tree, words, options
        self._before, self._last, self._states = [-1], [""], [words.start()]
        self._known: dict[tuple[int, int], Ints] = {}  # by text and node: what `longer` gives
        self.scores = np.zeros(1000)  # of each text, weighted; without its end

    def longer(self, texts: Ints, nodes: Ints) -> list[Ints]:
        """For each text (K,) and node (K,) the texts that have one of the node's words more."""
        pairs = list(zip(texts.tolist(), nodes.tolist(), strict=True))
        self._add([pair for pair in pairs if pair not in self._known])
        return [self._known[pair] for pair in pairs]

    def _add(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Know the texts that have one of a node's words more than a text, for each text and node."""
        first, start = self._tree.first_word, len(self._before)
        for text, node in pairs:
            words = self._tree.words[first[node] : first[node + 1]]
            self._known[text, node] = np.arange(len(words)) + len(self._before)
            self._before += [text] * len(words)
            self._last += words
        before, last = self._before[start:], self._last[start:]
        asked = [(self._states[text], word) for text, word in zip(before, last, strict=True)]
        log_probs, states = self._model.scores(asked)
        self._states += states
        if len(self._before) > len(self.scores):
            self.scores = np.concatenate([self.scores, np.zeros(len(self._before))])
        gained = self._options.ngram_weight * log_probs + self._options.word_bonus
        self.scores[start : len(self._before)] = self.scores[before] + gained

    def whole(self, text: int) -> float:
        """The score of a text that ends here."""
        return float(self.scores[text]) + self._options.ngram_weight * self._model.end(
            self._states[text]
        )

    def spell(self, text: int) -> str:
        """The text's words."""
        words = []
        while text:
            words.append(self._last[text])
            text = self._before[text]
        return " ".join(reversed(words))


@dataclass(frozen=True)
class _Beam:
    """Hypotheses after some frames, or ways to them: all columns are (K,)."""

    text: Ints
    node: Ints
    blank: Floats  # log probability of the phonemes, the last frame a blank
    label: Floats  # the same, the last frame the last phoneme

    @cached_property
    def either(self) -> Floats:
        """Whatever the last frame is."""
        found: Floats = np.logaddexp(self.blank, self.label)
        return found

    def select(self, rows: Ints) -> "_Beam":
        """Those rows only."""
        return _Beam(self.text[rows], self.node[rows], self.blank[rows], self.label[rows])


@dataclass(frozen=True)
class _Search:
    """One recording's search."""

    tree: PronunciationTree
    texts: _Texts
    options: FirstPass

    def start(self) -> _Beam:
        """Nothing said yet."""
        nothing = np.zeros(1, np.int64)
        return _Beam(nothing, nothing, np.zeros(1), np.full(1, -np.inf))

    def advance(self, beam: _Beam, heard: Floats) -> _Beam:
        """The best hypotheses after a frame more, which says (P,) log probabilities."""
        either = beam.either
        same = self.tree.phoneme[beam.node]
        ways = [_Beam(beam.text, beam.node, either + heard[BLANK], beam.label + heard[same])]
        if heard[BLANK] < SURE:
            rows, nodes = self.tree.longer(beam.node)
            ways.append(self._entered(beam, heard, rows, beam.text[rows], nodes))
            rows, texts = self._ended(beam)
            which, nodes = self.tree.longer(np.zeros(len(texts), np.int64))
            ways.append(self._entered(beam, heard, rows[which], texts[which], nodes))
        found = self._pruned(_joined(ways), math.inf)
        return self._pruned(_merged(found, len(self.tree.phoneme)), self.options.hypotheses)

    def best(self, beam: _Beam, count: int) -> list[str]:
        """The `count` best texts of the hypotheses that end here, best first; the empty one may be among them."""
        rows, texts = self._ended(beam)
        silent = np.flatnonzero(beam.node == ROOT)
        rows, texts = np.append(rows, silent), np.append(texts, beam.text[silent])
        scores = beam.either[rows] + [self.texts.whole(text) for text in texts.tolist()]
        order = np.argsort(-scores, kind="stable")[:count]
        return [self.texts.spell(text) for text in texts[order].tolist()]

    def _ended(self, beam: _Beam) -> tuple[Ints, Ints]:
        """Rows (M,) of the beam whose word may end here, and the texts (M,) that this makes of them."""
        first, scores = self.tree.first_word, self._scores(beam)
        likely = scores >= scores.max() - self.options.word_width
        ended = np.flatnonzero((first[beam.node + 1] > first[beam.node]) & likely)
        texts = self.texts.longer(beam.text[ended], beam.node[ended])
        rows = np.repeat(ended, [len(each) for each in texts])
        return rows, np.concatenate([np.zeros(0, np.int64), *texts])

    def _entered(self, beam: _Beam, heard: Floats, rows: Ints, texts: Ints, nodes: Ints) -> _Beam:
        """From rows (M,) of the beam to nodes (M,) in texts (M,), whose last phoneme begins in this frame."""
        new = self.tree.phoneme[nodes]
        repeated = new == self.tree.phoneme[beam.node[rows]]  # a blank must come between
        before = np.where(repeated, beam.blank[rows], beam.either[rows])
        return _Beam(texts, nodes, np.full(len(rows), -np.inf), before + heard[new])

    def _scores(self, beam: _Beam) -> Floats:
        ahead = self.options.ngram_weight * self.tree.likeliest[beam.node]
        found: Floats = beam.either + self.texts.scores[beam.text] + ahead
        return found

    def _pruned(self, beam: _Beam, size: float) -> _Beam:
        """The best hypotheses, no more than `size`."""
        scores = self._scores(beam)
        kept = np.flatnonzero(scores >= scores.max() - self.options.beam_width)
        if len(kept) > size:
            kept = kept[np.argpartition(scores[kept], -int(size))[-int(size) :]]
        return beam.select(kept)


def _joined(ways: Sequence[_Beam]) -> _Beam:
    return _Beam(*(np.concatenate(column) for column in zip(*map(_columns, ways), strict=True)))


def _columns(beam: _Beam) -> tuple[Ints, Ints, Floats, Floats]:
    return beam.text, beam.node, beam.blank, beam.label


def _merged(ways: _Beam, nodes: int) -> _Beam:
    """Each hypothesis once, with the sum of all ways to it."""
    key = ways.text * nodes + ways.node
    order = np.argsort(key, kind="stable")
    new = np.diff(key[order], prepend=-1) > 0
    first = np.flatnonzero(new)
    text, node, blank, label = _columns(ways.select(order))
    blank, label = (np.logaddexp.reduceat(column, first) for column in (blank, label))
    return _Beam(text[first], node[first], blank, label)


def propose(
    log_probs: Floats, tree: PronunciationTree, words: WordModel, options: FirstPass, count: int
) -> list[str]:
    """Up to `count` texts, best first, by the log_probs (T, P) of a recording; none where it ends within words."""
    search = _Search(tree, _Texts(tree, words, options), options)
    beam = search.start()
    for heard in log_probs:
        beam = search.advance(beam, heard)
    return search.best(beam, count)
