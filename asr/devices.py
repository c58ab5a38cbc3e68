"""The machine that a model runs on: a device's name checked, its fast arithmetic, and memory kept flat."""

import ctypes
import os
from collections.abc import Callable
from functools import cache
from typing import cast

import torch
from torch import nn

from asr.errors import ConfigError


def checked_device(device: str) -> torch.device:
    """The device of that name. Raises ConfigError where it is unknown or not to be had here."""
    try:
        place = torch.device(device)
    except RuntimeError:
        place = torch.device("meta")
    if place.type not in ("cpu", "cuda", "mps"):
        raise ConfigError(f"device {device!r} is not known; use cpu, cuda, cuda:0 or mps")
    if place.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device {device!r}: torch finds no CUDA GPU here; use cpu")
    if place.type == "cuda" and (place.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise ConfigError(f"device {device!r}: torch finds {count} CUDA GPU(s) here")
    if place.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError(f"device {device!r}: torch finds no Apple GPU here; use cpu")
    return place


def multiplies_bf16(device: torch.device) -> bool:
    """Whether matrix products in bf16 are faster there than in float32.

    True for GPUs that know bf16 and for CPUs with instructions for its products (AMX, AVX512-BF16); any other CPU is
    slower in it.
    """
    if device.type == "cuda":
        with torch.cuda.device(device):
            return torch.cuda.is_bf16_supported(including_emulation=False)
    names = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    known = [getattr(torch.cpu, name, None) for name in names]
    return device.type == "cpu" and any(bool(ask()) for ask in known if ask is not None)


def has_bf16_kernels(model: nn.Module) -> bool:
    """Whether torch can train the recurrent layers in bf16 on a CPU: oneDNN refuses small ones on some chips."""
    try:
        with torch.autocast("cpu", torch.bfloat16), torch.enable_grad():  # as in training
            for rnn in model.modules():
                if isinstance(rnn, nn.RNNBase):
                    rnn(torch.zeros(2, 3, rnn.input_size))
    except RuntimeError:
        return False
    return True


def trains_in_bf16(model: nn.Module, device: torch.device) -> bool:
    """Whether bf16 trains a model faster there, and the device has what the model needs for it."""
    return multiplies_bf16(device) and (device.type != "cpu" or has_bf16_kernels(model))


def limit_caches() -> None:
    """Have oneDNN keep what it prepares for 32 operations, not for 1,024, unless the environment says otherwise.

    Each length of a batch has operations of its own, so that the usual cache grows for hours (by about 150 MB in the
    first) and is never asked. Works where nothing has been computed yet.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "32")


def give_memory_back() -> None:
    """Return freed memory to the system: glibc would keep what batches of ever new sizes leave."""
    _trim()(0)


@cache
def _trim() -> Callable[[int], int]:
    try:
        return cast(Callable[[int], int], ctypes.CDLL(None).malloc_trim)
    except (AttributeError, OSError, TypeError):  # only glibc has it
        return lambda _: 0
