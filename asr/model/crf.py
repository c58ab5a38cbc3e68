"""CTC-CRF: what CTC gives a text's phonemes, against what it gives all texts, each as likely as a trigram says.

CTC learns p(phonemes | speech), and so much of the language too; a search that adds a language model then counts that
twice. Here the language is in the loss, and the network learns what only speech can tell. Source: Xiang & Ou 2019,
"CRF-based single-stage acoustic modeling with CTC topology"; lattice-free MMI (Povey et al. 2016).
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from asr.phonemes import BLANK, SIZE

BACKOFF = 20.0  # observations that the estimate of a shorter context counts as


class Trigram:
    """How likely a phoneme is after two: `probabilities` (P, P, P).

    BLANK stands for what is before the first, twice, and for the end.
    """

    def __init__(self, sequences: Iterable[Sequence[int]]) -> None:
        places = [(a * SIZE + b) * SIZE + c for said in sequences for a, b, c in _triples(said)]
        counts = torch.zeros(SIZE**3, dtype=torch.float64)
        counts.scatter_add_(
            0, torch.tensor(places, dtype=torch.int64), counts.new_ones(len(places))
        )
        triples = counts.view(SIZE, SIZE, SIZE)
        pairs = triples.sum(0)
        single = pairs.sum(0) + 1
        self.probabilities = _smoothed(triples, _smoothed(pairs, single / single.sum())).float()

    def log_prob(self, said: Sequence[int]) -> float:
        """The log probability of a text's phonemes."""
        return sum(float(self.probabilities[triple].log()) for triple in _triples(said))

    def log_partition(self, log_probs: Tensor, lengths: Tensor) -> Tensor:
        """Log of the sum (B,) over all texts of the trigram times CTC, by log_probs (B, F, P), valid to (B,) frames."""
        device = log_probs.device
        with torch.autocast(device.type, enabled=False):  # bf16 is too coarse for sums over paths
            found: Tensor = _LogPartition.apply(
                log_probs.float(), lengths, self.probabilities.to(device)
            )
        return found


def _triples(said: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    return zip((BLANK, BLANK, *said), (BLANK, *said), (*said, BLANK), strict=False)


def _smoothed(counts: Tensor, shorter: Tensor) -> Tensor:
    return (counts + BACKOFF * shorter) / (counts.sum(-1, keepdim=True) + BACKOFF)


def _parts(trigram: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The trigram's (P, P, P) of a phoneme, (P, P) of the last one once more, (P, P) of the end."""
    enter = trigram.clone()
    enter[:, :, BLANK] = 0
    return enter, torch.diagonal(enter, dim1=1, dim2=2), trigram[:, :, BLANK]


class _LogPartition(torch.autograd.Function):
    """Forward and backward over the last two phonemes (B, P, P), in probabilities that each frame scales to sum to 1.

    In the states `spoken` the last frame says the second of the two, in `silent` nothing. The gradient by a log
    probability is the share of all paths that use it.
    """

    @staticmethod
    def forward(ctx: Any, log_probs: Tensor, lengths: Tensor, trigram: Tensor) -> Tensor:
        heard, (enter, same, ends) = log_probs.exp(), _parts(trigram)
        spoken, silent = heard.new_zeros(2, len(heard), SIZE, SIZE)
        silent[:, BLANK, BLANK] = 1
        states, scales = [(spoken, silent)], []
        for frame in range(heard.shape[1]):
            either = spoken + silent
            entered = torch.einsum("nab,abc->nbc", either, enter)
            again = torch.diag_embed((spoken * same).sum(1))  # only after a blank
            said = (spoken + entered - again) * heard[:, frame, None, :]
            nothing = either * heard[:, frame, BLANK, None, None]
            on = frame < lengths
            scale = torch.where(on, (said + nothing).sum((1, 2)), 1)
            spoken, silent = (
                torch.where(on[:, None, None], new / scale[:, None, None], old)
                for new, old in ((said, spoken), (nothing, silent))
            )
            states.append((spoken, silent))
            scales.append(scale)
        last = ((spoken + silent) * ends).sum((1, 2))
        ctx.save_for_backward(_used(heard, lengths, trigram, states, scales))
        return torch.stack([*scales, last]).log().sum(0)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (used,) = ctx.saved_tensors
        return used * gradients[0][:, None, None], None, None


def _used(
    heard: Tensor,
    lengths: Tensor,
    trigram: Tensor,
    states: Sequence[tuple[Tensor, Tensor]],
    scales: Sequence[Tensor],
) -> Tensor:
    """The share (B, F, P) of all paths that use a label in a frame; `states` and `scales` are of the way forward."""
    enter, same, ends = _parts(trigram)
    used = torch.zeros_like(heard)
    spoken, silent = states[-1]
    from_spoken = from_silent = ends / ((spoken + silent) * ends).sum((1, 2))[:, None, None]
    for frame in reversed(range(heard.shape[1])):
        on = (frame < lengths)[:, None]
        spoken, silent = states[frame + 1]
        shares = (spoken * from_spoken).sum(1)
        shares[:, BLANK] = (silent * from_silent).sum((1, 2))
        used[:, frame] = torch.where(on, shares, 0)
        scale = scales[frame][:, None, None]
        said = from_spoken * heard[:, frame, None, :] / scale
        nothing = from_silent * heard[:, frame, BLANK, None, None] / scale
        entered = torch.einsum("nbc,abc->nab", said, enter)
        again = torch.diagonal(said, dim1=1, dim2=2)[:, None, :] * same
        from_silent = torch.where(on[:, :, None], nothing + entered, from_silent)
        from_spoken = torch.where(on[:, :, None], nothing + entered + said - again, from_spoken)
    return used
