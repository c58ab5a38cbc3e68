"""Word n-gram fusion: what an n-gram model says of whole words, spread over the characters that spell them.

Any word can be spelled: one that the n-gram does not know costs what its <unk> costs, and a penalty where one is set.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from asr.decoding.beginnings import Beginnings
from asr.model import Memory
from asr.tokenizer import Tokenizer

Floats = NDArray[np.float64]
Context = Any
"""A word model's state: whatever can be the key of a dict."""


class WordModel(Protocol):
    """What the search needs of an n-gram model (asr.ngram); log-probabilities in nats."""

    def start(self) -> Context:
        """The state before the first word."""

    def score(self, state: Any, word: str) -> tuple[float, Context]:
        """The log-probability of a word, known or not, and the state after it."""

    def scores(self, asked: Sequence[tuple[Any, str]]) -> tuple[Floats, list[Context]]:
        """The same of many words, each after a state: their log-probabilities (N,), and the states after them."""

    def end(self, state: Any) -> float:
        """The log-probability that there is no more word."""

    def unigrams(self) -> Mapping[str, float]:
        """The log-probability of every known word without context."""

    @property
    def unknown(self) -> float:
        """The log-probability of an unknown word without context."""


class Penalised:
    """An n-gram model to which words outside its vocabulary and `also` are less likely by `penalty` nats."""

    def __init__(self, ngram: WordModel, penalty: float, also: Iterable[str] = ()) -> None:
        self.ngram = ngram
        self.penalty = penalty
        self.start, self.end = ngram.start, ngram.end
        self._known = dict.fromkeys(also, ngram.unknown) | dict(ngram.unigrams())

    def score(self, state: Any, word: str) -> tuple[float, Context]:
        """See WordModel."""
        log_probs, (after,) = self.scores([(state, word)])
        return float(log_probs[0]), after

    def scores(self, asked: Sequence[tuple[Any, str]]) -> tuple[Floats, list[Context]]:
        """See WordModel."""
        log_probs, after = self.ngram.scores(asked)
        unknown = np.array([word not in self._known for _, word in asked], bool)
        return log_probs - self.penalty * unknown, after

    def unigrams(self) -> Mapping[str, float]:
        """See WordModel."""
        return self._known

    @property
    def unknown(self) -> float:
        """See WordModel."""
        return self.ngram.unknown - self.penalty


class LookAhead(Beginnings):
    """What the beginning of a word says about it, before it is whole (Ortmanns & Ney 2000, section 3).

    m(u), the probability that a word begins with u, is the sum of the unigrams that do and of <unk>. A row that
    spells u has been charged log m(u), which its whole word takes back: the sum over a word is its n-gram score.
    """

    def __init__(self, ngram: WordModel, tokenizer: Tokenizer) -> None:
        """Sort the vocabulary, so that the words with a common beginning are neighbours."""
        super().__init__(tokenizer)
        self.ngram = ngram
        words = sorted(ngram.unigrams().items())
        self._words = [word for word, _ in words]
        self._sums = np.concatenate([[0.0], np.exp([p for _, p in words]).cumsum()])
        self._unknown = float(np.exp(ngram.unknown))

    @property
    def most(self) -> float:
        """See Beginnings: what a beginning costs that no known word has."""
        return -self._value("\uffff")

    def _value(self, spelled: str) -> float:
        first = bisect_left(self._words, spelled)
        last = bisect_left(self._words, spelled + "\U0010ffff")
        known = self._sums[last] - self._sums[first]
        return float(np.log((known + self._unknown) / (self._sums[-1] + self._unknown)))


Row = tuple[Context, str]
"""A hypothesis as words see it: the n-gram's state after its whole words, and the word that is being spelled."""


@dataclass(frozen=True)
class Next:
    """What each next token (V,) costs a row, in nats, and the n-gram's state after the word if it ends here."""

    scores: Any  # float32
    after: Context


@dataclass(frozen=True)
class WordScorer:
    """Fuses the n-gram model of a look-ahead."""

    look_ahead: LookAhead
    tokenizer: Tokenizer
    space: int  # the id of the character between words

    def start(self, memory: Memory, rows: int) -> "WordState":
        """See Scorer."""
        first: list[Row] = [(self.look_ahead.ngram.start(), "")] * (len(memory.lengths) * rows)
        return WordState(self, memory.mask.device, first, {})

    def next(self, rows: Sequence[Row]) -> list[Next]:
        """What the tokens cost that may follow in each of `rows`; a space between words costs nothing."""
        ngram = self.look_ahead.ngram
        ended = [row for row in rows if row[1]]
        log_probs, states = ngram.scores(ended)
        words = dict(zip(ended, zip(log_probs.tolist(), states, strict=True), strict=True))
        found = []
        for row in rows:
            charged, changes = self.look_ahead(row[1])
            log_prob, after = words.get(row, (0.0, row[0]))
            scores = changes.copy()
            scores[self.space] = log_prob - charged
            scores[Tokenizer.eos] = log_prob - charged + ngram.end(after)
            found.append(Next(scores, after))
        return found


@dataclass(frozen=True)
class WordState:
    """The words of N hypotheses; `known` remembers what was asked of the n-gram before."""

    scorer: WordScorer
    device: torch.device
    rows: list[Row]
    known: dict[Row, Next] = field(repr=False)
    following: list[Next] = field(init=False)

    def __post_init__(self) -> None:
        new = [row for row in dict.fromkeys(self.rows) if row not in self.known]
        self.known.update(zip(new, self.scorer.next(new), strict=True))
        object.__setattr__(self, "following", [self.known[row] for row in self.rows])

    @property
    def scores(self) -> Tensor:
        """Log-probabilities (N, V), summing over the tokens of a word to what the n-gram says of it."""
        rows = np.stack([row.scores for row in self.following])
        return torch.from_numpy(rows).to(self.device)

    def advance(self, parents: Tensor, tokens: Tensor) -> "WordState":
        """See ScorerState."""
        space, spell = self.scorer.space, self.scorer.tokenizer.decode
        rows = []
        for parent, token in zip(parents.tolist(), tokens.tolist(), strict=True):
            context, spelled = self.rows[parent]
            ended = token == space
            rows.append(
                (self.following[parent].after, "") if ended else (context, spelled + spell([token]))
            )
        return WordState(self.scorer, self.device, rows, self.known)
