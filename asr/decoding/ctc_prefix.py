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
NOTHING = -1e3  # a log probability whose exponential is 0 and whose sums stay finite


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
    """The forward variables of N = B * R prefixes g over T frames, in float64: log sums lose too much in float32.

    Column t of the forward variables is the state after t frames; column 0 is before the first.
    """

    probs: Tensor  # (B, V, T) of each frame, 0 past the length
    sums: Tensor  # (B, V, T + 1) log probabilities summed over the frames before
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
        probs, sums, ends = self.probs, self.sums, self.ends
        if len(parents) < len(self.last):
            kept = parents[::rows] // rows
            probs, sums, ends = probs[kept], sums[kept], ends[kept]
        repeated = self.last[parents] == tokens  # a blank must come between
        before = torch.where(repeated[:, None], self.blank[parents], self.either[parents])
        utterances = torch.arange(len(tokens), device=tokens.device) // rows
        label = _recurrence(before, sums[utterances, tokens])
        blank = _recurrence(label, sums[:, Tokenizer.blank].repeat_interleave(rows, 0))
        prefix = self.extended[parents, tokens]
        return _state(probs, sums, ends, (tokens, blank, torch.logaddexp(label, blank), prefix))


def start(log_probs: Tensor, lengths: Tensor, rows: int) -> CtcState:
    """The empty prefix before CTC log_probs (B, T, V), valid to `lengths` (B,), `rows` times an utterance."""
    values = log_probs.double().clamp(min=NOTHING).transpose(1, 2)
    values = values.masked_fill(~length_mask(lengths, values.shape[2])[:, None], NOTHING)
    sums = torch.nn.functional.pad(values.cumsum(2), (1, 0))
    blank = sums[:, Tokenizer.blank].repeat_interleave(rows, 0)
    last = torch.full_like(blank[:, 0], Tokenizer.sos, dtype=torch.long)
    return _state(
        values.exp(), sums, lengths[:, None], (last, blank, blank, torch.zeros_like(blank[:, 0]))
    )


def _state(
    probs: Tensor, sums: Tensor, ends: Tensor, prefixes: tuple[Tensor, Tensor, Tensor, Tensor]
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
    return CtcState(probs, sums, ends, last, blank, either, prefix, extended)


def _recurrence(entering: Tensor, sums: Tensor) -> Tensor:
    """Solve r(t) = (r(t - 1) + entering(t - 1)) * p(t), r(0) = 0, in the log domain, for rows (N, T + 1).

    `sums` are the log p summed up to each frame: r(t) / P(t) is the running sum of entering(s) / P(s) for s < t.
    """
    arrived = torch.logcumsumexp(entering[:, :-1] - sums[:, :-1], 1) + sums[:, 1:]
    return torch.nn.functional.pad(arrived, (1, 0), value=NEVER)
