"""An exported network that stands in for `Seq2Seq` in every search: ONNX graphs in, the same methods out.

ONNX Runtime does the arithmetic, torch tensors go in and out, and memory and state are the same values as in eager
mode, so that search, alignment and recognizer need not know which engine they use.
"""

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from asr.errors import CheckpointError, ConfigError
from asr.model import Memory, ModelOptions, Seq2Seq, State
from asr.model.decoder import initial_state
from asr.model.memory import length_mask
from asr.model.seq2seq import ctc_factor
from asr.model.sounds import WIDTH


class OnnxModel(Seq2Seq):
    """`encode`, `initial_state`, `step` and both heads of an exported network, on the CPU; not for training."""

    def __init__(
        self,
        graphs: Mapping[str, bytes],
        options: ModelOptions,
        *,
        vocabulary: int,
        n_mels: int,
        hop_seconds: float,
        threads: int | None = None,
    ) -> None:
        """Open the graphs encoder, step, ctc and phonemes, as it has these heads, and its speller's.

        `threads` None is as torch's.

        Raises ConfigError without onnxruntime, CheckpointError if a graph is missing or damaged.
        """
        nn.Module.__init__(self)
        self.options = options
        self.vocabulary = vocabulary
        self.n_mels = n_mels
        self.frame_seconds = hop_seconds * options.encoder.reduction
        self.ctc_factor = ctc_factor(self.frame_seconds)
        # A search asks whether there is a head; what it computes is in the graph.
        self.ctc = cast(nn.Linear, nn.Identity()) if options.ctc else None
        # A model exported before a search could use that head has no graph of it.
        hears = options.phonemes and "phonemes" in graphs
        self.phonemes = cast(nn.Linear, nn.Identity()) if hears else None
        count = torch.get_num_threads() if threads is None else threads
        heads = {"ctc": options.ctc, "phonemes": hears}
        needed = ("encoder", "step", *(name for name, there in heads.items() if there))
        self.sessions = {name: _session(name, graphs, count) for name in needed}
        self.encoder_outputs = [item.name for item in self.sessions["encoder"].get_outputs()]
        self.step_inputs = [item.name for item in self.sessions["step"].get_inputs()]
        self.speller = None
        if (sizes := options.of_speller) is not None:
            prefix = "speller_"
            parts = {n.removeprefix(prefix): g for n, g in graphs.items() if n.startswith(prefix)}
            self.speller = OnnxModel(
                parts,
                sizes,
                vocabulary=vocabulary,
                n_mels=WIDTH,
                hop_seconds=hop_seconds,
                threads=threads,
            )

    def encode(self, features: Tensor, feature_lengths: Tensor) -> Memory:
        """Features (B, T, M) with frame counts (B,) to a memory of ceil(T / reduction) steps."""
        given = {"features": _array(features), "feature_lengths": _array(feature_lengths)}
        found = dict(zip(self.encoder_outputs, self._run("encoder", given), strict=True))
        values, lengths = found["values"], found["lengths"]
        # The attention `fixed` compares nothing and has no keys.
        keys = found.get("keys", values[:, :, :0])
        mask = length_mask(lengths, values.shape[1])
        return Memory(values, lengths, keys, mask, found.get("first"), found.get("first_lengths"))

    def _begin(self, memory: Memory) -> State:
        """See Seq2Seq."""
        return initial_state(self.options.decoder, memory)

    def _decode(self, tokens: Tensor, memory: Memory, state: State) -> tuple[Tensor, State]:
        """See Seq2Seq."""
        if not len(tokens):  # a search that has just ended; onnxruntime would end the process
            return memory.values.new_zeros(0, self.vocabulary), state
        named = {
            "tokens": tokens,
            "values": memory.values,
            "lengths": memory.lengths,
            "keys": memory.keys,
            "mask": memory.mask,
            "context": state.context,
            "attention": state.attention,
            "coverage": state.coverage,
            **{f"hidden{number}": value for number, value in enumerate(state.hidden)},
        }
        given = {name: _array(named[name]) for name in self.step_inputs}
        log_probs, *hidden, context, attention, coverage = self._run("step", given)
        return log_probs, State(tuple(hidden), context, attention, coverage)

    def ctc_log_probs(self, memory: Memory) -> Tensor | None:
        """Memory to CTC log_probs (B, U * ctc_factor, V); None without a head."""
        if "ctc" not in self.sessions:
            return None
        return self._run("ctc", {"values": _array(memory.values)})[0]

    def phoneme_log_probs(self, memory: Memory) -> tuple[Tensor, Tensor] | None:
        """Memory to phoneme log_probs (B, F, P), valid to the frame counts (B,); None without a head."""
        if "phonemes" not in self.sessions or memory.first is None or memory.first_lengths is None:
            return None
        if memory.heard is not None:
            return memory.heard, memory.first_lengths
        given = {"first": _array(memory.first), "first_lengths": _array(memory.first_lengths)}
        return self._run("phonemes", given)[0], memory.first_lengths

    def hear(self, features: Tensor, feature_lengths: Tensor) -> tuple[Tensor, Tensor]:
        """See Seq2Seq; the graph of the encoder is run as a whole."""
        found = self.phoneme_log_probs(self.encode(features, feature_lengths))
        assert found is not None
        return found

    def _run(self, name: str, given: dict[str, NDArray[Any]]) -> list[Tensor]:
        return [torch.from_numpy(found) for found in self.sessions[name].run(None, given)]


def _array(tensor: Tensor) -> NDArray[Any]:
    """The tensor's values without a copy where they lie in one piece."""
    return np.ascontiguousarray(tensor.detach().numpy())


def _session(name: str, graphs: Mapping[str, bytes], threads: int) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise ConfigError(
            "engine onnx needs the package onnxruntime: pip install onnxruntime"
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors only; they are raised anyway
    try:
        return onnxruntime.InferenceSession(
            graphs[name], options, providers=["CPUExecutionProvider"]
        )
    except KeyError as error:
        raise CheckpointError(f"exported model: it lacks the graph {name}") from error
    except Exception as error:  # onnxruntime's own classes share no base but this
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"exported model: graph {name}: {reason}") from error
