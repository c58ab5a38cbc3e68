"""Toy models for the search tests: the same `initial_state` and `step` as the real one, small enough to enumerate."""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from asr.decoding.hypothesis import rank_score
from asr.decoding.options import DecodingOptions
from asr.model.memory import Memory, length_mask
from asr.phonemes import SIZE
from asr.tokenizer import Tokenizer

SLOTS = 997


def arpa(*words: str) -> str:
    """An ARPA file of unigrams, in which all words are equally likely."""
    lines = ["-1.0\t<unk>", "-99\t<s>", "-1.0\t</s>", *(f"-0.5\t{word}" for word in words)]
    return "\n".join(
        ["\\data\\", f"ngram 1={len(lines)}", "", "\\1-grams:", *lines, "", "\\end\\", ""]
    )


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

    def with_speller(self, memory: Memory) -> Memory:
        """It has none."""
        return memory

    def initial_state(self, memory: Memory) -> ToyState:
        seeds = memory.values[:, 0, 0].long() * 131
        return ToyState(seeds, *torch.zeros(2, *memory.mask.shape))

    def step(self, tokens: Tensor, memory: Memory, state: ToyState) -> tuple[Tensor, ToyState]:
        self.rows.append(len(tokens))
        assert len(tokens) == len(state.history)
        assert (memory.lengths > 0).all()
        memory = memory.select(torch.arange(len(tokens)) * len(memory.lengths) // len(tokens))
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


def follow_all(
    model: ToyModel, memory: Memory, utterance: int, sequences: Tensor
) -> tuple[Tensor, Tensor]:
    """Log probabilities (K, L + 1) and attention (K, L, U) of `sequences` (K, L) for one utterance, by definition."""
    count, length = sequences.shape
    memory = memory.select(torch.full((count,), utterance))
    state, tokens = model.initial_state(memory), torch.full((count,), Tokenizer.sos)
    log_probs, attention = [], [torch.zeros(count, 0, memory.mask.shape[1])]
    for step in range(length + 1):
        scores, state = model.step(tokens, memory, state)
        ended = step == length
        tokens = torch.full((count,), Tokenizer.eos) if ended else sequences[:, step]
        log_probs.append(scores.gather(1, tokens[:, None]))
        if not ended:
            attention.append(state.attention[:, None])
    size = int(memory.lengths[0])
    return torch.cat(log_probs, 1), torch.cat(attention, 1)[..., :size]


def follow(
    model: ToyModel,
    memory: Memory,
    utterance: int,
    tokens: Sequence[int],
    options: DecodingOptions,
) -> float:
    """The score of `tokens` for one utterance alone: one step after the other, then eos."""
    sequences = torch.tensor([tokens], dtype=torch.long)
    log_probs, attention = follow_all(model, memory, utterance, sequences)
    return rank_score(float(log_probs.sum()), attention[0], options)


def brute_force(
    model: ToyModel,
    memory: Memory,
    utterance: int,
    tokenizer: Tokenizer,
    options: DecodingOptions,
    extra: Callable[[Tensor], Tensor | float] = lambda _: 0.0,
) -> list[Scored]:
    """Every sequence up to the token limit with its score, best first; `extra` of sequences (K, L) is added to S(y)."""
    limit = options.token_limit(int(memory.lengths[utterance]) * model.frame_seconds)
    letters = range(tokenizer.first_character, tokenizer.size)
    scored = []
    for length in range(limit + 1):
        every = list(product(letters, repeat=length))
        sequences = torch.tensor(every, dtype=torch.long).view(len(every), length)
        log_probs, attention = follow_all(model, memory, utterance, sequences)
        totals = log_probs.sum(1) * (1 - options.ctc_weight) + extra(sequences)
        for y, total, rows in zip(every, totals.tolist(), attention, strict=True):
            scored.append(Scored(y, rank_score(total, rows, options)))
    return sorted(scored, key=lambda item: -item.score)


class JointToy(ToyModel):
    """A toy model with log probabilities of CTC and of phonemes, drawn once for each utterance."""

    ctc_factor = 2
    ctc = phonemes = "a head"

    def __init__(self, tokenizer: Tokenizer, *, seed: int = 0, eos_boost: float = 0.0) -> None:
        super().__init__(tokenizer, seed=seed, eos_boost=eos_boost)
        random = torch.Generator().manual_seed(seed + 1000)
        logits = 2 * torch.randn(8, 16, tokenizer.size, generator=random)
        logits[..., [tokenizer.pad, tokenizer.sos, tokenizer.eos]] = -torch.inf
        self.frames = logits.log_softmax(-1)
        self.heard = (2 * torch.randn(8, 24, SIZE, generator=random)).log_softmax(-1)

    def phoneme_log_probs(self, memory: Memory) -> tuple[Tensor, Tensor]:
        """(B, F, P) and F, 16 frames more than the memory has steps."""
        return self.heard[memory.values[:, 0, 0].long()], memory.lengths + 16

    def ctc_log_probs(self, memory: Memory) -> Tensor:
        """(B, U * 2, V), with noise past the length as an encoder's padding has it."""
        return self.frames[memory.values[:, 0, 0].long(), : 2 * memory.mask.shape[1]]


@dataclass(frozen=True)
class ToyLmState:
    """The whole history as one number per row."""

    history: Tensor

    def select(self, index: Tensor) -> "ToyLmState":
        return ToyLmState(self.history[index])


class ToyLm:
    """A character language model of random tables, and itself what a search is given: model and tokenizer."""

    def __init__(self, tokenizer: Tokenizer, seed: int = 0) -> None:
        self.model, self.tokenizer = self, tokenizer
        self.table = ToyModel(tokenizer, seed=seed + 2000).table

    def initial_state(self, rows: int) -> ToyLmState:
        return ToyLmState(torch.zeros(rows, dtype=torch.long))

    def step(self, tokens: Tensor, state: ToyLmState) -> tuple[Tensor, ToyLmState]:
        history = (state.history * 29 + tokens * 11) % SLOTS
        return self.table[history], ToyLmState(history)


class ToyWords:
    """A word model of random but fixed numbers whose state is the word before; a is likely, aba is known."""

    unknown = -2.0

    def unigrams(self) -> dict[str, float]:
        return {"a": -0.5, "aba": -2.5, "b": -3.0}

    def start(self) -> str:
        return "<s>"

    def score(self, state: str, word: str) -> tuple[float, str]:
        return -(zlib.crc32(f"{state} {word}".encode()) % 1000) / 250, word

    def scores(self, asked: Sequence[tuple[str, str]]) -> tuple[NDArray[np.float64], list[str]]:
        found = [self.score(*each) for each in asked]
        return np.array([log_prob for log_prob, _ in found]), [after for _, after in found]

    def end(self, state: str) -> float:
        return self.score(state, "</s>")[0]
