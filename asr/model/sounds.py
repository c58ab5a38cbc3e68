"""What a CTC head hears in, the steps that a speller reads out: a sound a step, instead of a frame.

Frames in which the head is sure of nothing are left out, neighbours with one best label are one step. So a sound has
about as many steps however slowly it is spoken, and what is heard of a text that nobody has spoken can be made up
(asr.training.spelling).
"""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from asr.errors import ConfigError
from asr.model.decoder import DecoderOptions
from asr.model.encoder import EncoderOptions
from asr.options import check_range
from asr.phonemes import BLANK, SIZE

SURE = math.log(0.9)  # log probability of a blank above which a frame holds no sound
LOWEST = 8.0  # nats below certainty at which a phoneme counts as impossible
SCALE = 4.0  # of log probabilities, so that a step's values are of the size of features
WIDTH = SIZE + 2  # of a step: the phonemes, how long nothing was heard before it, how long it lasts


def _encoder() -> EncoderOptions:
    return EncoderOptions(
        subsampling=1, bottom_layers=1, pyramid_levels=0, flat_layers=1, residual=True
    )


@dataclass(frozen=True)
class SpellerOptions:
    """Sizes of the speller: an encoder of sounds and a decoder that attends to it."""

    share: float = (
        0.4  # of its log probabilities in those of the next character, the rest is the decoder's
    )
    encoder: EncoderOptions = field(default_factory=_encoder)
    decoder: DecoderOptions = field(default_factory=DecoderOptions)

    def __post_init__(self) -> None:
        """Refuse what does not fit; raises ConfigError naming the option and what is allowed."""
        check_range(self, "model.speller", ("share",), 0, 1)
        if self.encoder.reduction != 1:
            raise ConfigError(
                f"model.speller.encoder: joins {self.encoder.reduction} sounds; subsampling must be 1, pyramid_levels 0"
            )


def sounds(log_probs: Tensor) -> Tensor:
    """Log probabilities (F, P) of a CTC head over phonemes to sounds (S, WIDTH), float32; S is 0 only where F is."""
    heard = log_probs.float()
    kept = (heard[:, BLANK] < SURE).nonzero()[:, 0]
    if not len(kept):
        kept = torch.arange(min(len(heard), 1), device=heard.device)
    heard, before = heard[kept], kept.diff(prepend=kept.new_tensor([-1]))
    best = heard.argmax(1)
    new = (best != best.roll(1)) | (before > 1)
    new[:1] = True
    step = new.cumsum(0) - 1
    lasting = torch.bincount(step)
    means = heard.new_zeros(len(lasting), SIZE).index_add(0, step, heard.exp()) / lasting[:, None]
    values = (means.clamp(min=math.exp(-LOWEST)).log() + LOWEST) / SCALE
    quiet = (before[new] - 1).float()
    return torch.cat([values, torch.stack([quiet, lasting.float()], 1).log1p()], 1)


def batch_of_sounds(log_probs: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Log probabilities (B, F, P) with frame counts (B,) to sounds (B, S, WIDTH) with their counts (B,)."""
    found = [sounds(row[:n]) for row, n in zip(log_probs, lengths.tolist(), strict=True)]
    counts = lengths.new_tensor([len(item) for item in found])
    batch = pad_sequence(found, batch_first=True)
    # An encoder needs a step, also where no utterance has one.
    return batch if batch.shape[1] else batch.new_zeros(len(found), 1, WIDTH), counts
