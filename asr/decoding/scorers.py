"""What a beam ranks by: a memory in, for every row the log-scores of each next token out.

A scorer is started on a batch and gives a state, a value; the search moves its rows with `advance`, so that no scorer
can be reordered differently from another. The CTC, word and hot-word scorers have a file each.
"""

from dataclasses import dataclass
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from asr.model import Memory, Seq2Seq, State
from asr.tokenizer import Tokenizer


class ScorerState(Protocol):
    """What a scorer knows of N = B * R hypotheses, R rows for each utterance that is still searched."""

    @property
    def scores(self) -> Tensor:
        """Log-scores (N, V) of each next token; -inf where it cannot follow."""

    def advance(self, parents: Tensor, tokens: Tensor) -> Self:
        """The state of the rows that come from rows `parents` (N',) by `tokens` (N',), as many for each utterance.

        Utterances may leave, with all their rows; those that stay keep their order.
        """


def kept_utterances(parents: Tensor, rows: int, count: int) -> Tensor:
    """Which of `count` utterances, with `rows` rows in all, still have rows, by those that they come from (N',)."""
    return torch.unique_consecutive(parents // (rows // count))


class Scorer(Protocol):
    """Starts a search."""

    def start(self, memory: Memory, rows: int) -> ScorerState:
        """The state before the first token, with `rows` rows for each utterance of `memory`."""


@dataclass(frozen=True)
class AttentionState:
    """The decoder after its last step: `scores` (N, V) of the next token and where it looked for it."""

    model: Seq2Seq
    memory: Memory  # of B utterances, each shared by its R rows
    state: State  # of N rows
    scores: Tensor

    def advance(self, parents: Tensor, tokens: Tensor) -> "AttentionState":
        """See ScorerState."""
        memory, state = self.memory, self.state.select(parents)
        kept = kept_utterances(parents, len(self.scores), len(memory.lengths))
        if len(kept) < len(memory.lengths):
            memory = memory.select(kept)
        scores, state = self.model.step(tokens, memory, state)
        return AttentionState(self.model, memory, state, scores.float())


@dataclass(frozen=True)
class AttentionScorer:
    """The attention decoder."""

    model: Seq2Seq

    def start(self, memory: Memory, rows: int) -> AttentionState:
        """See Scorer."""
        utterances = torch.arange(len(memory.lengths), device=memory.lengths.device)
        state = self.model.initial_state(memory).select(utterances.repeat_interleave(rows))
        tokens = memory.lengths.new_full((len(utterances) * rows,), Tokenizer.sos)
        scores, state = self.model.step(tokens, memory, state)
        return AttentionState(self.model, memory, state, scores.float())


class CharacterModel(Protocol):
    """What the search needs of a character language model (asr.model.lm)."""

    def initial_state(self, rows: int) -> Any:
        """The state of `rows` sentences before sos; `select` moves its rows."""

    def step(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Last tokens (N,) to log_probs (N, V) of the next ones and the next state."""


@dataclass(frozen=True)
class LmScorerState:
    """The language model after its last step: `scores` (N, V) of the next token."""

    model: CharacterModel
    state: Any
    scores: Tensor

    def advance(self, parents: Tensor, tokens: Tensor) -> "LmScorerState":
        """See ScorerState."""
        scores, state = self.model.step(tokens, self.state.select(parents))
        return LmScorerState(self.model, state, scores)


@dataclass(frozen=True)
class LmScorer:
    """A character language model of the recognizer's alphabet (shallow fusion)."""

    model: CharacterModel

    def start(self, memory: Memory, rows: int) -> LmScorerState:
        """See Scorer."""
        tokens = memory.lengths.new_full((len(memory.lengths) * rows,), Tokenizer.sos)
        scores, state = self.model.step(tokens, self.model.initial_state(len(tokens)))
        return LmScorerState(self.model, state, scores)


@dataclass(frozen=True)
class WordCountState:
    """Which rows are inside a word."""

    space: int
    size: int
    inside: Tensor  # (N,)

    @property
    def scores(self) -> Tensor:
        """1 (N, V) for a token that ends a word, else 0."""
        counts = self.inside.new_zeros(len(self.inside), self.size, dtype=torch.float32)
        counts[:, [self.space, Tokenizer.eos]] = self.inside.float()[:, None]
        return counts

    def advance(self, parents: Tensor, tokens: Tensor) -> "WordCountState":
        """See ScorerState."""
        return WordCountState(self.space, self.size, tokens != self.space)


@dataclass(frozen=True)
class WordCountScorer:
    """Counts words, so that each can be given a bonus: a language model alone prefers few."""

    space: int  # the id of the character between words
    size: int  # of the vocabulary

    def start(self, memory: Memory, rows: int) -> WordCountState:
        """See Scorer."""
        inside = torch.zeros(
            len(memory.lengths) * rows, dtype=torch.bool, device=memory.mask.device
        )
        return WordCountState(self.space, self.size, inside)
