"""Sounds without speech, made from a seed: what the benchmarks of this folder put beside and between real speech."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

RATE = 16_000


def white(seconds: float, decibels: float, seed: int) -> Tensor:
    """White noise at an RMS level relative to full scale."""
    return scaled(torch.randn(round(seconds * RATE), generator=seeded(seed)), decibels)


def pink(seconds: float, decibels: float, seed: int) -> Tensor:
    """Noise whose power falls by 3 dB an octave, as that of wind, traffic and rooms does."""
    spectrum = torch.fft.rfft(white(seconds, 0, seed))
    frequency = torch.arange(len(spectrum)).clamp(min=1)
    return scaled(torch.fft.irfft(spectrum / frequency.sqrt(), n=round(seconds * RATE)), decibels)


def tones(seconds: float, decibels: float, seed: int) -> Tensor:
    """Chords of decaying harmonics that change twice a second, as music does."""
    count = math.ceil(seconds * 2)
    time = torch.arange(RATE // 2) / RATE
    notes = 110 * 2 ** (torch.randint(0, 37, (count, 3), generator=seeded(seed)) / 12)
    harmonics = torch.arange(1, 6)[:, None]
    phases = 2 * math.pi * notes[:, :, None, None] * harmonics * time
    sound = (phases.sin() / harmonics).sum((1, 2)) * torch.exp(-3 * time)
    return scaled(sound.flatten()[: round(seconds * RATE)], decibels)


def sweeps(seconds: float, decibels: float, seed: int) -> Tensor:
    """A siren: one tone that glides between 300 and 1500 Hz in a second or so."""
    period = 0.7 + torch.rand(1, generator=seeded(seed)).item()
    time = torch.arange(round(seconds * RATE)) / RATE
    frequency = 900 + 600 * torch.sin(2 * math.pi * time / period)
    return scaled(torch.sin(2 * math.pi * frequency.cumsum(0) / RATE), decibels)


SOUNDS: dict[str, Callable[[float, float, int], Tensor]] = {
    "white": white,
    "tones": tones,
    "pink": pink,
    "sweeps": sweeps,
}


def scaled(waveform: Tensor, decibels: float) -> Tensor:
    """The waveform at an RMS level relative to full scale."""
    return waveform / waveform.square().mean().sqrt() * 10 ** (decibels / 20)


def seeded(seed: int) -> torch.Generator:
    """A generator of random numbers with the seed."""
    return torch.Generator().manual_seed(seed)
