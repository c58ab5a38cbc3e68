"""Batched beam search: a batch's memory in, the n best token sequences of each utterance out.

All utterances and all their hypotheses are rows of one `model.step` a token; the rows are moved with `select`.
"""

from dataclasses import dataclass
from itertools import count

import torch
from torch import Tensor

from asr.decoding.hypothesis import COVERED, End, History, Hypothesis, empty_hypothesis
from asr.decoding.options import DecodingOptions
from asr.model import Memory, Seq2Seq, State
from asr.tokenizer import Tokenizer

NEVER = float("-inf")


@dataclass(frozen=True)
class _Live:
    """The hypotheses that go on, R = beam_size + 1 rows an utterance.

    The last row is greedy search's path, which no other hypothesis can push out: its score is a floor for the
    beam's. A row that holds nothing has the log probability -inf.
    """

    utterances: Tensor  # (B,) on the CPU: which of the input's utterances
    tokens: Tensor  # (B, R) the last ones
    log_probs: Tensor  # (B, R) summed over the tokens
    covered: Tensor  # (B, R) memory steps read so far
    memory: Memory  # of B * R rows
    state: State  # of B * R rows


@dataclass(frozen=True)
class _Choice:
    """What one step decides: which rows end, and from which row by which token the next rows come."""

    ended: Tensor  # (B, R) eos is among the best
    eos_log_probs: Tensor  # (B, R) of eos alone
    parents: Tensor  # (B, R) rows of the same utterance
    tokens: Tensor  # (B, R)
    log_probs: Tensor  # (B, R) summed over the tokens


class _Finished:
    """The hypotheses that have ended, and whether a better one can still come."""

    def __init__(self, limits: list[int], lengths: list[int], options: DecodingOptions) -> None:
        self.options = options
        self.limits = torch.tensor(limits)
        self.ends: list[list[tuple[float, End]]] = [[] for _ in limits]
        self.greedy: list[End | None] = [None] * len(limits)
        self.count = torch.zeros(len(limits), dtype=torch.long)
        self.best = torch.full((len(limits), options.nbest), NEVER)
        self.floor = torch.full((len(limits),), NEVER)  # best score so far, greedy's included
        # The most that a hypothesis could still gain, and the least that its log probability would be divided by.
        self.gain = options.length_bonus * self.limits + options.coverage_bonus * torch.tensor(
            lengths
        )
        self.normal = ((5 + self.limits) / 6) ** options.length_penalty

    def add(self, live: _Live, choice: _Choice, length: int) -> None:
        """Take in the rows that ended with `length` tokens, and all rows of utterances at their limit."""
        at = live.utterances
        sums = live.log_probs + choice.eos_log_probs
        held = (sums > NEVER).cpu()
        ended = choice.ended.cpu() & held
        stops = ended | ((self.limits[at] <= length)[:, None] & held)
        if not stops.any():
            return
        scores = normalised(sums, length, live.covered, self.options).cpu()
        scores = (scores + self.options.length_bonus * length).masked_fill(~stops, NEVER)
        self.count[at] += stops[:, :-1].sum(1)
        self.best[at] = (
            torch.cat([self.best[at], scores[:, :-1]], 1).topk(self.options.nbest).values
        )
        self.floor[at] = self.floor[at].maximum(scores.max(1).values)
        rows = scores.shape[1]
        for b, row in stops.nonzero().tolist():
            eos = float(choice.eos_log_probs[b, row])
            end = End(int(at[b]), length, b * rows + row, eos, bool(ended[b, row]))
            if row == rows - 1:
                self.greedy[end.utterance] = end
            else:
                self.ends[end.utterance].append((float(scores[b, row]), end))

    def done(self, live: _Live, choice: _Choice, length: int) -> Tensor:
        """Return (B,) True for the utterances whose search is over.

        It is when the limit is reached, or beam_size hypotheses have ended or none that goes on can become one of
        the n best, and greedy's path has ended or cannot become the best.
        """
        at = live.utterances
        possible = choice.log_probs.cpu() / self.normal[at][:, None] + self.gain[at][:, None]
        full = self.count[at] >= self.options.beam_size
        full |= possible[:, :-1].max(1).values <= self.best[at][:, -1]
        return (full & (possible[:, -1] <= self.floor[at])) | (self.limits[at] <= length)

    def leaders(self, utterance: int) -> list[End]:
        """Return the best ends, greedy's among them."""
        best = sorted(self.ends[utterance], key=lambda item: -item[0])[: self.options.nbest]
        greedy = self.greedy[utterance]
        return [end for _, end in best] + ([] if greedy is None else [greedy])


@torch.inference_mode()
def beam(
    model: Seq2Seq, memory: Memory, tokenizer: Tokenizer, options: DecodingOptions
) -> list[list[Hypothesis]]:
    """Search with `options.beam_size` hypotheses an utterance; n-best lists, best first, in the batch's order.

    At each step the beam_size best candidates of an utterance are those with the highest normalised log
    probability; those that are eos end, and the beam is filled up with the next best. The best result never
    scores below greedy's. An utterance without memory is not decoded: it has one hypothesis without tokens.
    """
    lengths = memory.lengths.tolist()
    limits = [options.token_limit(n * model.frame_seconds) for n in lengths]
    finished, history = _Finished(limits, lengths, options), History()
    live = _start(model, memory, tokenizer, options)
    for length in count():
        if not len(live.utterances):
            break
        log_probs, state = model.step(live.tokens.flatten(), live.memory, live.state)
        covered = (state.coverage > COVERED).sum(-1).view_as(live.tokens)
        choice = _choose(live, log_probs.float(), covered, tokenizer.eos, length, options)
        finished.add(live, choice, length)
        keep = (~finished.done(live, choice, length)).nonzero().squeeze(1)
        live = _advance(live, choice, log_probs, covered, state, keep, history)
    ends = [end for utterance in range(len(lengths)) for end in finished.leaders(utterance)]
    found: list[dict[tuple[int, ...], Hypothesis]] = [{} for _ in lengths]
    for end, hypothesis in zip(ends, history.trace(ends, lengths, options), strict=True):
        found[end.utterance][hypothesis.tokens] = hypothesis  # greedy's may be there twice
    ranked = [sorted(distinct.values(), key=lambda h: -h.score) for distinct in found]
    return [best[: options.nbest] or [empty_hypothesis()] for best in ranked]


def normalised(log_probs: Tensor, length: int, covered: Tensor, options: DecodingOptions) -> Tensor:
    """Return the score of hypotheses of one length, without the length bonus that they share."""
    scores = log_probs / ((5 + length) / 6) ** options.length_penalty
    return scores + options.coverage_bonus * covered if options.coverage_bonus else scores


def _start(model: Seq2Seq, memory: Memory, tokenizer: Tokenizer, options: DecodingOptions) -> _Live:
    device, rows = memory.lengths.device, options.beam_size + 1
    utterances = (memory.lengths > 0).nonzero().squeeze(1)
    memory = memory.select(utterances.repeat_interleave(rows))
    shape = (len(utterances), rows)
    log_probs = torch.full(shape, NEVER, device=device)
    log_probs[:, [0, -1]] = 0
    return _Live(
        utterances.cpu(),
        torch.full(shape, tokenizer.sos, device=device),
        log_probs,
        torch.zeros(shape, dtype=torch.long, device=device),
        memory,
        model.initial_state(memory),
    )


def _choose(
    live: _Live, log_probs: Tensor, covered: Tensor, eos: int, length: int, options: DecodingOptions
) -> _Choice:
    """Rank all continuations of all rows: log_probs (B * R, V) of this step to the rows of the next."""
    size, (batch, rows) = options.beam_size, live.tokens.shape
    candidates = live.log_probs[..., None] + log_probs.view(batch, rows, -1)
    ranks = normalised(candidates, length + 1, covered[..., None], options)
    end_ranks = ranks[..., eos].clone()
    ranks[..., eos] = NEVER
    best, index = ranks[:, :size].flatten(1).topk(size)
    bar = torch.cat([best, end_ranks[:, :size]], 1).topk(size).values[:, -1:]
    greedy, greedy_token = ranks[:, size].max(1, keepdim=True)
    vocabulary = candidates.shape[-1]
    parents = torch.cat([index // vocabulary, torch.full_like(greedy_token, size)], 1)
    tokens = torch.cat([index % vocabulary, greedy_token], 1)
    ended = end_ranks >= torch.cat([bar.expand(-1, size), greedy], 1)
    summed = candidates.flatten(1).gather(1, parents * vocabulary + tokens)
    summed[:, size] = summed[:, size].masked_fill(ended[:, size], NEVER)
    return _Choice(ended, log_probs.view(batch, rows, -1)[..., eos], parents, tokens, summed)


def _advance(
    live: _Live,
    choice: _Choice,
    log_probs: Tensor,
    covered: Tensor,
    state: State,
    keep: Tensor,
    history: History,
) -> _Live:
    """Move to the next rows, of the utterances `keep` (B',) only, and note where they came from."""
    batch, rows = choice.parents.shape
    kept = keep.to(choice.parents.device)
    first = (kept * rows)[:, None]
    parents = (first + choice.parents[kept]).flatten()
    tokens = choice.tokens[kept]
    history.push(parents, tokens.flatten(), log_probs[parents, tokens.flatten()], state.attention)
    memory = live.memory
    if len(kept) < batch:
        memory = memory.select((first + torch.arange(rows, device=kept.device)).flatten())
    return _Live(
        live.utterances[keep],
        tokens,
        choice.log_probs[kept],
        covered.flatten()[parents].view(-1, rows),
        memory,
        state.select(parents),
    )
