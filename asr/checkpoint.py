"""Trained models to files and back: tensors and plain dicts only, so that loading never runs code from a file."""

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from asr import options
from asr.errors import AsrError, CheckpointError
from asr.features import FeatureOptions
from asr.files import atomic_write
from asr.model import ModelOptions, Seq2Seq
from asr.tokenizer import Tokenizer
from asr.weights import pack, unpack

FORMAT = 1


@dataclass(frozen=True)
class Trained:
    """All that is needed to transcribe: the network, its characters, its features, and what is known about it."""

    model: Seq2Seq
    tokenizer: Tokenizer
    features: FeatureOptions
    info: dict[str, Any]  # plain values: steps, hours, data, WER
    engine: str = "torch"  # what runs the network; see asr.export.ENGINES
    int8: bool = False  # whether LSTM and linear layers are in 8 bits


def build(model: ModelOptions, tokenizer: Tokenizer, features: FeatureOptions) -> Seq2Seq:
    """A new network with random weights (torch's seed) that fits the tokenizer and the features."""
    hop_seconds = features.hop_samples / features.sample_rate
    return Seq2Seq(
        model, vocabulary=tokenizer.size, n_mels=features.n_mels, hop_seconds=hop_seconds
    )


def save(path: str | Path, trained: Trained, *, bits: int = 32) -> None:
    """Write a trained model, whole or not at all, its weights in 32, 16 or 8 bits (asr.weights)."""
    content = {
        "format": FORMAT,
        "model": options.to_dict(trained.model.options),
        "tokenizer": trained.tokenizer.to_dict(),
        "features": options.to_dict(trained.features),
        "info": trained.info,
        "weights": pack(trained.model.state_dict(), bits),
    }
    with atomic_write(path, "wb") as file:
        torch.save(content, file)


def load(path: str | Path, *, device: str | torch.device = "cpu") -> Trained:
    """Rebuild a trained model from its own stored sizes, in float32 and evaluation mode.

    Raises CheckpointError naming the file and what is wrong with it.
    """
    content = read(path)
    if "progress" in content:
        raise CheckpointError(
            f"{path}: the state of a training, not a model; model.pt, best.pt and step-*.pt beside it are models"
        )
    if "lm_format" in content:
        raise CheckpointError(f"{path}: a language model, not a recognizer")
    version = content.get("format")
    if version != FORMAT:
        raise CheckpointError(f"{path}: model format {version!r}; this version reads {FORMAT}")
    try:
        tokenizer = Tokenizer.from_dict(content["tokenizer"])
        features = options.from_dict(FeatureOptions, content["features"])
        model = build(options.from_dict(ModelOptions, content["model"]), tokenizer, features)
        model.load_state_dict(unpack(content["weights"]))
    except (KeyError, RuntimeError, AttributeError, TypeError, ValueError, AsrError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{path}: not a model of this version: {reason}") from error
    return Trained(model.to(device).eval(), tokenizer, features, content.get("info", {}))


def read(path: str | Path) -> dict[str, Any]:
    """The dict in a file of tensors and plain values. Raises CheckpointError naming the file."""
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:  # torch does not compare the checksums that it writes
                raise zipfile.BadZipFile
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot read model: {error.strerror or error}") from error
    except (
        Exception
    ) as error:  # whatever bytes make an unpickler raise, KeyError and TypeError among it
        raise CheckpointError(f"{path}: damaged, or not a model file") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: not a model file")
    return content


def average(paths: Sequence[str | Path]) -> Trained:
    """The model whose weights are the mean of those in `paths`, which must be of one architecture."""
    if not paths:
        raise CheckpointError("nothing to average: name at least one checkpoint")
    trained = [load(path) for path in paths]
    first = trained[0]
    for path, other in zip(paths, trained, strict=True):
        if _kind(other) != _kind(first):
            raise CheckpointError(
                f"{path}: another architecture, alphabet or kind of features than {paths[0]}"
            )
    first.model.load_state_dict(mean_weights([t.model.state_dict() for t in trained]))
    info = {**first.info, "averaged": len(paths)}
    return Trained(first.model, first.tokenizer, first.features, info)


def mean_weights(states: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of several state dicts of the same network, summed in float64."""
    return {
        name: torch.stack([state[name].double() for state in states]).mean(0).to(weight.dtype)
        for name, weight in states[0].items()
    }


def _kind(trained: Trained) -> tuple[Any, ...]:
    """What two models must share for the mean of their weights to make sense."""
    return trained.model.options, trained.tokenizer.alphabet, trained.features


def bundled() -> Path:
    """Where the model that ships with the package is."""
    return Path(__file__).parent / "assets" / "english.pt"
