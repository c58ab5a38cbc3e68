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
    rows = max(map(len, texts), default=0)
    if not rows:
        return [[] for _ in texts]
    padding = tokenizer.encode(" ")[0]  # ends a word, so that scorers have no more to do
    tokens, lengths = _table(texts, rows, padding)
    tokens = tokens.to(memory.lengths.device)
    scorers = search.scorers(model, tokenizer)
    attending = AttentionScorer(model).start(memory, rows)
    others = [
        each.start(memory, rows) for name, (_, each) in scorers.items() if name != "attention"
    ]
    row = torch.arange(len(tokens), device=tokens.device)
    sums = torch.zeros(1 + len(others), len(row), device=tokens.device)
    history, ends = History(), []
    for length, chosen in enumerate(tokens.T):
        scores = torch.stack([state.scores for state in (attending, *others)])
        new = scores[:, row, chosen]
        sums += new
        for at in (index for index, size in enumerate(lengths) if size == length):
            others_sums = tuple(sums[1:, at].tolist())
            ends.append(End(at // rows, length, at, float(new[0, at]), True, others_sums))
        if length == max(lengths):
            break
        history.push(row, chosen, new[0], attending.state.attention)
        after = chosen.where(chosen != Tokenizer.eos, padding)
        attending = attending.advance(row, after)
        others = [state.advance(row, after) for state in others]
    ends.sort(key=lambda end: end.row)
    weights = {name: search.order.weights()[name] for name in scorers}
    found = history.trace(ends, memory.lengths.tolist(), search.order, weights)
    return [found[index * rows : index * rows + len(each)] for index, each in enumerate(texts)]


def _table(texts: Sequence[Sequence[Tokens]], rows: int, padding: int) -> tuple[Tensor, list[int]]:
    """Tokens (B * rows, L + 1), each text with its eos and what follows as `padding`, and the texts' lengths.

    Where an utterance has fewer than `rows` texts, the last rows are empty ones.
    """
    padded = [text for each in texts for text in (*each, *[()] * (rows - len(each)))]
    longest = max(map(len, padded))
    table = [[*text, Tokenizer.eos, *[padding] * (longest - len(text))] for text in padded]
    return torch.tensor(table), [len(text) for text in padded]
