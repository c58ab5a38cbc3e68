"""A network in, its ONNX graphs out: encoder, CTC heads and one decoder step, with free batch and time axes.

The graphs are written node by node: torch's own exporters unroll recurrent layers or are about to be removed, while
ONNX has the recurrent layers of this package as single operators that respect `sequence_lens` in both directions.
`asr.export.check` and the tests hold the graphs to the eager network. Names of inputs and outputs are those of the
fields of `Memory` and `State`.
"""

from typing import Any

import numpy as np
from torch import Tensor, nn

from asr.model import Seq2Seq
from asr.model.attention import Additive, Attention, Location, MultiHead
from asr.model.encoder import EncoderLayer
from asr.onnx_nodes import Graph
from asr.tokenizer import Tokenizer


def graphs(model: Seq2Seq) -> dict[str, Any]:
    """The graphs by name: encoder, step, ctc and phonemes where it has those heads, and those of a speller.

    They are float32, as onnx.ModelProto.
    """
    found = {"encoder": _encoder(model), "step": _step(model)}
    if model.ctc is not None:
        found["ctc"] = _ctc(model, model.ctc)
    if model.phonemes is not None:
        found["phonemes"] = _phonemes(model, model.phonemes)
    if model.speller is not None:
        found |= {f"speller_{name}": graph for name, graph in graphs(model.speller).items()}
    return found


def _rnn_weights(rnn: nn.RNNBase, layer: int = 0) -> list[Tensor]:
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    return [getattr(rnn, f"{name}_l{layer}") for name in names]


def _encoder(model: Seq2Seq) -> Any:
    """Features (B, T, M) and lengths (B,) to values (B, U, D), lengths (B,), keys (B, U, A) and the first layer's.

    Keys are left out where the attention has none, what the first layer gives where no phonemes are heard.
    """
    graph, encoder = Graph(), model.encoder
    features = graph.input("features", np.float32, ["batch", "frames", model.n_mels])
    lengths = graph.input("feature_lengths", np.int64, ["batch"])
    maps = graph.op("Unsqueeze", features, graph.ints(1))
    maps = graph.keep(maps, graph.mask(lengths, graph.size(maps, 2)), 1, 3)
    for number, convolution in enumerate(encoder.subsample.convolutions):
        assert isinstance(convolution, nn.Conv2d)
        if number:
            maps = graph.keep(maps, graph.mask(lengths, graph.size(maps, 2)), 1, 3)
        weights = graph.constant(convolution.weight), graph.constant(convolution.bias)
        maps = graph.op("Conv", maps, *weights, strides=[2, 2], pads=[1, 1, 1, 1])
        maps = graph.op("Relu", maps)
        lengths = _halved(graph, lengths)
    values = graph.op("Transpose", maps, perm=[0, 2, 1, 3])
    values = graph.op("Reshape", values, graph.ints(0, 0, encoder.subsample.project.in_features))
    values = graph.linear(values, encoder.subsample.project)
    values = graph.norm(values, encoder.subsample.norm)
    levels = []
    for layer in encoder.layers:
        assert isinstance(layer, EncoderLayer)
        values, lengths = _layer(graph, layer, values, lengths)
        levels.append((values, lengths))
    width = 2 * encoder.options.width
    graph.output(values, "values", np.float32, ["batch", "steps", width])
    graph.output(lengths, "lengths", np.int64, ["batch"])
    if hasattr(model.decoder.attention, "key"):
        keys = graph.linear(values, model.decoder.attention.key)
        graph.output(keys, "keys", np.float32, ["batch", "steps", "key"])
    if model.phonemes is not None:
        graph.output(levels[0][0], "first", np.float32, ["batch", "first_steps", width])
        graph.output(levels[0][1], "first_lengths", np.int64, ["batch"])
    return graph.finish("encoder")


def _halved(graph: Graph, lengths: str) -> str:
    """Lengths of what has half the rate, rounded up."""
    one, two = graph.scalar(1, np.int64), graph.scalar(2, np.int64)
    return graph.op("Div", graph.op("Add", lengths, one), two)


def _layer(graph: Graph, layer: EncoderLayer, values: str, lengths: str) -> tuple[str, str]:
    """EncoderLayer: join neighbours, run both directions, normalise."""
    if layer.reduction > 1:
        values = graph.keep(values, graph.mask(lengths, graph.size(values, 1)), 2)
        odd = graph.op("Mod", graph.size(values, 1), graph.scalar(2, np.int64))
        odd = graph.op("Reshape", odd, graph.ints(1))
        pads = graph.op("Concat", graph.ints(0, 0, 0, 0), odd, graph.ints(0), axis=0)
        values = graph.op("Pad", values, pads)
        values = graph.op("Reshape", values, graph.ints(0, -1, layer.rnn.forward_rnn.input_size))
        lengths = _halved(graph, lengths)
    # A recurrent operator refuses a length of 0.
    counts = graph.op("Max", lengths, graph.ints(1))
    counts = graph.op("Cast", counts, to=6)  # int32
    steps = graph.op("Transpose", values, perm=[1, 0, 2])
    weights = [_rnn_weights(layer.rnn.forward_rnn), _rnn_weights(layer.rnn.backward_rnn)]
    kind = layer.rnn.forward_rnn.mode.removesuffix("_TANH")
    output = graph.recurrent(steps, weights, kind, counts)[0]
    output = graph.op("Transpose", output, perm=[2, 0, 1, 3])
    output = graph.op("Reshape", output, graph.ints(0, 0, 2 * layer.rnn.forward_rnn.hidden_size))
    output = graph.norm(output, layer.norm)
    if layer.residual:
        output = graph.op("Add", output, values)
    return graph.keep(output, graph.mask(lengths, graph.size(output, 1)), 2), lengths


def _ctc(model: Seq2Seq, head: nn.Linear) -> Any:
    """Values (B, U, D) to CTC log_probs (B, U * ctc_factor, V)."""
    graph = Graph()
    values = graph.input("values", np.float32, ["batch", "steps", head.in_features])
    logits = graph.linear(values, head)
    logits = graph.op("Reshape", logits, graph.ints(0, -1, model.vocabulary))
    log_probs = graph.op("LogSoftmax", logits, axis=-1)
    graph.output(log_probs, "log_probs", np.float32, ["batch", "frames", model.vocabulary])
    return graph.finish("ctc")


def _phonemes(model: Seq2Seq, head: nn.Linear) -> Any:
    """First (B, F, D) and first_lengths (B,) to phoneme log_probs (B, F, P)."""
    graph = Graph()
    values = graph.input("first", np.float32, ["batch", "frames", head.in_features])
    lengths = graph.input("first_lengths", np.int64, ["batch"])
    for layer in model.phoneme_layers:
        assert isinstance(layer, EncoderLayer)
        values, lengths = _layer(graph, layer, values, lengths)
    log_probs = graph.op("LogSoftmax", graph.linear(values, head), axis=-1)
    graph.output(log_probs, "log_probs", np.float32, ["batch", "frames", head.out_features])
    return graph.finish("phonemes")


def _step(model: Seq2Seq) -> Any:
    """Tokens (N,), a memory of B utterances and state to log_probs (N, V) and the next state.

    N is B, or K times that: K rows side by side then share an utterance. Inputs that nothing reads are left out.
    """
    graph, decoder = Graph(), model.decoder
    options, width = decoder.options, 2 * model.encoder.options.width
    tokens = graph.input("tokens", np.int64, ["rows"])
    values = graph.input("values", np.float32, ["utterances", "steps", width])
    mask = graph.input("mask", np.bool_, ["utterances", "steps"])
    coverage = graph.input("coverage", np.float32, ["rows", "steps"])
    inputs = graph.op("Gather", graph.constant(decoder.embed.weight), tokens)
    if options.input_feeding:
        context = graph.input("context", np.float32, ["rows", width])
        inputs = graph.op("Concat", inputs, context, axis=-1)
    query, hidden = _cells(graph, decoder.rnn, inputs)
    if hasattr(decoder.attention, "query"):
        context, weights = _attend(graph, decoder.attention, query, mask)
    else:
        context, weights = _attend_fixed(graph, values, mask, width)
    context = graph.op("Reshape", context, graph.ints(-1, width))
    weights = graph.op("Reshape", weights, graph.op("Shape", coverage))
    joined = graph.op("Concat", query, context, axis=-1)
    logits = graph.linear(graph.op("Tanh", graph.linear(joined, decoder.readout)), decoder.output)
    log_probs = graph.op("LogSoftmax", logits, axis=-1)
    never = graph.ints(0, Tokenizer.eos, 0, 0), graph.scalar(-np.inf)
    log_probs = graph.op("Pad", log_probs, *never)
    graph.output(log_probs, "log_probs", np.float32, ["rows", model.vocabulary])
    for number, value in enumerate(hidden):
        graph.output(value, f"next_hidden{number}", np.float32, ["rows", options.width])
    graph.output(context, "next_context", np.float32, ["rows", width])
    graph.output(weights, "next_attention", np.float32, ["rows", "steps"])
    covered = graph.op("Add", coverage, weights)
    graph.output(covered, "next_coverage", np.float32, ["rows", "steps"])
    return graph.finish("step")


def _cells(graph: Graph, rnn: nn.RNNBase, inputs: str) -> tuple[str, list[str]]:
    """One time step of all layers: inputs (N, I) to the top state (N, H) and all states, then all cells."""
    first = graph.ints(0)
    kind = rnn.mode.removesuffix("_TANH")
    count = rnn.num_layers * (2 if kind == "LSTM" else 1)
    given = [graph.input(f"hidden{i}", np.float32, ["rows", rnn.hidden_size]) for i in range(count)]
    given = [graph.op("Unsqueeze", value, first) for value in given]
    following = [""] * count
    for layer in range(rnn.num_layers):
        mine = range(layer, count, rnn.num_layers)
        steps = graph.op("Unsqueeze", inputs, first)
        states = [given[i] for i in mine]
        found = graph.recurrent(steps, [_rnn_weights(rnn, layer)], kind, "", *states)[1:]
        for i, value in zip(mine, found, strict=True):
            following[i] = graph.op("Squeeze", value, first)
        inputs = following[layer]
    return inputs, following


def _by_utterance(graph: Graph, rows: str, *axes: int) -> str:
    """Rows (N, ...) to (B, K, ...); `axes` are the sizes of the rest, of which 0 stands for the memory's steps."""
    count = graph.op("Shape", "values", start=0, end=1)
    steps = graph.op("Shape", "values", start=1, end=2)
    rest = [steps if size == 0 else graph.ints(size) for size in axes]
    return graph.op("Reshape", rows, graph.op("Concat", count, graph.ints(-1), *rest, axis=0))


def _attend(graph: Graph, attention: Attention, query: str, mask: str) -> tuple[str, str]:
    """Queries (N, Q) to contexts (B, K, D) and weights (B, K, U), for every attention that compares."""
    one, width = graph.ints(1), attention.key.out_features
    keys = graph.input("keys", np.float32, ["utterances", "steps", width])
    query = _by_utterance(graph, graph.linear(query, attention.query), width)
    if isinstance(attention, MultiHead):
        return _attend_heads(graph, attention, query, keys, mask)
    if isinstance(attention, Additive):
        compared = graph.op("Unsqueeze", keys, one)
        if isinstance(attention, Location):
            seen = _by_utterance(graph, _seen(graph, attention), 0, width)
            compared = graph.op("Add", compared, seen)
        compared = graph.op("Add", compared, graph.op("Unsqueeze", query, graph.ints(2)))
        energies = graph.linear(graph.op("Tanh", compared), attention.energy)
        energies = graph.op("Squeeze", energies, graph.ints(3))
    else:
        energies = graph.op("MatMul", query, graph.op("Transpose", keys, perm=[0, 2, 1]))
        energies = graph.op("Div", energies, graph.scalar(width**0.5))
    weights = graph.softmax(energies, graph.op("Unsqueeze", mask, one))
    return graph.op("MatMul", weights, "values"), weights


def _seen(graph: Graph, attention: Location) -> str:
    """Where it looked before, as the filters see it: (N, U, A)."""
    middle, reach = graph.ints(1), attention.kernel // 2
    last = graph.input("attention", np.float32, ["rows", "steps"])
    history = [graph.op("Unsqueeze", value, middle) for value in (last, "coverage")]
    history = [graph.op("Concat", *history, axis=1)]
    filters = graph.constant(attention.location.weight.unflatten(1, (2, attention.kernel)))
    seen = graph.op("Conv", *history, filters, pads=[reach, reach])
    return graph.linear(graph.op("Transpose", seen, perm=[0, 2, 1]), attention.project)


def _attend_heads(
    graph: Graph, attention: MultiHead, query: str, keys: str, mask: str
) -> tuple[str, str]:
    heads, width = attention.heads, attention.key.out_features // attention.heads

    def split(values: str, size: int) -> str:
        parts = graph.op("Reshape", values, graph.ints(0, 0, heads, size))
        return graph.op("Transpose", parts, perm=[0, 2, 1, 3])

    memory = attention.key.in_features
    keys = graph.op("Transpose", split(keys, width), perm=[0, 1, 3, 2])
    energies = graph.op("MatMul", split(query, width), keys)
    energies = graph.op("Div", energies, graph.scalar(width**0.5))
    weights = graph.softmax(energies, graph.op("Unsqueeze", mask, graph.ints(1, 2)))
    context = graph.op("MatMul", weights, split("values", memory // heads))
    context = graph.op("Transpose", context, perm=[0, 2, 1, 3])
    context = graph.op("Reshape", context, graph.ints(0, 0, memory))
    return context, graph.op("ReduceMean", weights, axes=[1], keepdims=0)


def _attend_fixed(graph: Graph, values: str, mask: str, width: int) -> tuple[str, str]:
    """The last state of either direction and a weight of 1 on the last step, whatever the query is."""
    lengths = graph.op("Unsqueeze", graph.input("lengths", np.int64, ["utterances"]), graph.ints(1))
    zero, one = graph.scalar(0, np.int64), graph.scalar(1, np.int64)
    last = graph.op("Max", graph.op("Sub", lengths, one), zero)
    steps = graph.op("Range", zero, graph.size(values, 1), one)
    weights = graph.op("Cast", graph.op("Equal", steps, last), to=1)  # float32
    weights = graph.keep(weights, mask)
    weights = graph.op("Unsqueeze", weights, graph.ints(1))
    ahead = graph.op("MatMul", weights, values)
    back = graph.op("Gather", values, graph.ints(0), axis=1)
    ahead = graph.op("Slice", ahead, graph.ints(0), graph.ints(width // 2), graph.ints(2))
    back = graph.op("Slice", back, graph.ints(width // 2), graph.ints(width), graph.ints(2))
    context = graph.op("Concat", ahead, back, axis=-1)
    rows = graph.op("Shape", _by_utterance(graph, "coverage", 0), start=0, end=2)

    def each(value: str, size: str) -> str:
        return graph.op("Expand", value, graph.op("Concat", rows, size, axis=0))

    return each(context, graph.ints(width)), each(weights, graph.op("Shape", mask, start=1, end=2))
