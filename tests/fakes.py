"""Toy models for the search tests: the same `initial_state` and `step` as the real one, small enough to enumerate."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from asr.decoding.hypothesis import rank_score
from asr.decoding.options import DecodingOptions
from asr.model.memory import Memory, length_mask
from asr.tokenizer import Tokenizer

SLOTS = 997


@dataclass(frozen=True)
class ToyState:
    """The whole history as one number per row, so that a row moved wrongly changes every later score."""

    history: Tensor  # (B,)
    attention: Tensor  # (B, U)
    coverage: Tensor  # (B, U)

    def select(self, index: Tensor) -> "ToyState":
        return ToyState(self.history[index], self.attention[index], self.coverage[index])


class ToyModel:
    """Log probabilities and attention drawn once for each history and utterance; `rows` counts rows of `step`."""

    frame_seconds = 0.04

    def __init__(
        self, tokenizer: Tokenizer, *, seed: int = 0, eos_boost: float = 0.0, steps: int = 8
    ) -> None:
        random = torch.Generator().manual_seed(seed)
        logits = 2 * torch.randn(SLOTS, tokenizer.size, generator=random)
        logits[:, tokenizer.eos] += eos_boost
        logits[:, [tokenizer.blank, tokenizer.pad, tokenizer.sos]] = -torch.inf
        self.table = logits.log_softmax(-1)
        self.energies = 3 * torch.randn(SLOTS, steps, generator=random)
        self.rows: list[int] = []

    def memory(self, lengths: Sequence[int]) -> Memory:
        """A memory whose only content is the utterance's number, in `values[:, 0, 0]`."""
        size = max(*lengths, 1)
        values = torch.arange(len(lengths), dtype=torch.float32)[:, None, None].expand(-1, size, 1)
        sizes = torch.tensor(lengths)
        return Memory(values, sizes, values, length_mask(sizes, size))

    def initial_state(self, memory: Memory) -> ToyState:
        seeds = memory.values[:, 0, 0].long() * 131
        return ToyState(seeds, *torch.zeros(2, *memory.mask.shape))

    def step(self, tokens: Tensor, memory: Memory, state: ToyState) -> tuple[Tensor, ToyState]:
        self.rows.append(len(tokens))
        assert len(tokens) == len(memory.lengths) == len(state.history)
        assert (memory.lengths > 0).all()
        history = (state.history * 31 + tokens * 7 + memory.values[:, 0, 0].long()) % SLOTS
        energies = self.energies[history, : memory.mask.shape[1]].masked_fill(
            ~memory.mask, -torch.inf
        )
        weights = energies.softmax(-1)
        return self.table[history], ToyState(history, weights, state.coverage + weights)


class BigramModel(ToyModel):
    """Probabilities of the next token by the last one, as {last: {next: probability}}, of single letters.

    "^" is sos and "$" is eos.
    """

    def __init__(self, tokenizer: Tokenizer, probabilities: dict[str, dict[str, float]]) -> None:
        super().__init__(tokenizer)
        ids = {"^": tokenizer.sos, "$": tokenizer.eos}
        ids |= {letter: tokenizer.encode(letter)[0] for letter in tokenizer.alphabet}
        bigrams = torch.zeros(tokenizer.size, tokenizer.size)
        for last, row in probabilities.items():
            for following, probability in row.items():
                bigrams[ids[last], ids[following]] = probability
        self.bigrams = bigrams.log()

    def step(self, tokens: Tensor, memory: Memory, state: ToyState) -> tuple[Tensor, ToyState]:
        return self.bigrams[tokens], super().step(tokens, memory, state)[1]


@dataclass(frozen=True)
class Scored:
    """One complete token sequence with its exact score."""

    tokens: tuple[int, ...]
    score: float


def follow(
    model: ToyModel,
    memory: Memory,
    utterance: int,
    tokens: Sequence[int],
    tokenizer: Tokenizer,
    options: DecodingOptions,
) -> float:
    """The score of `tokens` for one utterance alone, by definition: one step after the other, then eos."""
    memory = memory.select(torch.tensor([utterance]))
    state, log_probs, rows = model.initial_state(memory), [], []
    for last, chosen in zip([tokenizer.sos, *tokens], [*tokens, tokenizer.eos], strict=True):
        scores, state = model.step(torch.tensor([last]), memory, state)
        log_probs.append(float(scores[0, chosen]))
        rows.append(state.attention[0, : int(memory.lengths[0])])
    attention = torch.stack(rows)[:-1]
    return rank_score(sum(log_probs), attention, options)


def brute_force(
    model: ToyModel, memory: Memory, utterance: int, tokenizer: Tokenizer, options: DecodingOptions
) -> list[Scored]:
    """Every sequence up to the token limit with its score, best first."""
    limit = options.token_limit(int(memory.lengths[utterance]) * model.frame_seconds)
    letters = range(tokenizer.first_character, tokenizer.size)
    every = [y for n in range(limit + 1) for y in product(letters, repeat=n)]
    scored = [Scored(y, follow(model, memory, utterance, y, tokenizer, options)) for y in every]
    return sorted(scored, key=lambda item: -item.score)
