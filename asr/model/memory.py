"""What the encoder hands to the decoder: a value that can be indexed, expanded and shrunk along the batch."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Memory:
    """An encoded batch; rows past an utterance's length are zero and masked."""

    values: Tensor  # (B, U, D)
    lengths: Tensor  # (B,) integer count of valid steps
    keys: Tensor  # (B, U, A) the values as the attention compares them, computed once
    mask: Tensor  # (B, U) True where valid
    first: Tensor | None = None  # (B, U', D) the encoder's first layer, where phonemes are heard
    first_lengths: Tensor | None = None  # (B,)
    heard: Tensor | None = (
        None  # (B, U', P) phonemes' log probabilities, where they are known without `first`
    )
    spelled: "Memory | None" = None  # what a speller attends to (Seq2Seq.with_speller)

    def select(self, index: Tensor) -> "Memory":
        """The memory with batch rows `index` (N,), in that order; a row may appear many times."""
        chosen: dict[str, Any] = {
            name: value.select(index) if isinstance(value, Memory) else value[index]
            for name, value in vars(self).items()
            if value is not None
        }
        return replace(self, **chosen)


def length_mask(lengths: Tensor, size: int) -> Tensor:
    """Lengths (B,) to a mask (B, size), True at the valid positions."""
    return torch.arange(size, device=lengths.device) < lengths[:, None]
