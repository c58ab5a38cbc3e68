"""Two passes: texts that the first one proposes by their sound, put in order by all scorers of a search.

Whatever the decoder, its spelling and CTC say of a text, a beam over characters would have said of it too; but the beam
hears how a word sounds only where it ends, and has lost words by then that the first pass finds.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from asr.decoding.beam import beam
from asr.decoding.first_pass import propose
from asr.decoding.hypothesis import End, History, Hypothesis
from asr.decoding.scorers import AttentionScorer
from asr.decoding.search import Search
from asr.model import Memory, Seq2Seq
from asr.tokenizer import Tokenizer

Tokens = tuple[int, ...]


@torch.inference_mode()
def two_passes(
    model: Seq2Seq, memory: Memory, tokenizer: Tokenizer, search: Search
) -> list[list[Hypothesis]]:
    """The n best hypotheses of each utterance of `memory`, best first, of the beam_size that are proposed.

    The beam takes the place of the first pass where that finds no text, and stands beside it where words are hot: they
    need not be in the dictionary. Raises ConfigError where the search does not fit the model.
    """
    texts = _proposals(model, memory, tokenizer, search)
    proposed = [index for index, each in enumerate(texts) if each]
    searched = [index for index, each in enumerate(texts) if not each or search.boosts]
    found: list[list[Hypothesis]] = [[] for _ in texts]
    if proposed:
        part, given = _part(memory, proposed), [texts[index] for index in proposed]
        for index, hypotheses in zip(
            proposed, follow(model, part, tokenizer, search, given), strict=True
        ):
            found[index] += hypotheses
    if searched:
        whole = replace(search, options=replace(search.options, nbest=search.kept))
        part = _part(memory, searched)
        for index, hypotheses in zip(searched, beam(model, part, tokenizer, whole), strict=True):
            found[index] += hypotheses
    ranked = [sorted(_distinct(each), key=lambda h: -h.score) for each in found]
    return [best[: search.options.nbest] for best in ranked]


def _proposals(
    model: Seq2Seq, memory: Memory, tokenizer: Tokenizer, search: Search
) -> list[list[Tokens]]:
    """The texts of the first pass for each utterance."""
    search.check(model, tokenizer)
    heard = model.phoneme_log_probs(memory)
    assert heard is not None
    assert search.first_pass is not None
    tree, words = search.tree(tokenizer), search.words(tokenizer)
    found = []
    lengths = torch.where(memory.lengths > 0, heard[1], 0).tolist()
    for log_probs, frames in zip(heard[0], lengths, strict=True):
        values = log_probs[:frames].cpu().double().numpy()
        count = search.options.beam_size if frames else 0
        texts = propose(values, tree, words, search.first_pass, count)
        found.append([tuple(tokenizer.encode(text)) for text in texts])
    return found


def _part(memory: Memory, utterances: list[int]) -> Memory:
    return memory.select(torch.tensor(utterances, device=memory.lengths.device))


def _distinct(hypotheses: Sequence[Hypothesis]) -> list[Hypothesis]:
    return list({hypothesis.tokens: hypothesis for hypothesis in hypotheses}.values())


@torch.inference_mode()
def follow(
    model: Seq2Seq,
    memory: Memory,
    tokenizer: Tokenizer,
    search: Search,
    texts: Sequence[Sequence[Tokens]],
) -> list[list[Hypothesis]]:
    """The hypotheses of given texts, of as many for each utterance of `memory` as there are, in their order.

    Every utterance must have memory. Raises ConfigError where the search does not fit the model.
    """
    rows = [(utterance, text) for utterance, each in enumerate(texts) for text in each]
    if not rows:
        return [[] for _ in texts]
    scorers = search.scorers(model, tokenizer)
    attending = AttentionScorer(model).start(memory, 1)
    others = [each.start(memory, 1) for name, (_, each) in scorers.items() if name != "attention"]
    beginnings = _Beginnings(rows, len(texts), tokenizer.encode(" ")[0])
    sums = torch.zeros(len(others), len(rows))
    history, ends = History(), {}
    while beginnings.texts:
        scores = torch.stack([state.scores for state in (attending, *others)])
        at, following = beginnings.following(scores.device)
        gained = scores[:, at, following].cpu()
        sums[:, beginnings.texts] += gained[1:]
        for number, text in enumerate(beginnings.texts):
            if beginnings.length == len(rows[text][1]):
                place, log_prob = int(at[number]), float(gained[0, number])
                end = (rows[text][0], beginnings.length, place, log_prob, True)
                ends[text] = End(*end, tuple(sums[:, text].tolist()))
        parents, tokens = beginnings.grow(scores.device)
        if len(parents):
            history.push(parents, tokens, scores[0, parents, tokens], attending.state.attention)
            attending = attending.advance(parents, tokens)
            others = [state.advance(parents, tokens) for state in others]
    weights = {name: search.order.weights()[name] for name in scorers}
    order = [ends[text] for text in range(len(rows))]
    found = iter(history.trace(order, memory.lengths.tolist(), search.order, weights))
    return [[next(found) for _ in each] for each in texts]


class _Beginnings:
    """Beginnings of the texts of B utterances, token by token: texts that begin alike share a row until they part.

    Every utterance has as many rows; those that it does not need go on with `padding`.
    """

    def __init__(self, rows: Sequence[tuple[int, Tokens]], utterances: int, padding: int) -> None:
        self.length = 0
        self.texts = list(range(len(rows)))  # that have this many tokens, or more
        self._rows, self._padding = rows, padding
        self._width = 1  # rows of each utterance
        self._utterances = utterances
        self._place = [utterance for utterance, _ in rows]  # row of each text

    def following(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """For each of `texts` its row (N,), and the token (N,) that follows there, eos where it ends."""
        at = [self._place[text] for text in self.texts]
        ahead = [self._rows[text][1][self.length : self.length + 1] for text in self.texts]
        tokens = [token for (token,) in (each or (Tokenizer.eos,) for each in ahead)]
        return torch.tensor(at, device=device), torch.tensor(tokens, device=device)

    def grow(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Go on by a token: the rows (N',) that the new rows come from, and their tokens (N',); none at the end."""
        self.texts = [text for text in self.texts if len(self._rows[text][1]) > self.length]
        new: list[dict[tuple[int, int], int]] = [{} for _ in range(self._utterances)]
        for text in self.texts:
            utterance, tokens = self._rows[text]
            branches = new[utterance]
            branches.setdefault((self._place[text], tokens[self.length]), len(branches))
        width = max(map(len, new))
        for text in self.texts:
            utterance, tokens = self._rows[text]
            number = new[utterance][self._place[text], tokens[self.length]]
            self._place[text] = utterance * width + number
        grown = []
        for utterance, branches in enumerate(new):
            unused = (utterance * self._width, self._padding)
            grown += [*branches, *[unused] * (width - len(branches))]
        self._width, self.length = width, self.length + 1
        parents, tokens = torch.tensor(grown, dtype=torch.int64, device=device).view(-1, 2).T
        return parents, tokens
