"""Options and texts in, what a training begins with out: a language model, and the texts as it sees them."""

from collections.abc import Sequence

import torch

from asr import weights
from asr.errors import ConfigError
from asr.language.perplexity import encoded
from asr.lm_checkpoint import TrainedLm
from asr.model.lm import CharacterLm, LmOptions, WordLm
from asr.tokenizer import Tokenizer, WordTokenizer

Rows = list[list[int]]


def begin(lm: LmOptions, texts: Sequence[str]) -> tuple[TrainedLm, Rows]:
    """A model with random weights (torch's seed) and normalised texts in its tokens, those of the texts."""
    return _new(lm, texts, WordTokenizer.of(texts, lm.words) if lm.words else Tokenizer())


def begin_with(
    given: TrainedLm, lm: LmOptions, texts: Sequence[str]
) -> tuple[TrainedLm, Rows, list[str]]:
    """The same with the tokens of another model and all of its weights that fit, and the names of the other weights.

    Raises ConfigError where one is of words and the other of characters.
    """
    if bool(lm.words) != isinstance(given.tokenizer, WordTokenizer):
        raise ConfigError(f"lm.words is {lm.words}; the model to begin with is of {given.kind}")
    trained, rows = _new(lm, texts, given.tokenizer)
    own = trained.model.state_dict()
    fitting = weights.fitting(given.model.state_dict(), own)
    trained.model.load_state_dict({**own, **fitting})
    return trained, rows, sorted(set(own) - set(fitting))


def _new(
    lm: LmOptions, texts: Sequence[str], tokenizer: Tokenizer | WordTokenizer
) -> tuple[TrainedLm, Rows]:
    rows = [encoded(tokenizer, text) for text in texts]
    if not isinstance(tokenizer, WordTokenizer):
        return TrainedLm(CharacterLm(tokenizer.size, lm), tokenizer, {}), rows
    predicted = torch.tensor([token for row in rows for token in row[1:]])
    counts = torch.bincount(predicted, minlength=tokenizer.size)
    return TrainedLm(WordLm(tokenizer.size, lm, counts), tokenizer, {}), rows
