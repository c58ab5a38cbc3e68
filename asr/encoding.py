"""Waveforms in, what a search reads out: fast speech is given more frames a second, and phonemes are heard three times.

A network that was trained on speech of one rate hears speech of another worse. Speech that is faster than
`model.speaking_rate` gets frames at shorter distances, as if it had been spoken slower, and slower speech at longer
ones. What is heard with frames every `features.hop_ms` tells its rate.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from asr.augment import warped
from asr.features import FeatureOptions, LogMel
from asr.model import Memory, Seq2Seq
from asr.phonemes import BLANK

ADAPTATION = 0.5  # 0: no distance changes, 1: as far as the rates are apart; 0.35 to 0.7 were tried
FURTHEST = 1.5  # milliseconds that a distance may change
GRID = 0.25  # milliseconds to which it is rounded, so that there are few frontends


@dataclass(frozen=True)
class Extracted:
    """What a network is fed of B recordings."""

    features: Tensor  # (B, T, M)
    lengths: Tensor  # (B,) counts of frames
    frame_seconds: list[float]  # of a memory's step, for each recording


@torch.inference_mode()
def extract(model: Seq2Seq, log_mel: LogMel, waveforms: Sequence[Tensor]) -> Extracted:
    """Waveforms (S,) at the features' sample rate to features, at distances that suit the rates of the speech."""
    found = _batch([log_mel.extract(waveform) for waveform in waveforms])
    usual = log_mel.options.hop_ms
    hops = [usual] * len(waveforms)
    if model.options.speaking_rate and model.phonemes is not None:
        rates = speaking_rates(model, *found, usual)
        hops = [_hop(usual, rate, model.options.speaking_rate) for rate in rates]
        frontends = [_frontend(log_mel.options, hop, found[0].device) for hop in hops]
        pairs = zip(frontends, waveforms, strict=True)
        found = _batch([frontend.extract(waveform) for frontend, waveform in pairs])
    return Extracted(*found, [model.frame_seconds * hop / usual for hop in hops])


def speaking_rates(model: Seq2Seq, features: Tensor, lengths: Tensor, hop_ms: float) -> list[float]:
    """Features (B, T, M) with frame counts (B,) to phonemes a second between the first that is heard and the last.

    0 where there are fewer than two. CTC's best path is what is counted.
    """
    log_probs, steps = model.hear(features, lengths)
    rows = zip(log_probs.argmax(-1).cpu(), steps.tolist(), lengths.tolist(), strict=True)
    return [_rate(path[:count], frames * hop_ms / 1000) for path, count, frames in rows]


def _rate(path: Tensor, seconds: float) -> float:
    """Phonemes a second on a best path (F,) through so many seconds."""
    heard = (path != BLANK).nonzero()[:, 0].tolist()
    count = int((path.unique_consecutive() != BLANK).sum())
    return count / ((heard[-1] - heard[0] + 1) / len(path) * seconds) if count > 1 else 0.0


def _hop(usual: float, rate: float, expected: float) -> float:
    """Milliseconds between the frames of speech of that many phonemes a second."""
    if rate == 0:
        return usual
    wanted = usual * (expected / rate) ** ADAPTATION
    nearest: float = round(wanted / GRID) * GRID
    return min(max(nearest, usual - FURTHEST), usual + FURTHEST)


@lru_cache(maxsize=64)
def _frontend(options: FeatureOptions, hop_ms: float, device: torch.device) -> LogMel:
    return LogMel(replace(options, hop_ms=hop_ms)).to(device)


def _batch(features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    lengths = torch.tensor([len(item) for item in features], device=features[0].device)
    return pad_sequence(list(features), batch_first=True), lengths


def encode(
    model: Seq2Seq, features: Tensor, lengths: Tensor, warp: float, options: FeatureOptions
) -> Memory:
    """Features (B, T, M) with frame counts (B,) to a memory.

    With a `warp` the phonemes' log probabilities in it are the mean of those of the recording, and of it with
    frequencies lowered and raised by that share: for vocal tracts longer or shorter than those heard in training.
    """
    memory = model.encode(features, lengths)
    found = model.phoneme_log_probs(memory) if warp else None
    if found is None:
        return memory
    heard = [found[0]]
    for factor in (1 - warp, 1 + warp):
        other = warped(features, torch.tensor([factor]), options)
        heard.append(model.hear(other, lengths)[0])
    return replace(memory, heard=torch.stack(heard).mean(0))
