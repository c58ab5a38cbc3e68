"""CTC prefix scores: CTC log probabilities of a batch in, the log probability of every continuation of a prefix out.

CTC knows where the speech is and cannot skip or repeat it; joined to the attention decoder it prevents deletions and
loops (Watanabe et al. 2017, "Hybrid CTC/attention architecture", section II-C; algorithm 2 is what this computes).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from asr.model import Memory, Seq2Seq
from asr.model.memory import length_mask
from asr.tokenizer import Tokenizer

NEVER = float("-inf")
NOTHING = (
    -40.0
)  # as small as a log probability gets: the sum over a block keeps its exponential above 0
BLOCK = 16  # frames


@dataclass(frozen=True)
class Products:
    """Products of the probabilities p of one token over frames, in blocks: what a recurrence over time needs."""

    within: Tensor  # (..., T / BLOCK, BLOCK) product of p from the start of the block to each frame
    before: Tensor  # (..., T / BLOCK, BLOCK) 1 / the product up to the frame before
    blocks: Tensor  # (..., T / BLOCK) log of the product of p up to the end of each block

    def select(self, *index: Tensor) -> "Products":
        """The products of rows `index`."""
        return Products(self.within[index], self.before[index], self.blocks[index])


@dataclass(frozen=True)
class CtcScorer:
    """Start CTC prefix scores for the memories of one model, which has a CTC head."""

    model: Seq2Seq

    def start(self, memory: Memory, rows: int) -> "CtcState":
        """The state of the empty prefix, `rows` times for each utterance of `memory`."""
        log_probs = self.model.ctc_log_probs(memory)
        assert log_probs is not None
        return start(log_probs, memory.lengths * self.model.ctc_factor, rows)


@dataclass(frozen=True)
class CtcState:
    """The forward variables of N = B * R prefixes g over T frames, in float64: long products lose too much in float32.

    Column t of the forward variables is the state after t frames; column 0 is before the first.
    """

    probs: Tensor  # (B, V, T) of each frame, 0 past the length
    products: Products  # of (B, V)
    ends: Tensor  # (B, 1) frame counts
    last: Tensor  # (N,) last token of g
    blank: Tensor  # (N, T + 1) log probability of g with a blank as its last frame
    either: Tensor  # (N, T + 1) log probability of g, whatever its last frame
    prefix: Tensor  # (N,) log probability of all texts that begin with g
    extended: Tensor  # (N, V) the same of g and one more token; eos: of g as the whole text

    @property
    def scores(self) -> Tensor:
        """Log probability (N, V) of the next token given g; blank, pad and sos have -inf."""
        # The clamps keep rows of impossible prefixes, which a beam drops, free of NaN.
        return (self.extended - self.prefix[:, None].clamp(min=-1e300)).clamp(max=0).float()

    def advance(self, parents: Tensor, tokens: Tensor) -> "CtcState":
        """The state of the prefixes of rows `parents` (N',) with `tokens` (N',) appended.

        Utterances may have left, but each that stays keeps its R rows and its place.
        """
        rows = len(self.last) // len(self.ends)
        probs, products, ends = self.probs, self.products, self.ends
        if len(parents) < len(self.last):
            kept = parents[::rows] // rows
            probs, products, ends = probs[kept], products.select(kept), ends[kept]
        repeated = self.last[parents] == tokens  # a blank must come between
        before = torch.where(repeated[:, None], self.blank[parents], self.either[parents])
        utterances = torch.arange(len(tokens), device=tokens.device) // rows
        blanks = torch.full_like(tokens, Tokenizer.blank)
        label = _recurrence(before, products.select(utterances, tokens))
        blank = _recurrence(label, products.select(utterances, blanks))
        prefix = self.extended[parents, tokens]
        return _state(probs, products, ends, (tokens, blank, torch.logaddexp(label, blank), prefix))


def start(log_probs: Tensor, lengths: Tensor, rows: int) -> CtcState:
    """The empty prefix before CTC log_probs (B, T, V), valid to `lengths` (B,), `rows` times an utterance."""
    values = torch.nn.functional.pad(
        log_probs.double().clamp(min=NOTHING).transpose(1, 2),
        (0, -log_probs.shape[1] % BLOCK),
        value=NOTHING,
    )
    blank = torch.nn.functional.pad(values[:, Tokenizer.blank].cumsum(1), (1, 0))
    blank = blank.repeat_interleave(rows, 0)
    last = torch.full_like(blank[:, 0], Tokenizer.sos, dtype=torch.long)
    probs = values.exp() * length_mask(lengths, values.shape[2])[:, None]
    prefixes = (last, blank, blank, torch.zeros_like(blank[:, 0]))
    return _state(probs, _products(values), lengths[:, None], prefixes)


def _products(log_probs: Tensor) -> Products:
    sums = log_probs.unflatten(-1, (-1, BLOCK)).cumsum(-1)
    before = torch.nn.functional.pad(-sums[..., :-1], (1, 0))
    return Products(sums.exp(), before.exp(), sums[..., -1].cumsum(-1))


def _state(
    probs: Tensor,
    products: Products,
    ends: Tensor,
    prefixes: tuple[Tensor, Tensor, Tensor, Tensor],
) -> CtcState:
    """Complete a state: the sum over t of (g up to frame t - 1) * p_t(c), for all c in one product of matrices."""
    last, blank, either, prefix = prefixes
    batch, rows = len(ends), len(last) // len(ends)
    peak = either.amax(1, keepdim=True).clamp(min=-1e300)
    weights = (either[:, :-1] - peak).exp().view(batch, rows, -1)
    totals = (weights @ probs.transpose(1, 2)).view(len(last), -1)
    utterances = torch.arange(len(last), device=last.device) // rows
    repeated = ((blank[:, :-1] - peak).exp() * probs[utterances, last]).sum(1, keepdim=True)
    extended = totals.scatter(1, last[:, None], repeated).log() + peak
    extended[:, : Tokenizer.eos] = NEVER
    ended = either.gather(1, ends.repeat_interleave(rows, 0))
    extended[:, Tokenizer.eos : Tokenizer.eos + 1] = ended
    return CtcState(probs, products, ends, last, blank, either, prefix, extended)


def _recurrence(entering: Tensor, products: Products) -> Tensor:
    """Solve r(t) = (r(t - 1) + entering(t - 1)) * p(t), r(0) = 0, for rows (N, T + 1) in the log domain.

    With P the product of p so far, r(t) / P(t) is the running sum of entering(s) / P(s) for s < t. P becomes too
    small for that sum to be taken over all frames outside the log domain, where it is slow: it is taken within
    blocks, relative to each block's largest term, and in the log domain only from block to block.
    """
    terms = entering[:, :-1].unflatten(1, (-1, BLOCK))
    peak = terms.amax(2).clamp(min=-1e300)
    inside = ((terms - peak[..., None]).exp() * products.before).cumsum(2) * products.within
    arrived = inside[..., -1].log() + peak - products.blocks
    carry = torch.logcumsumexp(arrived, 1) + products.blocks  # r at the end of each block
    carry = torch.nn.functional.pad(carry[:, :-1], (1, 0), value=NEVER)
    top = torch.maximum(peak, carry)
    inside = (
        inside * (peak - top).exp()[..., None] + products.within * (carry - top).exp()[..., None]
    )
    solved = (inside.log() + top[..., None]).flatten(1)
    return torch.nn.functional.pad(solved, (1, 0), value=NEVER)
