"""The hypotheses of a beam that have ended: which are the best, and whether a better one can still come."""

from dataclasses import dataclass

import torch
from torch import Tensor

from asr.decoding.hypothesis import End
from asr.decoding.options import DecodingOptions

NEVER = float("-inf")


@dataclass(frozen=True)
class Choice:
    """What one step decides: which rows end, and from which row by which token the next rows come."""

    ended: Tensor  # (B, R) eos is among the best
    end_scores: Tensor  # (B, R) normalised score with eos, without the length bonus
    parents: Tensor  # (B, R) rows of the same utterance
    tokens: Tensor  # (B, R)
    totals: Tensor  # (B, R) score with those tokens


class Finished:
    """Ends of each utterance of a batch; the last of an utterance's rows is greedy search's path."""

    def __init__(
        self,
        limits: list[int],
        lengths: list[int],
        options: DecodingOptions,
        gain: float,
        charged: float = 0.0,
    ) -> None:
        """Expect up to `limits` tokens.

        `gain` is the most that a token can add to the score, length bonus aside, and `charged` the most that a
        hypothesis gets back of what it was charged in advance.
        """
        self.options = options
        self.limits = torch.tensor(limits)
        self.ends: list[list[tuple[float, End]]] = [[] for _ in limits]
        self.greedy: list[End | None] = [None] * len(limits)
        self.count = torch.zeros(len(limits), dtype=torch.long)
        self.best = torch.full((len(limits), options.nbest), NEVER)
        self.floor = torch.full((len(limits),), NEVER)  # best score so far, greedy's included
        # The most that a hypothesis could still gain, and the least that its score would be divided by.
        self.gain = (options.length_bonus + gain) * self.limits + charged
        self.gain = self.gain + options.coverage_bonus * torch.tensor(lengths)
        self.normal = ((5 + self.limits) / 6) ** options.length_penalty

    def add(
        self, at: Tensor, choice: Choice, parts: Tensor, eos_scores: Tensor, length: int
    ) -> None:
        """Take in the rows that ended with `length` tokens, and all rows of utterances at their limit.

        `at` (B,) are the utterances, `parts` (S, B * R) each scorer's sum so far, `eos_scores` (S, B * R) of eos.
        """
        scores = choice.end_scores.cpu() + self.options.length_bonus * length
        held = scores > NEVER
        ended = choice.ended.cpu() & held
        stops = ended | ((self.limits[at] <= length)[:, None] & held)
        if not stops.any():
            return
        scores = scores.masked_fill(~stops, NEVER)
        self.count[at] += stops[:, :-1].sum(1)
        self.best[at] = (
            torch.cat([self.best[at], scores[:, :-1]], 1).topk(self.options.nbest).values
        )
        self.floor[at] = self.floor[at].maximum(scores.max(1).values)
        rows, sums, log_probs = scores.shape[1], (parts + eos_scores).T.tolist(), eos_scores[0]
        for b, row in stops.nonzero().tolist():
            at_row = b * rows + row
            others, log_prob = tuple(sums[at_row][1:]), float(log_probs[at_row])
            end = End(int(at[b]), length, at_row, log_prob, bool(ended[b, row]), others)
            if row == rows - 1:
                self.greedy[end.utterance] = end
            else:
                self.ends[end.utterance].append((float(scores[b, row]), end))

    def done(self, at: Tensor, choice: Choice, length: int) -> Tensor:
        """Return (B,) True for the utterances whose search is over.

        It is when the limit is reached, or beam_size hypotheses have ended or none that goes on can become one of
        the n best, and greedy's path has ended or cannot become the best.
        """
        possible = choice.totals.cpu() / self.normal[at][:, None] + self.gain[at][:, None]
        full = self.count[at] >= self.options.beam_size
        full |= possible[:, :-1].max(1).values <= self.best[at][:, -1]
        return (full & (possible[:, -1] <= self.floor[at])) | (self.limits[at] <= length)

    def leaders(self, utterance: int) -> list[End]:
        """Return the best ends, greedy's among them."""
        best = sorted(self.ends[utterance], key=lambda item: -item[0])[: self.options.nbest]
        greedy = self.greedy[utterance]
        return [end for _, end in best] + ([] if greedy is None else [greedy])


def normalised(totals: Tensor, length: int, covered: Tensor, options: DecodingOptions) -> Tensor:
    """Return the score of hypotheses of one length, without the length bonus that they share."""
    scores = totals / ((5 + length) / 6) ** options.length_penalty
    return scores + options.coverage_bonus * covered if options.coverage_bonus else scores
