"""The last tokens in, log-probabilities of the next one out: a character LSTM language model without a memory.

Its vocabulary is the recognizer's, its sentences begin with sos and end with eos as the decoder's do, and its state is
a value like the decoder's: a search moves its rows with `select`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from asr.options import check_range
from asr.tokenizer import Tokenizer


@dataclass(frozen=True)
class LmOptions:
    """Sizes of the language model."""

    embedding: int = 64  # width of a token's vector
    width: int = 512  # units of a layer
    layers: int = 1
    dropout: float = 0.0  # on embeddings, between the layers and on the last one's output

    def __post_init__(self) -> None:
        check_range(self, "lm", ("embedding", "width", "layers"), 1)
        check_range(self, "lm", ("dropout",), 0, 1)


@dataclass(frozen=True)
class LmState:
    """All that the language model knows of N beginnings of sentences."""

    hidden: tuple[Tensor, ...]  # (N, width) each: h of every layer, then c of every layer

    def select(self, index: Tensor) -> "LmState":
        """The state with rows `index` (N',), in that order; a row may appear many times."""
        return LmState(tuple(h[index] for h in self.hidden))


class LanguageModel(nn.Module):
    """An LSTM over characters (Mikolov et al. 2010, with the cell of Hochreiter and Schmidhuber 1997)."""

    def __init__(self, vocabulary: int, options: LmOptions) -> None:
        super().__init__()
        self.options = options
        self.embed = nn.Embedding(vocabulary, options.embedding)
        between = options.dropout if options.layers > 1 else 0.0
        self.rnn = nn.LSTM(
            options.embedding, options.width, options.layers, batch_first=True, dropout=between
        )
        self.output = nn.Linear(options.width, vocabulary - Tokenizer.eos)
        self.dropout = nn.Dropout(options.dropout)

    def initial_state(self, rows: int) -> LmState:
        """The state of `rows` sentences before their first token, sos."""
        zeros = self.output.weight.new_zeros(rows, self.options.width)
        return LmState((zeros,) * (2 * self.options.layers))

    def step(self, tokens: Tensor, state: LmState) -> tuple[Tensor, LmState]:
        """Last tokens (N,) and the state before them to log_probs (N, V) and the next state.

        Blank, pad and sos have -inf.
        """
        layers = self.options.layers
        outputs = self.dropout(self.embed(tokens))
        states, cells = [], []
        for i, (h, c) in enumerate(zip(state.hidden[:layers], state.hidden[layers:], strict=True)):
            weights = [getattr(self.rnn, f"{name}_l{i}") for name in WEIGHTS]
            outputs, cell = torch.lstm_cell(outputs, (h, c), *weights)
            states.append(outputs)
            cells.append(cell)
        return self._log_probs(outputs), LmState((*states, *cells))

    def forward(self, tokens: Tensor) -> Tensor:
        """All steps of sentences (N, L) that begin with sos, fused: log_probs (N, L, V)."""
        return self._log_probs(self.rnn(self.dropout(self.embed(tokens)))[0])

    def _log_probs(self, outputs: Tensor) -> Tensor:
        logits = self.output(self.dropout(outputs)).float()
        return nn.functional.pad(logits.log_softmax(-1), (Tokenizer.eos, 0), value=float("-inf"))


WEIGHTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
