"""Finished hypotheses in, the same with what a model's speller says of them out, for their ranking."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from asr.decoding.hypothesis import Hypothesis, length_normal
from asr.decoding.options import DecodingOptions
from asr.decoding.scorers import AttentionScorer
from asr.model import Memory, Seq2Seq
from asr.tokenizer import Tokenizer


def with_speller(
    model: Seq2Seq,
    memory: Memory,
    found: Sequence[Sequence[Hypothesis]],
    weight: float,
    options: DecodingOptions,
) -> list[list[Hypothesis]]:
    """Add `weight` times log P_speller(y, eos) to the S(y) of each utterance's hypotheses, as parts["speller"].

    `options` are those by which they are scored. The model must have a speller.
    """
    spelled = (memory if memory.spelled is not None else model.with_speller(memory)).spelled
    assert model.speller is not None
    assert spelled is not None
    device = spelled.lengths.device
    heard = [i for i, hypotheses in enumerate(found) if hypotheses]
    texts = [[h.tokens for h in found[i]] for i in heard]
    chosen = spelled.select(torch.tensor(heard, device=device))
    sums = iter(log_probs(model.speller, chosen, texts).tolist())
    added = []
    for hypotheses in found:
        scored = zip(hypotheses, next(sums) if hypotheses else (), strict=False)
        added.append([_with(h, part, weight, options) for h, part in scored])
    return added


def _with(
    hypothesis: Hypothesis, part: float, weight: float, options: DecodingOptions
) -> Hypothesis:
    normal = length_normal(len(hypothesis.tokens), options.length_penalty)
    return replace(
        hypothesis,
        score=hypothesis.score + weight * part / normal,
        parts=hypothesis.parts | {"speller": part},
    )


def log_probs(model: Seq2Seq, memory: Memory, texts: Sequence[Sequence[Sequence[int]]]) -> Tensor:
    """What a decoder says of given texts, each with its eos: (B, R) sums of log probabilities.

    An utterance of the memory may have fewer texts than the R of the one with the most; the rest is not said of any.
    """
    rows = max(map(len, texts))
    padded = [text for own in texts for text in [*own, *[()] * (rows - len(own))]]
    ends = torch.tensor([len(text) for text in padded])
    tokens = pad_sequence(
        [torch.tensor([*text, Tokenizer.eos]) for text in padded],
        batch_first=True,
        padding_value=Tokenizer.eos,
    ).to(memory.lengths.device)
    every = torch.arange(len(padded), device=tokens.device)
    state = AttentionScorer(model).start(memory, rows)
    sums = torch.zeros(len(padded))
    for place, column in enumerate(tokens.T):
        said = state.scores[every, column].cpu()
        sums += said.where(place <= ends, 0.0)
        if place + 1 < tokens.shape[1]:
            state = state.advance(every, column)
    return sums.view(len(texts), rows)
