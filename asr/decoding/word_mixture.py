"""N-grams and a word LSTM in, one word model of both out: P(word) = (1 - share) * P_ngram + share * P_lstm.

The LSTM remembers more than the last words and knows which words are alike; n-grams know rare words. The end of a
text is the n-grams' alone: for the LSTM's, it would have to run for every word that a hypothesis might end with.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch

from asr.decoding.words import WordModel
from asr.model.lm import LmState, WordLm
from asr.tokenizer import Tokenizer, WordTokenizer


class History:
    """The words from the beginning of a text, and what the LSTM makes of them once it has run over them."""

    __slots__ = ("after", "before", "hidden", "ngram", "norm", "token", "vector")

    def __init__(self, ngram: Any, token: int, before: tuple[torch.Tensor, ...]) -> None:
        self.ngram = ngram  # the n-grams' state
        self.token = token  # of the last word
        self.before = before  # (width,) each: the LSTM's hidden values before it
        self.after: dict[str, History] = {}  # by the next word
        self.hidden: tuple[torch.Tensor, ...] = ()
        self.vector: Any = (
            None  # (E,) float32 of NumPy: its product with a word's row gives the word's logit
        )
        self.norm = 0.0


class WordMixture:
    """Both models as one WordModel; its states are `History`."""

    def __init__(
        self, ngram: WordModel, lm: WordLm, tokenizer: WordTokenizer, share: float
    ) -> None:
        """`share`, from 0 to 1 without them, is the LSTM's. Its unknown words share its <unk> as their unigrams do."""
        self.ngram, self.lm, self.tokenizer = ngram, lm, tokenizer
        self._shares = math.log(1 - share), math.log(share)
        self._rows = lm.embed.weight.detach().float().cpu().numpy()
        self._bias = lm.bias.detach().float().cpu().numpy()
        # As columns side by side: with few histories at a time, several times faster than with rows.
        self._columns = lm.embed.weight.detach()[Tokenizer.eos :].T.contiguous()
        self._unigrams = ngram.unigrams()
        outside = [p for word, p in self._unigrams.items() if word not in tokenizer.ids]
        self._outside = float(np.logaddexp.reduce([*outside, ngram.unknown]))

    def start(self) -> History:
        """See WordModel."""
        hidden = tuple(h[0] for h in self.lm.initial_state(1).hidden)
        return History(self.ngram.start(), Tokenizer.sos, hidden)

    def evaluate(self, states: Iterable[History]) -> None:
        """Run the LSTM over those histories at once that it has not run over yet."""
        new = list({id(state): state for state in states if state.vector is None}.values())
        if not new:
            return
        with torch.inference_mode():
            tokens = torch.tensor([state.token for state in new], device=self.lm.bias.device)
            before = LmState(
                tuple(torch.stack(h) for h in zip(*(s.before for s in new), strict=True))
            )
            vectors, after = self.lm.advance(tokens, before)
            logits = torch.addmm(self.lm.bias[Tokenizer.eos :], vectors, self._columns)
            norms = logits.logsumexp(-1)
        values = vectors.float().cpu().numpy()
        for row, (state, norm) in enumerate(zip(new, norms.tolist(), strict=True)):
            state.vector, state.norm = values[row], norm
            state.hidden = tuple(h[row] for h in after.hidden)
            state.before = ()

    def score(self, state: History, word: str) -> tuple[float, History]:
        """See WordModel."""
        self.evaluate([state])
        counted, ngram = self.ngram.score(state.ngram, word)
        token = self.tokenizer.ids.get(word, WordTokenizer.unknown)
        learnt = float(state.vector @ self._rows[token]) + float(self._bias[token]) - state.norm
        if token == WordTokenizer.unknown:
            learnt += self._unigrams.get(word, self.ngram.unknown) - self._outside
        if word not in state.after:
            state.after[word] = History(ngram, token, state.hidden)
        both = counted + self._shares[0], learnt + self._shares[1]
        return max(both) + math.log1p(math.exp(min(both) - max(both))), state.after[word]

    def end(self, state: History) -> float:
        """See WordModel."""
        return self.ngram.end(state.ngram)

    def unigrams(self) -> Mapping[str, float]:
        """See WordModel."""
        return self._unigrams

    @property
    def unknown(self) -> float:
        """See WordModel."""
        return self.ngram.unknown

    def __contains__(self, word: object) -> bool:
        """Whether the n-grams know a word."""
        return word in self._unigrams
