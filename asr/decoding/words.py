"""Word n-gram fusion: whole words are scored by an n-gram model at the token that ends them, a space or eos.

Any word can be spelled: one that the n-gram does not know costs what its <unk> costs.
"""

from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from asr.model import Memory
from asr.tokenizer import Tokenizer

Context = Any
"""A word model's state: whatever can be the key of a dict."""


class WordModel(Protocol):
    """What the search needs of an n-gram model (asr.ngram); log-probabilities in nats."""

    def start(self) -> Context:
        """The state before the first word."""

    def score(self, state: Any, word: str) -> tuple[float, Context]:
        """The log-probability of a word, known or not, and the state after it."""

    def end(self, state: Any) -> float:
        """The log-probability that there is no more word."""


Row = tuple[Context, str]
"""A hypothesis as words see it: the n-gram's state after its whole words, and the word that is being spelled."""


@dataclass(frozen=True)
class Word:
    """What it costs to end a word here, in nats: with a space, with eos; and the n-gram's state after it."""

    space: float
    eos: float
    after: Context


@dataclass(frozen=True)
class WordScorer:
    """Fuses an n-gram model at the ends of words."""

    ngram: WordModel
    tokenizer: Tokenizer
    space: int  # the id of the character between words

    def start(self, memory: Memory, rows: int) -> "WordState":
        """See Scorer."""
        first: list[Row] = [(self.ngram.start(), "")] * (len(memory.lengths) * rows)
        return WordState(self, memory.mask.device, first, {})

    def word(self, row: Row) -> Word:
        """What it costs to end the word that `row` is in; nothing between words."""
        context, spelled = row
        if not spelled:
            return Word(0.0, self.ngram.end(context), context)
        log_prob, after = self.ngram.score(context, spelled)
        return Word(log_prob, log_prob + self.ngram.end(after), after)


@dataclass(frozen=True)
class WordState:
    """The words of N hypotheses; `known` remembers what was asked of the n-gram before."""

    scorer: WordScorer
    device: torch.device
    rows: list[Row]
    known: dict[Row, Word] = field(repr=False)
    words: list[Word] = field(init=False)

    def __post_init__(self) -> None:
        known, words = self.known, []
        for row in self.rows:
            if row not in known:
                known[row] = self.scorer.word(row)
            words.append(known[row])
        object.__setattr__(self, "words", words)

    @property
    def scores(self) -> Tensor:
        """Log-probability (N, V) of the word at the tokens that end it, 0 elsewhere."""
        scores = torch.zeros(len(self.rows), self.scorer.tokenizer.size)
        ends = torch.tensor([(word.space, word.eos) for word in self.words])
        scores[:, [self.scorer.space, Tokenizer.eos]] = ends
        return scores.to(self.device)

    def advance(self, parents: Tensor, tokens: Tensor) -> "WordState":
        """See ScorerState."""
        space, spell = self.scorer.space, self.scorer.tokenizer.decode
        rows = []
        for parent, token in zip(parents.tolist(), tokens.tolist(), strict=True):
            context, spelled = self.rows[parent]
            ended = token == space
            rows.append(
                (self.words[parent].after, "") if ended else (context, spelled + spell([token]))
            )
        return WordState(self.scorer, self.device, rows, self.known)
