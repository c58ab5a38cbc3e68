"""Batched beam search: a batch's memory in, the n best token sequences of each utterance out.

All utterances and all their hypotheses are rows of one call of each scorer a token; only `advance` moves them.
"""

from dataclasses import dataclass, replace
from itertools import count

import torch
from torch import Tensor

from asr.decoding.finished import NEVER, Choice, Finished, normalised
from asr.decoding.hypothesis import COVERED, History, Hypothesis, empty_hypothesis
from asr.decoding.options import DecodingOptions
from asr.decoding.scorers import AttentionScorer, AttentionState, Scorer, ScorerState
from asr.decoding.search import Search
from asr.model import Memory, Seq2Seq
from asr.tokenizer import Tokenizer


@dataclass(frozen=True)
class _Live:
    """The hypotheses that go on, R = beam_size + 1 rows an utterance.

    The last row is greedy search's path, which no other hypothesis can push out: its score is a floor for the
    beam's. A row that holds nothing has the score -inf.
    """

    utterances: Tensor  # (B,) on the CPU: which of the input's utterances
    totals: Tensor  # (B, R) weighted sum of the parts
    covered: Tensor  # (B, R) memory steps read so far; 0 where there is no bonus for them
    parts: Tensor  # (S, B * R) each scorer's sum over the tokens
    attending: AttentionState
    others: tuple[ScorerState, ...]  # S - 1


@torch.inference_mode()
def beam(
    model: Seq2Seq, memory: Memory, tokenizer: Tokenizer, search: Search
) -> list[list[Hypothesis]]:
    """Search with `beam_size` hypotheses an utterance; n-best lists, best first, in the batch's order.

    At each step the beam_size best candidates of an utterance are those with the highest normalised score; those that
    are eos end, and the beam is filled up with the next best. Those that have ended are put in order by
    `search.order`; without an order of its own, the best result never scores below that of greedy search with the
    same scorers. An utterance without memory is not decoded: it has one hypothesis without tokens. Raises ConfigError
    where the search does not fit the model.
    """
    options, scorers = search.options, search.scorers(model, tokenizer)
    weights = [weight for weight, _ in scorers.values()]
    lengths = memory.lengths.tolist()
    limits = [options.token_limit(n * model.frame_seconds) for n in lengths]
    kept = replace(options, nbest=search.kept)
    finished = Finished(limits, lengths, kept, search.gain, search.charged(tokenizer))
    history = History()
    others = tuple(scorer for name, (_, scorer) in scorers.items() if name != "attention")
    if not any(lengths):
        return [[empty_hypothesis()] for _ in lengths]
    live = _start(AttentionScorer(model), others, memory, options.beam_size + 1)
    for length in count():
        scores = torch.stack([state.scores for state in (live.attending, *live.others)])
        covered = _covered(live, options)
        choice = _choose(live, _joint(scores, weights), covered, length, options)
        finished.add(live.utterances, choice, live.parts, scores[..., Tokenizer.eos], length)
        keep = (~finished.done(live.utterances, choice, length)).nonzero().squeeze(1)
        if not len(keep):
            break
        live = _advance(live, choice, scores, covered, keep, history)
    ends = [end for utterance in range(len(lengths)) for end in finished.leaders(utterance)]
    found: list[dict[tuple[int, ...], Hypothesis]] = [{} for _ in lengths]
    counted = search.order.weights()
    order = {name: counted[name] for name in scorers}
    traced = history.trace(ends, lengths, search.order, order)
    for end, hypothesis in zip(ends, traced, strict=True):
        found[end.utterance][hypothesis.tokens] = hypothesis  # greedy's may be there twice
    ranked = [sorted(distinct.values(), key=lambda h: -h.score) for distinct in found]
    return [best[: options.nbest] or [empty_hypothesis()] for best in ranked]


def _start(
    attention: AttentionScorer, others: tuple[Scorer, ...], memory: Memory, rows: int
) -> _Live:
    device = memory.lengths.device
    utterances = (memory.lengths > 0).nonzero().squeeze(1)
    memory = memory.select(utterances)
    totals = torch.full((len(utterances), rows), NEVER, device=device)
    totals[:, [0, -1]] = 0
    return _Live(
        utterances.cpu(),
        totals,
        torch.zeros_like(totals, dtype=torch.long),
        torch.zeros(1 + len(others), totals.numel(), device=device),
        attention.start(memory, rows),
        tuple(other.start(memory, rows) for other in others),
    )


def _joint(scores: Tensor, weights: list[float]) -> Tensor:
    """Weigh the scores (S, N, V) of the scorers: (N, V); one without weight has no say, its -inf included."""
    joint = torch.zeros_like(scores[0])
    for part, weight in zip(scores, weights, strict=True):
        if weight:
            joint.add_(part, alpha=weight)
    return joint


def _covered(live: _Live, options: DecodingOptions) -> Tensor:
    """Memory steps (B, R) that each row has read, this step's included."""
    if not options.coverage_bonus:
        return live.covered
    return (live.attending.state.coverage > COVERED).sum(-1).view_as(live.covered)


def _choose(
    live: _Live, scores: Tensor, covered: Tensor, length: int, options: DecodingOptions
) -> Choice:
    """Rank all continuations of all rows: scores (B * R, V) of this step to the rows of the next."""
    size, (batch, rows) = options.beam_size, live.totals.shape
    candidates = live.totals[..., None] + scores.view(batch, rows, -1)
    ranks = normalised(candidates, length + 1, covered[..., None], options)
    end_ranks = ranks[..., Tokenizer.eos].clone()
    end_totals = candidates[..., Tokenizer.eos]
    end_scores = normalised(end_totals, length, live.covered, options)
    ranks[..., Tokenizer.eos] = NEVER
    best, index = ranks[:, :size].flatten(1).topk(size)
    bar = torch.cat([best, end_ranks[:, :size]], 1).topk(size).values[:, -1:]
    greedy, greedy_token = ranks[:, size].max(1, keepdim=True)
    vocabulary = candidates.shape[-1]
    parents = torch.cat([index // vocabulary, torch.full_like(greedy_token, size)], 1)
    tokens = torch.cat([index % vocabulary, greedy_token], 1)
    ended = end_ranks >= torch.cat([bar.expand(-1, size), greedy], 1)
    totals = candidates.flatten(1).gather(1, parents * vocabulary + tokens)
    totals[:, size] = totals[:, size].masked_fill(ended[:, size], NEVER)
    return Choice(ended, end_scores, parents, tokens, totals)


def _advance(
    live: _Live, choice: Choice, scores: Tensor, covered: Tensor, keep: Tensor, history: History
) -> _Live:
    """Move to the next rows, of the utterances `keep` (B',) only, and note where they came from."""
    rows = choice.parents.shape[1]
    kept = keep.to(choice.parents.device)
    parents = ((kept * rows)[:, None] + choice.parents[kept]).flatten()
    tokens = choice.tokens[kept].flatten()
    chosen = scores[:, parents, tokens]
    history.push(parents, tokens, chosen[0], live.attending.state.attention)
    return _Live(
        live.utterances[keep],
        choice.totals[kept],
        covered.flatten()[parents].view(-1, rows),
        live.parts[:, parents] + chosen,
        live.attending.advance(parents, tokens),
        tuple(other.advance(parents, tokens) for other in live.others),
    )
