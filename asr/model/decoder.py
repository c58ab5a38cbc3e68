"""Tokens and a memory in, log-probabilities of the next token out; `step` is the only definition of the decoder.

State is a value: nothing is kept on the module between steps, so a search may reorder, copy and drop states freely.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from asr.errors import ConfigError
from asr.model.attention import ATTENTIONS, AttentionOptions
from asr.model.encoder import CELLS
from asr.model.memory import Memory
from asr.options import check_range
from asr.tokenizer import Tokenizer


@dataclass(frozen=True)
class DecoderOptions:
    """Sizes of the decoder."""

    cell: str = "lstm"  # lstm | gru | rnn
    width: int = 256  # units of a layer
    layers: int = 1
    embedding: int = 64  # width of a token's vector
    input_feeding: bool = True  # a step reads the context before it (LAS); else training is fused
    dropout: float = 0.1  # on embeddings and on the readout
    attention: AttentionOptions = field(default_factory=AttentionOptions)

    def __post_init__(self) -> None:
        if self.cell not in CELLS:
            raise ConfigError(f"decoder cell {self.cell!r}: allowed are {', '.join(CELLS)}")
        check_range(self, "model.decoder", ("width", "layers", "embedding"), 1)
        check_range(self, "model.decoder", ("dropout",), 0, 1)


@dataclass(frozen=True)
class State:
    """All that the decoder knows between two steps, one row an utterance (or a beam of it)."""

    hidden: tuple[Tensor, ...]  # (B, width) each: h of every layer, then c of every LSTM layer
    context: Tensor  # (B, D) what was attended to last
    attention: Tensor  # (B, U) weights of the last step; at first all on the first step
    coverage: Tensor  # (B, U) sum of the weights of all steps so far
    spelled: "State | None" = None  # the speller's, where there is one

    def select(self, index: Tensor) -> "State":
        """The state with batch rows `index` (N,), in that order; a row may appear many times."""
        hidden = tuple(h[index] for h in self.hidden)
        spelled = None if self.spelled is None else self.spelled.select(index)
        return State(
            hidden, self.context[index], self.attention[index], self.coverage[index], spelled
        )


class Decoder(nn.Module):
    """RNN language model over characters that attends to the memory (Chan et al. 2016, section 2.2)."""

    def __init__(self, vocabulary: int, memory_width: int, options: DecoderOptions) -> None:
        super().__init__()
        self.options = options
        fed = memory_width if options.input_feeding else 0
        self.embed = nn.Embedding(vocabulary, options.embedding)
        self.rnn = CELLS[options.cell](
            options.embedding + fed, options.width, num_layers=options.layers, batch_first=True
        )
        attention = ATTENTIONS[options.attention.kind]
        self.attention = attention(options.width, memory_width, options.attention)
        self.readout = nn.Linear(options.width + memory_width, options.width)
        self.output = nn.Linear(options.width, vocabulary - Tokenizer.eos)
        self.dropout = nn.Dropout(options.dropout)

    def memory(self, values: Tensor, lengths: Tensor, mask: Tensor) -> Memory:
        """Encoder output (B, U, D), (B,), (B, U) to a memory with its keys."""
        return Memory(values, lengths, self.attention.keys(values), mask)

    def initial_state(self, memory: Memory) -> State:
        """The state before the first token."""
        return initial_state(self.options, memory)

    def step(self, tokens: Tensor, memory: Memory, state: State) -> tuple[Tensor, State]:
        """Last tokens (N,) and the state they were produced from to log_probs (N, V) and the next state.

        A memory of B = N / K utterances serves K rows each, those of an utterance side by side.
        """
        query, state = self.advance(self.embed(tokens), memory, state)
        return self.log_probs(query, state.context), state

    def advance(self, embedded: Tensor, memory: Memory, state: State) -> tuple[Tensor, State]:
        """A step without its output layer: embedded tokens (N, E) to the query (N, width) and the next state."""
        fed = torch.cat([embedded, state.context], -1) if self.options.input_feeding else embedded
        query, hidden = self._cells(fed, state.hidden)
        history = torch.stack([state.attention, state.coverage], 1)
        batch = len(memory.lengths)
        queries = query.unflatten(0, (batch, len(query) // max(batch, 1)))
        context, weights = self.attention(queries, memory, history)
        context, weights = context.flatten(0, 1), weights.flatten(0, 1)
        return query, State(hidden, context, weights, state.coverage + weights)

    def log_probs(self, query: Tensor, context: Tensor) -> Tensor:
        """Query (..., width) and context (..., D) to log-probabilities (..., V); blank, pad and sos have -inf."""
        hidden = torch.tanh(self.readout(torch.cat([query, context], -1)))
        logits = self.output(self.dropout(hidden)).float()
        return nn.functional.pad(logits.log_softmax(-1), (Tokenizer.eos, 0), value=float("-inf"))

    def teacher_forced(
        self, tokens: Tensor, memory: Memory, sampling: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """All steps for given inputs (B, L), the first of them sos: log_probs (B, L, V) and attention (B, L, U).

        With probability `sampling` a step reads the model's own best guess instead of the given token; the guesses
        come from a pass over the given tokens (parallel scheduled sampling, Duckworth et al. 2019).
        """
        if sampling > 0:
            with torch.no_grad():
                guesses = self._forced(tokens, memory)[0].argmax(-1)[:, :-1]
            # Autocast would keep the weights that it has cast here, without gradients (pytorch #158232).
            torch.clear_autocast_cache()
            chosen = torch.rand(guesses.shape, device=tokens.device) < sampling
            tokens = torch.cat([tokens[:, :1], torch.where(chosen, guesses, tokens[:, 1:])], 1)
        return self._forced(tokens, memory)

    def _forced(self, tokens: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        embedded = self.dropout(self.embed(tokens))
        forced = self._forced_by_steps if self.options.input_feeding else self._forced_at_once
        queries, contexts, attention = forced(embedded, memory)
        return self.log_probs(queries, contexts), attention

    def _forced_by_steps(self, embedded: Tensor, memory: Memory) -> tuple[Tensor, Tensor, Tensor]:
        """Input feeding: a step needs the context before it. (B, L, E) to queries, contexts and attention."""
        state = self.initial_state(memory)
        queries, contexts, attentions = [], [], []
        for token in embedded.unbind(1):
            query, state = self.advance(token, memory, state)
            queries.append(query)
            contexts.append(state.context)
            attentions.append(state.attention)
        return torch.stack(queries, 1), torch.stack(contexts, 1), torch.stack(attentions, 1)

    def _forced_at_once(self, embedded: Tensor, memory: Memory) -> tuple[Tensor, Tensor, Tensor]:
        """No input feeding: one fused RNN call; only an attention that looks back goes step by step."""
        queries, _ = self.rnn(embedded)
        if not self.attention.looks_back:
            contexts, attention = self.attention(queries, memory, memory.values.new_zeros(0))
            return queries, contexts, attention
        state = self.initial_state(memory)
        weights, coverage, attentions = state.attention, state.coverage, []
        for query in self.attention.query(queries)[:, :, None].unbind(1):
            history = torch.stack([weights, coverage], 1)
            weights = self.attention.weights(query, memory, history)[:, 0]
            coverage = coverage + weights
            attentions.append(weights)
        attention = torch.stack(attentions, 1)
        return queries, attention @ memory.values, attention

    def _cells(
        self, inputs: Tensor, hidden: tuple[Tensor, ...]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """One time step of all layers with the weights of `self.rnn`: inputs (B, I) to (B, width) and new hidden."""
        layers = self.options.layers
        states, cells = hidden[:layers], hidden[layers:]
        new_states, new_cells = [], []
        for i in range(layers):
            weights = (
                getattr(self.rnn, f"weight_ih_l{i}"),
                getattr(self.rnn, f"weight_hh_l{i}"),
                getattr(self.rnn, f"bias_ih_l{i}"),
                getattr(self.rnn, f"bias_hh_l{i}"),
            )
            if cells:
                inputs, cell = torch.lstm_cell(inputs, (states[i], cells[i]), *weights)
                new_cells.append(cell)
            elif self.options.cell == "gru":
                inputs = torch.gru_cell(inputs, states[i], *weights)
            else:
                inputs = torch.rnn_tanh_cell(inputs, states[i], *weights)
            new_states.append(inputs)
        return inputs, (*new_states, *new_cells)


def initial_state(options: DecoderOptions, memory: Memory) -> State:
    """The state before the first token: zeros, and attention on the first step of the memory."""
    values = memory.values
    batch, steps, width = values.shape
    count = options.layers * (2 if options.cell == "lstm" else 1)
    hidden = tuple(values.new_zeros(batch, options.width) for _ in range(count))
    attention = values.new_zeros(batch, steps, dtype=torch.float32)
    attention[:, :1] = 1
    return State(hidden, values.new_zeros(batch, width), attention, torch.zeros_like(attention))
