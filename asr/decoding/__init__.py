"""Search: an encoder's memory in, the best token sequences with their scores and attention out.

The search knows a model only by `with_speller`, `initial_state` and `step`, and moves rows of memory and state by
`select`, so that every cell, attention and decoder is searched by the same code.
"""

from asr.decoding.beam import beam
from asr.decoding.first_pass import FirstPass
from asr.decoding.greedy import greedy
from asr.decoding.hotwords import HotWords
from asr.decoding.hypothesis import Hypothesis
from asr.decoding.options import DecodingOptions, Ranking
from asr.decoding.search import Search
from asr.decoding.second_pass import two_passes
from asr.model import Memory, Seq2Seq
from asr.tokenizer import Tokenizer

__all__ = [
    "DecodingOptions",
    "FirstPass",
    "HotWords",
    "Hypothesis",
    "Ranking",
    "Search",
    "beam",
    "decode",
    "greedy",
]


def decode(
    model: Seq2Seq, memory: Memory, tokenizer: Tokenizer, search: Search | DecodingOptions
) -> list[list[Hypothesis]]:
    """Return the n-best hypotheses of each utterance of `memory`, best first, in the batch's order.

    Raises ConfigError where the search does not fit the model.
    """
    if isinstance(search, DecodingOptions):
        search = Search(search)
    if search.options.speller:
        memory = model.with_speller(memory)
    if search.first_pass is not None:
        return two_passes(model, memory, tokenizer, search)
    if search.options.beam_size > 1 or len(search.scorers(model, tokenizer)) > 1:
        return beam(model, memory, tokenizer, search)
    return [[best] for best in greedy(model, memory, tokenizer, search.order)]
