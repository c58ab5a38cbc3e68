"""Features in, what a search reads out; phonemes are heard three times, as if speakers of other sizes had spoken."""

from dataclasses import replace

import torch
from torch import Tensor

from asr.augment import warped
from asr.features import FeatureOptions
from asr.model import Memory, Seq2Seq


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
