"""Sentences in, batches of them as tokens out: what a language model, and a recognizer's decoder alone, learn from."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from asr.batching import epoch_batches
from asr.options import check_range
from asr.tokenizer import Tokenizer, WordTokenizer


@dataclass(frozen=True)
class TextOptions:
    """Texts (.gz or not) or manifests to learn from without their speech."""

    train: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()  # lines of them that are left out: "books.txt.gz:1200-5600"
    batch_tokens: int = 4000  # characters or words of a step, padding included, over all processes

    def __post_init__(self) -> None:
        """Refuse values out of range; raises ConfigError naming the option and what is allowed."""
        check_range(self, "text", ("batch_tokens",), 1)


def encoded(tokenizer: Tokenizer | WordTokenizer, sentence: str) -> list[int]:
    """The tokens of a sentence between sos and eos."""
    return [Tokenizer.sos, *tokenizer.encode(sentence), Tokenizer.eos]


def padded(rows: Sequence[Sequence[int]]) -> Tensor:
    """Encoded sentences in one tensor (N, L), filled up with pad."""
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[Tokenizer.pad] * (longest - len(row))] for row in rows])


def text_batches(
    rows: Sequence[Sequence[int]], options: TextOptions, *, seed: int, epoch: int
) -> list[list[int]]:
    """The batches of an epoch as lists of rows: sentences of about the same length, in an order of their own."""
    lengths = [[len(row)] for row in rows]
    batches = epoch_batches(lengths, batch_frames=options.batch_tokens, seed=seed, epoch=epoch)
    return [[index for index, _ in batch] for batch in batches]


class Texts:
    """Encoded sentences (rows) in batches without end, epoch after epoch; the batch of a step is always the same."""

    def __init__(self, rows: Sequence[Sequence[int]], options: TextOptions, seed: int) -> None:
        self.rows = rows
        self.options = options
        self.seed = seed
        self.epoch = 0
        self.first = 0  # the step with which the epoch begins
        self.batches = text_batches(rows, options, seed=seed, epoch=0)

    def batch(self, step: int) -> list[Sequence[int]]:
        """The rows of a step; steps may only grow."""
        while step - self.first >= len(self.batches):
            self.first += len(self.batches)
            self.epoch += 1
            self.batches = text_batches(self.rows, self.options, seed=self.seed, epoch=self.epoch)
        return [self.rows[index] for index in self.batches[step - self.first]]
