"""N-grams and a word LSTM in, one word model of both out: P(word) = (1 - share) * P_ngram + share * P_lstm.

The LSTM remembers more than the last words and knows which words are alike; n-grams know rare words. The end of a
text is the n-grams' alone: for the LSTM's, it would have to run for every word that a hypothesis might end with.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from asr.decoding.words import Floats, WordModel
from asr.model.lm import LmState, WordLm
from asr.tokenizer import Tokenizer, WordTokenizer

BLOCK = 10_000_000
"""Values in a block of a search's histories: 40 MB, which glibc takes from the system and gives back whole."""


class Histories:
    """What the LSTM makes of the histories of one search, in few large blocks: small ones would break up the heap."""

    def __init__(self, columns: int) -> None:
        self._columns = columns
        self._block = torch.empty(0, columns)
        self._used = 0

    def keep(self, rows: torch.Tensor) -> torch.Tensor:
        """A copy of rows (N, C) that lies in a block."""
        if self._used + len(rows) > len(self._block):
            size = max(len(rows), BLOCK // self._columns)
            self._block, self._used = torch.empty(size, self._columns), 0
        kept = self._block[self._used : self._used + len(rows)]
        kept.copy_(rows)
        self._used += len(rows)
        return kept


class History:
    """The words from the beginning of a text, and what the LSTM makes of them once it has run over them."""

    __slots__ = ("after", "ngram", "norm", "store", "token", "values", "vector")

    def __init__(self, store: Histories, ngram: Any, token: int, values: torch.Tensor) -> None:
        self.store = store  # of the search
        self.ngram = ngram  # the n-grams' state
        self.token = token  # of the last word
        # (C,) hidden values of all layers, then the vector: those before the last word until the LSTM has run over it
        self.values = values
        self.after: dict[str, History] = {}  # by the next word
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
        options = self.lm.options
        columns = 2 * options.layers * options.width + options.embedding
        return History(Histories(columns), self.ngram.start(), Tokenizer.sos, torch.zeros(columns))

    def _evaluate(self, states: Iterable[History]) -> None:
        """Run the LSTM over those histories at once that it has not run over yet, all of one search."""
        new = list({id(state): state for state in states if state.vector is None}.values())
        if not new:
            return
        device, options = self.lm.bias.device, self.lm.options
        with torch.inference_mode():
            tokens = torch.tensor([state.token for state in new], device=device)
            before = torch.stack([state.values for state in new]).to(device)
            hidden = before[:, : -options.embedding].split(options.width, 1)
            vectors, after = self.lm.advance(tokens, LmState(hidden))
            logits = torch.addmm(self.lm.bias[Tokenizer.eos :], vectors, self._columns)
            norms = logits.logsumexp(-1)
            rows = new[0].store.keep(torch.cat([*after.hidden, vectors], 1))
        values = rows[:, -options.embedding :].numpy()
        for row, (state, norm) in enumerate(zip(new, norms.tolist(), strict=True)):
            state.vector, state.norm, state.values = values[row], norm, rows[row]

    def score(self, state: History, word: str) -> tuple[float, History]:
        """See WordModel."""
        log_probs, (after,) = self.scores([(state, word)])
        return float(log_probs[0]), after

    def scores(self, asked: Sequence[tuple[History, str]]) -> tuple[Floats, list[History]]:
        """See WordModel."""
        if not asked:
            return np.zeros(0), []
        self._evaluate(state for state, _ in asked)
        counted, ngrams = self.ngram.scores([(state.ngram, word) for state, word in asked])
        tokens = [self.tokenizer.ids.get(word, WordTokenizer.unknown) for _, word in asked]
        vectors = np.stack([state.vector for state, _ in asked])
        norms = np.array([state.norm for state, _ in asked])
        learnt = np.einsum("ne,ne->n", vectors, self._rows[tokens]) + self._bias[tokens] - norms
        unknown = np.flatnonzero(np.equal(tokens, WordTokenizer.unknown))
        rare = [self._unigrams.get(asked[n][1], self.ngram.unknown) for n in unknown.tolist()]
        learnt[unknown] += np.subtract(rare, self._outside)
        after = []
        for (state, word), ngram, token in zip(asked, ngrams, tokens, strict=True):
            if word not in state.after:
                state.after[word] = History(state.store, ngram, token, state.values)
            after.append(state.after[word])
        return np.logaddexp(counted + self._shares[0], learnt + self._shares[1]), after

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
