"""Sentences and a language model in, how well it predicts them out: per word, per character, unknown words apart."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from asr.decoding.words import WordModel
from asr.model.lm import LanguageModel
from asr.tokenizer import Tokenizer, WordTokenizer

BATCH_LOG_PROBS = 4_000_000  # at once
MOST_NATS = 700.0  # whose exponential is a number


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
        return perplexity_of(
            self.nats - self.unknown_nats, self.words - self.unknown + self.sentences
        )

    @property
    def per_word_with_unknown(self) -> float:
        """The perplexity of words and ends, unknown words counted as <unk>."""
        return perplexity_of(self.nats, self.words + self.sentences)

    @property
    def per_character(self) -> float:
        """The perplexity of characters and ends."""
        return perplexity_of(self.nats, self.characters + self.sentences)

    @property
    def unknown_rate(self) -> float:
        """The share of words outside the vocabulary."""
        return self.unknown / max(1, self.words)


def of_words(model: WordModel, sentences: Sequence[str]) -> Perplexity:
    """How well n-grams, alone or with an LSTM beside them, predict normalised sentences."""
    known = model.unigrams()
    nats = unknown_nats = 0.0
    unknown = 0
    for sentence in sentences:
        state = model.start()
        for word in sentence.split():
            log_prob, state = model.score(state, word)
            nats -= log_prob
            if word not in known:
                unknown += 1
                unknown_nats -= log_prob
        nats -= model.end(state)
    return Perplexity(*_sizes(sentences), nats, unknown, unknown_nats)


@torch.inference_mode()
def of_lstm(
    model: LanguageModel, tokenizer: Tokenizer | WordTokenizer, sentences: Sequence[str]
) -> Perplexity:
    """How well an LSTM in evaluation mode predicts normalised sentences; one of characters knows every word."""
    rows = sorted((encoded(tokenizer, sentence) for sentence in sentences), key=len, reverse=True)
    unknown = tokenizer.unknown if isinstance(tokenizer, WordTokenizer) else None
    nats, unknown_nats, begin = 0.0, 0.0, 0
    while begin < len(rows):
        size = max(1, BATCH_LOG_PROBS // (tokenizer.size * len(rows[begin])))
        tokens = padded(rows[begin : begin + size]).to(model.embed.weight.device)
        targets = tokens[:, 1:]
        log_probs = model(tokens[:, :-1]).gather(2, targets[..., None])[..., 0]
        nats -= float(log_probs[targets != Tokenizer.pad].sum())
        if unknown is not None:
            unknown_nats -= float(log_probs[targets == unknown].sum())
        begin += size
    count = sum(row.count(unknown) for row in rows) if unknown is not None else 0
    return Perplexity(*_sizes(sentences), nats, count, unknown_nats)


def encoded(tokenizer: Tokenizer | WordTokenizer, sentence: str) -> list[int]:
    """A sentence as the model sees it: sos, its characters or words, eos."""
    return [Tokenizer.sos, *tokenizer.encode(sentence), Tokenizer.eos]


def padded(rows: Sequence[Sequence[int]]) -> Tensor:
    """Encoded sentences in one tensor (N, L), filled up with pad."""
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[Tokenizer.pad] * (longest - len(row))] for row in rows])


def _sizes(sentences: Sequence[str]) -> tuple[int, int, int]:
    words = sum(len(sentence.split()) for sentence in sentences)
    return len(sentences), words, sum(map(len, sentences))


def perplexity_of(nats: float, count: float) -> float:
    """exp(nats / count); infinite where that is too large for a number, NaN where nothing was counted."""
    if not count:
        return math.nan
    return math.exp(nats / count) if nats / count < MOST_NATS else math.inf
