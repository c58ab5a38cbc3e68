"""The last tokens in, log-probabilities of the next one out: LSTM language models of characters and of words.

Their sentences begin with sos and end with eos as the decoder's do, and their state is a value like the decoder's: a
search moves its rows with `select`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from asr.options import check_range
from asr.tokenizer import Tokenizer


@dataclass(frozen=True)
class LmOptions:
    """Kind and sizes of the language model."""

    words: int = 0  # it knows so many words, the most frequent; 0: it spells characters
    embedding: int = 64  # width of a token's vector
    width: int = 512  # units of a layer
    layers: int = 1
    dropout: float = 0.0  # on embeddings, between the layers and on the last one's output
    candidates: int = (
        2048  # drawn for a training step, to stand for all words that do not come next
    )

    def __post_init__(self) -> None:
        check_range(self, "lm", ("words",), 0)
        check_range(self, "lm", ("embedding", "width", "layers", "candidates"), 1)
        check_range(self, "lm", ("dropout",), 0, 1)


@dataclass(frozen=True)
class LmState:
    """All that the language model knows of N beginnings of sentences."""

    hidden: tuple[Tensor, ...]  # (N, width) each: h of every layer, then c of every layer

    def select(self, index: Tensor) -> "LmState":
        """The state with rows `index` (N',), in that order; a row may appear many times."""
        return LmState(tuple(h[index] for h in self.hidden))


class LanguageModel(nn.Module):
    """An LSTM over tokens (Mikolov et al. 2010, with the cell of Hochreiter and Schmidhuber 1997)."""

    def __init__(self, vocabulary: int, options: LmOptions) -> None:
        super().__init__()
        self.options = options
        self.embed = nn.Embedding(vocabulary, options.embedding)
        between = options.dropout if options.layers > 1 else 0.0
        self.rnn = nn.LSTM(
            options.embedding, options.width, options.layers, batch_first=True, dropout=between
        )
        self.dropout = nn.Dropout(options.dropout)

    def initial_state(self, rows: int) -> LmState:
        """The state of `rows` sentences before their first token, sos."""
        zeros = self.embed.weight.new_zeros(rows, self.options.width)
        return LmState((zeros,) * (2 * self.options.layers))

    def step(self, tokens: Tensor, state: LmState) -> tuple[Tensor, LmState]:
        """Last tokens (N,) and the state before them to log_probs (N, V) and the next state.

        Blank, pad and sos have -inf.
        """
        outputs, state = self._advance(tokens, state)
        return self._log_probs(outputs), state

    def forward(self, tokens: Tensor) -> Tensor:
        """All steps of sentences (N, L) that begin with sos, fused: log_probs (N, L, V)."""
        return self._log_probs(self._outputs(tokens))

    def nats(self, tokens: Tensor) -> Tensor:
        """Minus the log-probability of padded sentences (N, L), summed over all tokens after sos.

        In training it may be smaller: that among some tokens only.
        """
        return nn.functional.nll_loss(
            self(tokens[:, :-1]).flatten(0, 1),
            tokens[:, 1:].flatten(),
            ignore_index=Tokenizer.pad,
            reduction="sum",
        )

    def _logits(self, outputs: Tensor) -> Tensor:
        """What the LSTM puts out (..., width) to logits (..., V - eos), those of eos and all tokens after it."""
        raise NotImplementedError

    def _outputs(self, tokens: Tensor) -> Tensor:
        outputs: Tensor = self.rnn(self.dropout(self.embed(tokens)))[0]
        return outputs

    def _advance(self, tokens: Tensor, state: LmState) -> tuple[Tensor, LmState]:
        """One time step of the layers with the weights of `self.rnn`: tokens (N,) to (N, width) and the new state."""
        layers = self.options.layers
        outputs = self.dropout(self.embed(tokens))
        states, cells = [], []
        for i, (h, c) in enumerate(zip(state.hidden[:layers], state.hidden[layers:], strict=True)):
            weights = [getattr(self.rnn, f"{name}_l{i}") for name in WEIGHTS]
            outputs, cell = torch.lstm_cell(outputs, (h, c), *weights)
            states.append(outputs)
            cells.append(cell)
        return outputs, LmState((*states, *cells))

    def _log_probs(self, outputs: Tensor) -> Tensor:
        log_probs = self._logits(outputs).float().log_softmax(-1)
        return nn.functional.pad(log_probs, (Tokenizer.eos, 0), value=float("-inf"))


class CharacterLm(LanguageModel):
    """A language model that spells; its vocabulary is the recognizer's."""

    def __init__(self, vocabulary: int, options: LmOptions) -> None:
        super().__init__(vocabulary, options)
        self.output = nn.Linear(options.width, vocabulary - Tokenizer.eos)

    def _logits(self, outputs: Tensor) -> Tensor:
        """See LanguageModel."""
        logits: Tensor = self.output(self.dropout(outputs))
        return logits


class WordLm(LanguageModel):
    """A language model of whole words.

    A word's vector is its row of the output layer too (Press & Wolf 2017). A training step tells the next word from
    candidates instead of from all words (sampled softmax: Jean et al. 2015, section 3); a step has the same candidates
    for all of its words.
    """

    SHARPNESS = 0.6  # candidates are drawn in proportion to the words' counts raised to it

    def __init__(self, vocabulary: int, options: LmOptions, counts: Tensor | None = None) -> None:
        """`counts` (V,), how often each token comes in the training text, are needed for training only."""
        super().__init__(vocabulary, options)
        nn.init.normal_(self.embed.weight, std=0.05)
        self.project = nn.Linear(options.width, options.embedding)
        self.bias = nn.Parameter(torch.zeros(vocabulary))
        chances = torch.zeros(vocabulary)
        if counts is not None:
            counts = counts.float()
            self.bias.data = (counts + 1).log() - counts.sum().log()
            chances = counts**self.SHARPNESS / (counts**self.SHARPNESS).sum()
        self.register_buffer("chances", chances, persistent=False)
        self.chances: Tensor

    def _logits(self, outputs: Tensor) -> Tensor:
        """See LanguageModel."""
        words = slice(Tokenizer.eos, None)
        return self._projected(outputs) @ self.embed.weight[words].T + self.bias[words]

    def advance(self, words: Tensor, state: LmState) -> tuple[Tensor, LmState]:
        """`step` without its output layer: last words (N,) to vectors (N, E) and the next state.

        The logit of a word is the product of its embedding and the vector, plus its bias.
        """
        outputs, state = self._advance(words, state)
        return self._projected(outputs), state

    def nats(self, tokens: Tensor) -> Tensor:
        """See LanguageModel."""
        if not self.training:
            return super().nats(tokens)
        targets = tokens[:, 1:]
        spoken = targets != Tokenizer.pad
        vectors, targets = self._projected(self._outputs(tokens[:, :-1]))[spoken], targets[spoken]
        count = self.options.candidates
        drawn = torch.multinomial(self.chances, count, replacement=True).unique()
        # Less the log of how often it is expected among the candidates, so that frequent ones do not count twice.
        offsets = self.bias - torch.log(-torch.expm1(count * torch.log1p(-self.chances)))
        scores = (vectors @ self.embed.weight[drawn].T).float() + offsets[drawn]
        own = (vectors.float() * self.embed.weight[targets]).sum(-1) + offsets[targets]
        among = torch.isin(targets, drawn)  # there once already
        total = scores.logsumexp(1)
        return (torch.where(among, total, torch.logaddexp(total, own)) - own).sum()

    def _projected(self, outputs: Tensor) -> Tensor:
        vectors: Tensor = self.dropout(self.project(self.dropout(outputs)))
        return vectors


WEIGHTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
