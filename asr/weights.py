"""A network's weights as a file holds them, in 32, 16 or 8 bits, and back as float32; which fit another network."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from asr.errors import ConfigError

BITS = (8, 16, 32)
LARGEST = 127  # of a whole number of 8 bits, the sign apart


def pack(weights: Mapping[str, Tensor], bits: int) -> dict[str, Any]:
    """Weights for a file; ConfigError where `bits` is none of 8, 16 and 32.

    In 8 bits a matrix (R, ...) is whole numbers of -127 to 127 with a scale (R,) for every row, so that no weight
    changes by more than 1 / 254 of the largest of its row; vectors are kept in 16 bits.
    """
    if bits not in BITS:
        raise ConfigError(f"weights in {bits} bits: allowed are {', '.join(map(str, BITS))}")
    return {name: _packed(weight, bits) for name, weight in weights.items()}


def unpack(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """What `pack` gave, as float32; KeyError, AttributeError, TypeError or RuntimeError where it is something else."""
    return {name: _unpacked(value) for name, value in content.items()}


def fitting(weights: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those of `weights` that have the name and the shape of one of a network's `own`."""
    return {
        name: weight
        for name, weight in weights.items()
        if name in own and own[name].shape == weight.shape
    }


def _packed(weight: Tensor, bits: int) -> Any:
    if bits == 32 or not weight.is_floating_point():
        return weight
    if bits == 16 or weight.dim() < 2:
        return weight.half()
    rows = weight.float().flatten(1)
    scales = rows.abs().amax(1).clamp(min=torch.finfo(torch.float32).tiny * LARGEST) / LARGEST
    numbers = (rows / scales[:, None]).round().to(torch.int8)
    return {"numbers": numbers.view(weight.shape), "scales": scales}


def _unpacked(value: Any) -> Tensor:
    if isinstance(value, dict):
        numbers, scales = value["numbers"], value["scales"]
        return (numbers.flatten(1).float() * scales[:, None]).view(numbers.shape)
    weight: Tensor = value.float()
    return weight
