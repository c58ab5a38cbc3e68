"""Sentences and a language model in, how well it predicts them out: per word, per character, unknown words apart."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from asr.model.lm import LanguageModel
from asr.ngram import NgramModel
from asr.tokenizer import Tokenizer

BATCH_CHARACTERS = 16_000


@dataclass(frozen=True)
class Perplexity:
    """Sums over sentences, each with one end; `nats` is minus the log-probability of all of it."""

    sentences: int
    words: int
    characters: int  # single spaces between words included
    nats: float
    unknown: int = 0  # words outside the vocabulary; each is predicted as <unk>, whichever it is
    unknown_nats: float = 0.0

    @property
    def per_word(self) -> float:
        """The perplexity of words and ends, unknown words left out."""
        return _exp(self.nats - self.unknown_nats, self.words - self.unknown + self.sentences)

    @property
    def per_word_with_unknown(self) -> float:
        """The perplexity of words and ends, unknown words counted as <unk>."""
        return _exp(self.nats, self.words + self.sentences)

    @property
    def per_character(self) -> float:
        """The perplexity of characters and ends."""
        return _exp(self.nats, self.characters + self.sentences)

    @property
    def unknown_rate(self) -> float:
        """The share of words outside the vocabulary."""
        return self.unknown / max(1, self.words)


def of_ngrams(model: NgramModel, sentences: Sequence[str]) -> Perplexity:
    """How well an n-gram model predicts normalised sentences."""
    nats = unknown_nats = 0.0
    unknown = 0
    for sentence in sentences:
        state = model.start()
        for word in sentence.split():
            log_prob, state = model.score(state, word)
            nats -= log_prob
            if word not in model:
                unknown += 1
                unknown_nats -= log_prob
        nats -= model.end(state)
    return Perplexity(*_sizes(sentences), nats, unknown, unknown_nats)


@torch.inference_mode()
def of_characters(
    model: LanguageModel, tokenizer: Tokenizer, sentences: Sequence[str]
) -> Perplexity:
    """How well a character model in evaluation mode predicts normalised sentences; it knows every word."""
    rows = sorted((encoded(tokenizer, sentence) for sentence in sentences), key=len)
    nats, begin = 0.0, 0
    while begin < len(rows):
        size = max(1, BATCH_CHARACTERS // len(rows[begin]))
        tokens = padded(rows[begin : begin + size]).to(model.output.weight.device)
        nats += float(loss(model, tokens))
        begin += size
    return Perplexity(*_sizes(sentences), nats)


def encoded(tokenizer: Tokenizer, sentence: str) -> list[int]:
    """A sentence as the model sees it: sos, its characters, eos."""
    return [tokenizer.sos, *tokenizer.encode(sentence), tokenizer.eos]


def padded(rows: Sequence[Sequence[int]]) -> Tensor:
    """Encoded sentences in one tensor (N, L), filled up with pad."""
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[Tokenizer.pad] * (longest - len(row))] for row in rows])


def loss(model: LanguageModel, tokens: Tensor) -> Tensor:
    """Minus the log-probability of padded sentences (N, L), in nats, summed over all characters and ends."""
    log_probs = model(tokens[:, :-1])
    return torch.nn.functional.nll_loss(
        log_probs.flatten(0, 1),
        tokens[:, 1:].flatten(),
        ignore_index=Tokenizer.pad,
        reduction="sum",
    )


def _sizes(sentences: Sequence[str]) -> tuple[int, int, int]:
    words = sum(len(sentence.split()) for sentence in sentences)
    return len(sentences), words, sum(map(len, sentences))


def _exp(nats: float, count: int) -> float:
    return math.exp(nats / count) if count else math.nan
