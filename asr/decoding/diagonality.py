"""How much an attention looks like an alignment: one number to watch while a model learns to read."""

import torch
from torch import Tensor


def diagonality(attention: Tensor) -> float:
    """Return how far attention (L, U) moves from the start to the end, in order and sharply: 0 to 1.

    It is Pearson's correlation of token index and memory position, with the attention itself as their joint
    distribution, and 0 where that is negative. Uniform weights, weights that stay in one place and weights that run
    backwards give 0; a sharp steady ramp gives 1; blur, jumps back and loops lower it. Pauses cost little: read
    speech that is aligned well gives 0.95 and more. Fewer than two tokens or memory steps give 0.
    """
    length, size = attention.shape
    weights = attention.double()
    total = weights.sum()
    if length < 2 or size < 2 or not total > 0:
        return 0.0
    weights = weights / total
    tokens = torch.arange(length, dtype=torch.float64, device=weights.device)
    positions = torch.arange(size, dtype=torch.float64, device=weights.device)
    of_tokens, of_positions = weights.sum(1), weights.sum(0)
    tokens = tokens - of_tokens @ tokens
    positions = positions - of_positions @ positions
    variance = (of_tokens @ tokens.square()) * (of_positions @ positions.square())
    if not variance > 1e-12:
        return 0.0
    return float((tokens @ weights @ positions / variance.sqrt()).clamp(0, 1))
