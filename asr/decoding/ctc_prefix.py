"""CTC prefix scores: CTC log probabilities of a batch in, the log probability of every continuation of a prefix out.

CTC knows where the speech is and cannot skip or repeat it; joined to the attention decoder it prevents deletions and
loops (Watanabe et al. 2017, "Hybrid CTC/attention architecture", section II-C; algorithm 2 is what this computes).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from asr.decoding.scorers import kept_utterances
from asr.errors import ConfigError
from asr.model import Memory, Seq2Seq
from asr.model.memory import length_mask
from asr.tokenizer import Tokenizer

NEVER = float("-inf")
MARGIN = 200.0  # nats by which a column may lag behind a prefix's best; see Columns
STEP = 16  # frames by which the columns grow at first
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
class Frames:
    """What CTC says of B utterances over T frames, in float64: log sums lose too much in float32."""

    probs: Tensor  # (B, V, T) of each frame, 0 past the length
    sums: Tensor  # (B, V, T + 1) log probabilities summed over the frames before
    best: Tensor  # (B, T + 1) the same of the likeliest token of each frame
    ends: Tensor  # (B, 1) frame counts

    def select(self, utterances: Tensor) -> "Frames":
        """Those of `utterances` (B',) only."""
        return Frames(*(values[utterances] for values in vars(self).values()))


@dataclass(frozen=True)
class Columns:
    """The stretch of each utterance's frames that matters: column k is the state after `first` + k frames.

    A prefix is likely to end near where it was spoken only. Frames at which it is less likely by exp(-MARGIN) than at
    its best frame, both measured against the likeliest path so far, are in no column, so the cost of a token does not
    grow with the length of a recording. Scores are exact while what follows skips less than MARGIN nats of speech.
    """

    first: Tensor  # (B, 1)
    count: int

    def times(self) -> Tensor:
        """Frames (B, W) before each column's state."""
        return self.first + torch.arange(self.count, device=self.first.device)


@dataclass(frozen=True)
class CtcState:
    """The forward variables of N = B * R prefixes g at the columns of their utterances."""

    frames: Frames
    columns: Columns
    last: Tensor  # (N,) last token of g
    blank: Tensor  # (N, W) log probability of g with a blank as its last frame
    either: Tensor  # (N, W) log probability of g, whatever its last frame
    prefix: Tensor  # (N,) log probability of all texts that begin with g
    extended: Tensor  # (N, V) the same of g and one more token; eos: of g as the whole text

    @property
    def scores(self) -> Tensor:
        """Log probability (N, V) of the next token given g; blank, pad and sos have -inf."""
        # The clamps keep rows of impossible prefixes, which a beam drops, free of NaN.
        return (self.extended - self.prefix[:, None].clamp(min=-1e300)).clamp(max=0).float()

    def advance(self, parents: Tensor, tokens: Tensor) -> "CtcState":
        """The state of the prefixes of rows `parents` (N',) with `tokens` (N',) appended.

        Utterances may have left; those that stay keep their order, and have as many rows each.
        """
        frames, columns = self.frames, self.columns
        kept = kept_utterances(parents, len(self.last), len(frames.ends))
        if len(kept) < len(frames.ends):
            frames, columns = frames.select(kept), Columns(columns.first[kept], columns.count)
        repeated = self.last[parents] == tokens  # a blank must come between
        before = torch.where(repeated[:, None], self.blank[parents], self.either[parents])
        blank, either, columns = _append(before, frames, columns, tokens)
        return _state(frames, columns, tokens, blank, either, self.extended[parents, tokens])


def start(log_probs: Tensor, lengths: Tensor, rows: int) -> CtcState:
    """The empty prefix before CTC log_probs (B, T, V), valid to `lengths` (B,), `rows` times an utterance.

    Raises ConfigError on a device without float64.
    """
    if log_probs.device.type == "mps":
        raise ConfigError("device mps: it has no float64, which CTC in the search needs; use cpu")
    values = log_probs.double().clamp(min=NOTHING).transpose(1, 2)
    values = values.masked_fill(~length_mask(lengths, values.shape[2])[:, None], NOTHING)
    sums = torch.nn.functional.pad(values.cumsum(2), (1, 0))
    best = torch.nn.functional.pad(values.amax(1).cumsum(1), (1, 0))
    frames = Frames(values.exp(), sums, best, lengths[:, None])
    blank = sums[:, Tokenizer.blank].repeat_interleave(rows, 0)
    everywhere = Columns(torch.zeros_like(frames.ends), sums.shape[2])
    columns, kept = _narrowed(blank, frames, everywhere)
    blank = _cut(blank, kept)
    last = torch.full((len(blank),), Tokenizer.sos, device=blank.device)
    return _state(frames, columns, last, blank, blank, torch.zeros_like(blank[:, 0]))


def _append(
    before: Tensor, frames: Frames, columns: Columns, tokens: Tensor
) -> tuple[Tensor, Tensor, Columns]:
    """Append tokens (N,) to prefixes that may take them, `before` (N, W): their blank and either (N, W') at columns."""
    batch, length = len(frames.ends), frames.sums.shape[2]
    utterances = torch.arange(len(tokens), device=tokens.device) // (len(tokens) // batch)
    wider = STEP
    while True:
        wide = Columns(columns.first, columns.count + wider)
        times = wide.times()
        at = times.clamp(max=length - 1)
        past = (times >= length)[utterances]
        entering = torch.nn.functional.pad(before, (0, wider), value=NEVER)
        emitting = frames.sums[utterances[:, None], tokens[:, None], at[utterances]]
        resting = frames.sums[:, Tokenizer.blank].gather(1, at)[utterances]
        label = _recurrence(entering, emitting).masked_fill(past, NEVER)
        blank = _recurrence(label, resting).masked_fill(past, NEVER)
        either = torch.logaddexp(label, blank)
        if not _matters(either, frames, wide)[:, -1].any():
            break
        wider *= 2  # a pause follows: the prefix may end anywhere in it
    columns, kept = _narrowed(either, frames, wide)
    return _cut(blank, kept), _cut(either, kept), columns


def _matters(either: Tensor, frames: Frames, columns: Columns) -> Tensor:
    """Which columns (B, W) are worth computing for some row of their utterance."""
    times = columns.times()
    inside = (times <= frames.ends)[:, None]
    best = frames.best.gather(1, torch.minimum(times, frames.ends))
    ahead = (either.unflatten(0, (len(times), -1)) - best[:, None]).masked_fill(~inside, NEVER)
    peak = ahead.amax(2, keepdim=True).clamp(min=-1e300)
    return ((ahead >= peak - MARGIN) & inside).any(1)


def _narrowed(either: Tensor, frames: Frames, columns: Columns) -> tuple[Columns, Tensor]:
    """The columns that are worth computing, and which (B, W') of the present ones they are."""
    matters = _matters(either, frames, columns)
    at = torch.arange(columns.count, device=matters.device)
    low = torch.where(matters, at, columns.count - 1).amin(1, keepdim=True)
    high = torch.where(matters, at, 0).amax(1, keepdim=True)
    count = int((high - low).max().clamp(min=0)) + 1
    narrow = Columns(columns.first + low, count)
    return narrow, narrow.times() - columns.first


def _cut(values: Tensor, kept: Tensor) -> Tensor:
    """The columns `kept` (B, W') of values (N, W); NEVER past the last."""
    kept = kept.repeat_interleave(len(values) // len(kept), 0)
    inside = kept < values.shape[1]
    return values.gather(1, kept.clamp(max=values.shape[1] - 1)).masked_fill(~inside, NEVER)


def _state(
    frames: Frames, columns: Columns, last: Tensor, blank: Tensor, either: Tensor, prefix: Tensor
) -> CtcState:
    """Complete a state: the sum over t of (g up to frame t - 1) * p_t(c), for all c in one product of matrices."""
    batch, vocabulary, length = frames.probs.shape
    utterances = torch.arange(len(last), device=last.device) // (len(last) // batch)
    times = columns.times()
    at = times.clamp(max=length - 1)[:, None].expand(-1, vocabulary, -1)
    probs = frames.probs.gather(2, at) * (times < length)[:, None]
    peak = either.amax(1, keepdim=True).clamp(min=-1e300)
    weights = (either - peak).exp().unflatten(0, (batch, -1))
    totals = (weights @ probs.transpose(1, 2)).flatten(0, 1)
    repeated = ((blank - peak).exp() * probs[utterances, last]).sum(1, keepdim=True)
    extended = totals.scatter(1, last[:, None], repeated).log() + peak
    extended[:, : Tokenizer.eos] = NEVER
    extended[:, Tokenizer.eos] = _whole(either, frames, columns)[:, 0]
    return CtcState(frames, columns, last, blank, either, prefix, extended)


def _whole(either: Tensor, frames: Frames, columns: Columns) -> Tensor:
    """Log probability (N, 1) of each prefix as the whole text; past the last column it is followed by blanks."""
    at = (frames.ends - columns.first).clamp(0, columns.count - 1)
    resting = frames.sums[:, Tokenizer.blank]
    reached = torch.minimum(columns.first + at, frames.ends)
    rest = resting.gather(1, frames.ends) - resting.gather(1, reached)
    rows = len(either) // len(at)
    return either.gather(1, at.repeat_interleave(rows, 0)) + rest.repeat_interleave(rows, 0)


def _recurrence(entering: Tensor, sums: Tensor) -> Tensor:
    """Solve r(t) = (r(t - 1) + entering(t - 1)) * p(t), r of the first column = 0, in the log domain, for rows (N, W).

    `sums` are the log p summed up to each frame: r(t) / P(t) is the running sum of entering(s) / P(s) for s < t.
    """
    arrived = torch.logcumsumexp(entering[:, :-1] - sums[:, :-1], 1) + sums[:, 1:]
    return torch.nn.functional.pad(arrived, (1, 0), value=NEVER)
