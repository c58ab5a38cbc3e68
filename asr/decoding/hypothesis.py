"""What a search returns, and the back-pointers from which it is read off when the search is over."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from asr.decoding.options import DecodingOptions

BLOCK = 10_000_000
"""Weights in a block of a History: 40 MB, which glibc takes from the system and gives back whole.

Kept one by one among the large tensors of a step, they would break up the heap: peaks were twice as high.
"""

COVERED = 0.5  # total attention above which a memory step counts as read


@dataclass(frozen=True)
class Hypothesis:
    """One token sequence for one utterance, without sos and eos.

    `score` is what the search ranks by (see DecodingOptions and Ranking). `token_log_probs` holds one value per token
    and then eos's: the search's score counts eos also where it had to be forced at the token limit, and `ended` is
    False there. `attention` is (L, U) float32 on the CPU, one row per token, cut to the utterance's own memory length.
    `parts` are the unweighted sums of each scorer, eos included, by name; "attention" is that of token_log_probs.
    An utterance without any audio has no tokens, no log probabilities and ended False.
    """

    tokens: tuple[int, ...]
    score: float
    token_log_probs: tuple[float, ...]
    attention: Tensor
    ended: bool
    parts: dict[str, float] = field(default_factory=dict)


def rank_score(total: float, attention: Tensor, options: DecodingOptions) -> float:
    """Return the score of a finished hypothesis from S(y), as DecodingOptions defines it, and attention (L, U)."""
    length = attention.shape[0]
    covered = int((attention.sum(0) > COVERED).sum())
    normal = ((5 + length) / 6) ** options.length_penalty
    return total / normal + options.length_bonus * length + options.coverage_bonus * covered


@dataclass(frozen=True)
class End:
    """The place in a History where a hypothesis ended: row `row` of the `length`-th step."""

    utterance: int
    length: int
    row: int
    log_prob: float  # of eos
    ended: bool  # False: eos was forced at the token limit
    others: tuple[float, ...] = ()  # sums of the scorers after attention, eos included


@dataclass
class History:
    """Back-pointers of a search: which row each row came from, by which token, looking where.

    Entry l of each list belongs to the l-th token: `parents` (N',) rows of the model call that chose it, `tokens` and
    `log_probs` (N',) what was chosen, `attention` (N, U) of that call. Rows come and go between entries.
    """

    parents: list[Tensor] = field(default_factory=list)
    tokens: list[Tensor] = field(default_factory=list)
    log_probs: list[Tensor] = field(default_factory=list)
    attention: list[Tensor] = field(default_factory=list)
    _free: Tensor = field(default_factory=lambda: torch.empty(0))

    def push(self, parents: Tensor, tokens: Tensor, log_probs: Tensor, attention: Tensor) -> None:
        """Append one token to the hypotheses that go on."""
        self.parents.append(parents)
        self.tokens.append(tokens)
        self.log_probs.append(log_probs)
        self.attention.append(self._kept(attention))

    def _kept(self, attention: Tensor) -> Tensor:
        size = attention.numel()
        if size > len(self._free):
            self._free = attention.new_empty(max(size, BLOCK))
        kept, self._free = self._free[:size].view_as(attention), self._free[size:]
        return kept.copy_(attention)

    def trace(
        self,
        ends: Sequence[End],
        lengths: Sequence[int],
        options: DecodingOptions,
        weights: dict[str, float],
    ) -> list[Hypothesis]:
        """Return the hypotheses that stopped at `ends`.

        `lengths` are the memory lengths by utterance, `weights` those of the scorers by name, in their order.
        """
        parents = [p.tolist() for p in self.parents]
        tokens = [t.tolist() for t in self.tokens]
        log_probs = [p.tolist() for p in self.log_probs]
        attention = [a.float().cpu() for a in self.attention]
        found = []
        for end in ends:
            row, path = end.row, []
            for step in reversed(range(end.length)):
                parent = parents[step][row]
                path.append((tokens[step][row], log_probs[step][row], attention[step][parent]))
                row = parent
            path.reverse()
            size = lengths[end.utterance]
            rows = torch.stack([a[:size] for _, _, a in path]) if path else torch.zeros(0, size)
            chosen = (*(p for _, p, _ in path), end.log_prob)
            parts = dict(zip(weights, (sum(chosen), *end.others), strict=True))
            total = sum(weight * parts[name] for name, weight in weights.items() if weight)
            score, words = rank_score(total, rows, options), tuple(t for t, _, _ in path)
            found.append(Hypothesis(words, score, chosen, rows, end.ended, parts))
        return found


def empty_hypothesis() -> Hypothesis:
    """Return the hypothesis of an utterance without audio."""
    return Hypothesis((), 0.0, (), torch.zeros(0, 0), False)
