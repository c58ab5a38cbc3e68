"""Greedy search: a batch's memory in, the locally best token sequence of each utterance out.

Training's validation runs this; a beam must never do worse than it.
"""

from itertools import count

import torch

from asr.decoding.hypothesis import End, History, Hypothesis, empty_hypothesis
from asr.decoding.options import DecodingOptions
from asr.model import Memory, Seq2Seq
from asr.tokenizer import Tokenizer


@torch.inference_mode()
def greedy(
    model: Seq2Seq, memory: Memory, tokenizer: Tokenizer, options: DecodingOptions
) -> list[Hypothesis]:
    """Take the most probable token at each step until eos or the token limit; one hypothesis per utterance.

    Utterances leave the batch when they end. An utterance without memory is not decoded: it has no tokens.
    """
    lengths = memory.lengths.tolist()
    limits = torch.tensor([options.token_limit(n * model.frame_seconds) for n in lengths])
    utterances = torch.tensor([i for i, n in enumerate(lengths) if n > 0], dtype=torch.long)
    history, ends = History(), []
    if len(utterances):
        device = memory.lengths.device
        memory = memory if len(utterances) == len(lengths) else memory.select(utterances.to(device))
        state = model.initial_state(memory)
        tokens = torch.full((len(utterances),), tokenizer.sos, dtype=torch.long, device=device)
    for length in count():
        if not len(utterances):
            break
        log_probs, state = model.step(tokens, memory, state)
        best, tokens = log_probs.float().max(-1)
        ended = (tokens == tokenizer.eos).cpu()
        stop = ended | (limits[utterances] <= length)
        attention, keep = state.attention, (~stop).nonzero().squeeze(1)
        for row in stop.nonzero().squeeze(1).tolist():
            log_prob = float(log_probs[row, tokenizer.eos])
            ends.append(End(int(utterances[row]), length, row, log_prob, bool(ended[row])))
        parents = keep.to(tokens.device)
        if len(keep) < len(stop):
            utterances, tokens, best = utterances[keep], tokens[parents], best[parents]
            memory, state = memory.select(parents), state.select(parents)
        history.push(parents, tokens, best, attention)
    found = [empty_hypothesis() for _ in lengths]
    traced = history.trace(ends, lengths, options, {"attention": 1.0})
    for end, hypothesis in zip(ends, traced, strict=True):
        found[end.utterance] = hypothesis
    return found
