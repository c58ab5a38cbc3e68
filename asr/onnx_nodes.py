"""An ONNX graph being written: operators, weights and the layers that torch and ONNX both know, by name.

asr.onnx_graph writes the networks with it; onnx is imported where a graph is made.
"""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

OPSET = 17
IR_VERSION = 8  # what every onnxruntime since 1.12 reads
GATES = {
    "LSTM": (0, 3, 1, 2),
    "GRU": (1, 0, 2),
    "RNN": (0,),
}  # torch's i f g o, r z n in ONNX's order


class Graph:
    """Nodes and weights of a graph being written; a value in it is known by its name."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []

    def input(self, name: str, kind: Any, axes: Sequence[str | int]) -> str:
        """Declare an input; named axes are free."""
        from onnx import helper

        number = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
        self.inputs.append(helper.make_tensor_value_info(name, number, axes))
        return name

    def output(self, value: str, name: str, kind: Any, axes: Sequence[str | int]) -> None:
        """Declare a value to be the output `name`."""
        from onnx import helper

        self.nodes.append(helper.make_node("Identity", [value], [name]))
        number = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
        self.outputs.append(helper.make_tensor_value_info(name, number, axes))

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Append a node and return its only output."""
        return self.ops(kind, inputs, 1, **attributes)[0]

    def ops(self, kind: str, inputs: Sequence[str], count: int, **attributes: Any) -> list[str]:
        """Append a node and return its first `count` outputs."""
        from onnx import helper

        names = [f"{kind.lower()}{len(self.nodes)}_{i}" for i in range(count)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, **attributes))
        return names

    def constant(self, value: Any, kind: Any = np.float32) -> str:
        """A tensor that is part of the graph."""
        from onnx import numpy_helper

        array = value.detach().cpu().numpy() if isinstance(value, Tensor) else value
        name = f"weight{len(self.weights)}"
        array = np.asarray(array, dtype=kind, order="C")
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def ints(self, *values: int) -> str:
        """A constant list of integers."""
        return self.constant(values, np.int64)

    def scalar(self, value: float, kind: Any = np.float32) -> str:
        """A constant without axes."""
        return self.constant(value, kind)

    def finish(self, name: str) -> Any:
        """The model, checked by onnx."""
        import onnx

        graph = onnx.helper.make_graph(self.nodes, name, self.inputs, self.outputs, self.weights)
        model = onnx.helper.make_model(
            graph,
            opset_imports=[onnx.helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="asr",
        )
        onnx.checker.check_model(model, full_check=True)
        return model

    def size(self, value: str, axis: int) -> str:
        """The length of an axis, a scalar."""
        return self.op("Gather", self.op("Shape", value), self.scalar(axis, np.int64))

    def mask(self, lengths: str, size: str) -> str:
        """Lengths (B,) to (B, size), True at the valid positions."""
        positions = self.op("Range", self.scalar(0, np.int64), size, self.scalar(1, np.int64))
        return self.op("Less", positions, self.op("Unsqueeze", lengths, self.ints(1)))

    def keep(self, values: str, mask: str, *axes: int) -> str:
        """Values, zero where the mask is False; `axes` are those that the mask lacks."""
        mask = self.op("Unsqueeze", mask, self.ints(*axes)) if axes else mask
        return self.op("Where", mask, values, self.scalar(0))

    def linear(self, values: str, layer: nn.Linear) -> str:
        """The layer's product, and its bias if it has one."""
        product = self.op("MatMul", values, self.constant(layer.weight.t()))
        bias = cast("Tensor | None", layer.bias)
        return product if bias is None else self.op("Add", product, self.constant(bias))

    def norm(self, values: str, layer: nn.Module) -> str:
        """Layer norm over the last axis, or the values as they are."""
        if not isinstance(layer, nn.LayerNorm):
            return values
        weight, bias = self.constant(layer.weight), self.constant(layer.bias)
        return self.op("LayerNormalization", values, weight, bias, epsilon=layer.eps)

    def softmax(self, energies: str, mask: str) -> str:
        """Softmax over the last axis, exactly 0 where the mask (of the same rank) is False."""
        lowest = self.scalar(torch.finfo(torch.float32).min)
        weights = self.op("Softmax", self.op("Where", mask, energies, lowest), axis=-1)
        return self.op("Where", mask, weights, self.scalar(0))

    def recurrent(
        self, values: str, weights: Sequence[Sequence[Tensor]], kind: str, *more: str
    ) -> list[str]:
        """One recurrent layer over (U, B, I), its `weights` (ih, hh, bias ih, bias hh) one list a direction.

        `more` holds lengths (int32) and first states as the operator takes them; the outputs are all states
        (U, directions, B, H), the last ones, and the last cells of an LSTM.
        """
        inner, outer, bias = [], [], []
        for w_ih, w_hh, b_ih, b_hh in weights:
            inner.append(_gates(w_ih, kind))
            outer.append(_gates(w_hh, kind))
            bias.append(torch.cat([_gates(b_ih, kind), _gates(b_hh, kind)]))
        constants = [self.constant(torch.stack(parts)) for parts in (inner, outer, bias)]
        attributes: dict[str, Any] = {"hidden_size": weights[0][1].shape[1]}
        attributes["direction"] = "bidirectional" if len(weights) == 2 else "forward"
        if kind == "GRU":
            attributes["linear_before_reset"] = 1
        return self.ops(kind, [values, *constants, *more], 3 if kind == "LSTM" else 2, **attributes)


def _gates(weight: Tensor, kind: str) -> Tensor:
    """The rows of a cell's weight in the order that ONNX wants."""
    parts = weight.detach().chunk(len(GATES[kind]))
    return torch.cat([parts[i] for i in GATES[kind]])
