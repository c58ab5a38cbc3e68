"""A trained model to ONNX and back, to 8 bits, and to the engine that shall run it.

An exported model is a folder: encoder.onnx, step.onnx, for CTC heads ctc.onnx and phonemes.onnx, for a speller the
first two again, and model.json with sizes, characters, features and what is known about the model; search.toml and
what it names, where there is a default search. Log-mel features stay in asr.features: they are computed by the same
code for every engine, and cost a tenth of the encoder.
"""

import copy
import json
import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from asr import checkpoint, metrics, options
from asr.checkpoint import Trained
from asr.decoding import DecodingOptions, decode
from asr.errors import AsrError, AudioError, CheckpointError, ConfigError
from asr.features import FeatureOptions, LogMel
from asr.files import atomic_write
from asr.model import Memory, ModelOptions, Seq2Seq
from asr.search_file import INSIDE, copy_search
from asr.tokenizer import Tokenizer

FORMAT = 1
ENGINES = ("torch", "onnx")
DESCRIPTION = "model.json"
MAX_DIFFERENCE = 1e-3
"""The most by which a log probability of an exported float32 model may differ from eager mode's, in nats."""

MAX_CHANGED = 0.1
"""The most characters of the transcripts that 8 bits may change, as a share."""


@dataclass(frozen=True)
class Comparison:
    """How an exported model differs from the eager one."""

    utterances: int
    max_difference: float  # of any log probability of the decoder or of CTC, in nats
    changed: int  # greedy transcripts that are not the same
    cer: float  # character error rate of the exported one's transcripts against eager's


def export(trained: Trained, folder: str | Path, *, int8: bool = False) -> None:
    """Write a model as a folder of ONNX graphs; `int8` stores LSTM and linear weights in 8 bits.

    With int8 the inputs of these layers are quantised as they come (dynamic quantisation); convolutions, and GRU
    and RNN cells, stay float32. Raises ConfigError without the packages onnx and onnxruntime.
    """
    if not isinstance(trained.model, Seq2Seq) or not hasattr(trained.model, "encoder"):
        raise CheckpointError(f"{folder}: an exported model cannot be exported; give the .pt file")
    graphs = _graphs(trained.model, int8)
    description = {
        "format": FORMAT,
        "int8": int8,
        "graphs": sorted(graphs),
        "model": options.to_dict(trained.model.options),
        "tokenizer": trained.tokenizer.to_dict(),
        "features": options.to_dict(trained.features),
        "info": trained.info,
    }
    folder = Path(folder)
    for name, graph in graphs.items():
        with atomic_write(folder / f"{name}.onnx", "wb") as file:
            file.write(graph)
    with atomic_write(folder / DESCRIPTION) as file:  # last: a folder that has it is whole
        json.dump(description, file, indent=1)


def publish(
    model: str | Path,
    trained: Trained,
    folder: str | Path,
    *,
    int8: bool = False,
    waveforms: Sequence[Tensor] = (),
) -> Comparison | None:
    """Export what was loaded from the file `model` with its default search, once it has passed `check`.

    Without `waveforms` nothing is checked, and None returned. What fails leaves `folder` as it was; an earlier export
    there is replaced. Raises what `export`, `copy_search` and `check` do.
    """
    folder, found = Path(folder), None
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:  # the folder may be a mount point, so all is made within it
        with tempfile.TemporaryDirectory(prefix=".export.", dir=folder) as scratch:
            export(trained, scratch, int8=int8)
            copy_search(model, scratch)
            if waveforms:
                found = check(trained, load_exported(scratch), waveforms, int8=int8)
            _replace(folder, Path(scratch))
    except BaseException:
        if is_new:
            shutil.rmtree(folder)
        raise
    return found


def _replace(folder: Path, new: Path) -> None:
    """Move the files of an export to its folder; what an earlier one left there goes, other files stay."""
    for name in _exported(folder):
        (folder / name).unlink(missing_ok=True)
    description = json.loads((new / DESCRIPTION).read_text(encoding="utf-8"))
    description["files"] = sorted(path.name for path in new.iterdir())
    with atomic_write(new / DESCRIPTION) as file:
        json.dump(description, file, indent=1)
    for path in sorted(new.iterdir(), key=lambda path: path.name == DESCRIPTION):  # that one last
        os.replace(path, folder / path.name)


def _exported(folder: Path) -> list[str]:
    """The names of an export's files in a folder, its description first; none where none is there."""
    try:
        description = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        return [DESCRIPTION, *(str(Path(name).name) for name in description.get("files", [INSIDE]))]
    except (OSError, ValueError, AttributeError, TypeError):
        return []


def load_exported(folder: str | Path, *, int8: bool = False, threads: int | None = None) -> Trained:
    """Open an exported model as one that the recognizer takes; `int8` quantises it first where it is float32.

    Raises CheckpointError naming the folder and what is wrong with it.
    """
    folder = Path(folder)
    try:
        description = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(
            f"{folder}: no exported model: {DESCRIPTION}: {error.strerror or error}"
        ) from error
    except ValueError as error:
        raise CheckpointError(f"{folder / DESCRIPTION}: damaged, or not of a model") from error
    version = description.get("format") if isinstance(description, dict) else None
    if version != FORMAT:
        raise CheckpointError(f"{folder}: export format {version!r}; this version reads {FORMAT}")
    try:
        files = {name: folder / f"{name}.onnx" for name in description["graphs"]}
        graphs = {name: file.read_bytes() for name, file in files.items() if file.exists()}
        tokenizer = Tokenizer.from_dict(description["tokenizer"])
        features = options.from_dict(FeatureOptions, description["features"])
        sizes = options.from_dict(ModelOptions, description["model"])
        if int8 and not description["int8"]:
            graphs = _quantised(graphs)
        model = _open(graphs, sizes, tokenizer, features, threads)
    except CheckpointError as error:
        raise CheckpointError(f"{folder}: {error}") from error
    except (KeyError, TypeError, AttributeError, OSError, AsrError) as error:
        if isinstance(error, ConfigError) and "onnxruntime" in str(error):
            raise
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{folder}: not a model of this version: {reason}") from error
    info, was_int8 = description.get("info", {}), bool(description.get("int8"))
    return Trained(model, tokenizer, features, info, engine="onnx", int8=int8 or was_int8)


def open_engine(
    model: str | Path | Trained,
    engine: str | None = None,
    *,
    int8: bool = False,
    threads: int | None = None,
    device: str | torch.device = "cpu",
) -> Trained:
    """A model ready for the recognizer: a checkpoint file, an exported folder, or what is already loaded.

    `engine` is torch or onnx; None is onnx for a folder and torch for the rest. A checkpoint is turned into ONNX in
    memory. `int8` runs LSTM and linear layers in 8 bits: all of them with onnx, those of the encoder with torch.
    `threads` are ONNX Runtime's; None is torch's number. Raises ConfigError for what does not go together.
    """
    if engine not in (None, *ENGINES):
        raise ConfigError(f"engine {engine!r}: allowed are {', '.join(ENGINES)}")
    folder = not isinstance(model, Trained) and Path(model).is_dir()
    if folder and engine == "torch":
        raise ConfigError(f"engine torch: {model} is an exported model; it needs engine onnx")
    runs_onnx = folder or engine == "onnx"
    if (runs_onnx or int8) and torch.device(device).type != "cpu":
        what = "engine onnx" if runs_onnx else "int8"
        raise ConfigError(f"device {device}: {what} runs on the cpu only")
    if folder:
        assert not isinstance(model, Trained)
        return load_exported(model, int8=int8, threads=threads)
    trained = model if isinstance(model, Trained) else checkpoint.load(model, device=device)
    if runs_onnx:
        parts = trained.model.options, trained.tokenizer, trained.features
        network = _open(_graphs(trained.model, int8), *parts, threads)
        return replace(trained, model=network, engine="onnx", int8=int8)
    if not int8:
        return trained
    return replace(trained, model=_quantised_encoder(trained.model), int8=True)


@torch.inference_mode()
def check(
    eager: Trained, exported: Trained, waveforms: Sequence[Tensor], *, int8: bool = False
) -> Comparison:
    """Compare an exported model with the eager one on waveforms (S,) at the model's sample rate.

    Both transcribe greedily as one padded batch; the exported decoder is also fed with eager's transcripts, and every
    log probability of decoder and CTC is compared. Raises CheckpointError if a log probability differs by more than
    MAX_DIFFERENCE or a transcript differs; with `int8`, if more than MAX_CHANGED of the characters do. Raises
    AudioError if no waveform is long enough.
    """
    frontend = LogMel(eager.features)
    features = [frontend.extract(waveform.float()) for waveform in waveforms]
    features = [item for item in features if len(item) > 1]
    if not features:
        raise AudioError("check: no recording that is long enough")
    lengths = torch.tensor([len(item) for item in features])
    batch = pad_sequence(features, batch_first=True)
    models = eager.model, exported.model
    memories = [model.with_speller(model.encode(batch, lengths)) for model in models]
    tokens, texts = [], []
    for trained, memory in zip((eager, exported), memories, strict=True):
        best = [n[0] for n in decode(trained.model, memory, eager.tokenizer, DecodingOptions())]
        tokens.append([list(hypothesis.tokens) for hypothesis in best])
        texts.append([eager.tokenizer.decode(hypothesis.tokens) for hypothesis in best])
    scores = [
        _log_probs(trained.model, memory, tokens[0])
        for trained, memory in zip((eager, exported), memories, strict=True)
    ]
    found = Comparison(
        utterances=len(features),
        max_difference=max(float((a - b).abs().max()) for a, b in zip(*scores, strict=True)),
        changed=sum(a != b for a, b in zip(*texts, strict=True)),
        cer=metrics.total(metrics.character_counts(*texts)).rate,
    )
    _refuse_different(found, int8)
    return found


def _refuse_different(found: Comparison, int8: bool) -> None:
    allowed = f"allowed is {MAX_DIFFERENCE:g}"
    if int8:
        wrong = not found.cer <= MAX_CHANGED  # NaN, where a text is empty, is wrong too
        allowed = (
            f"allowed is a change of {MAX_CHANGED:.0%} of the characters, found {found.cer:.0%}"
        )
    else:
        wrong = not found.max_difference <= MAX_DIFFERENCE or found.changed > 0
    if wrong:
        raise CheckpointError(
            f"the exported model differs from the eager one: log probabilities by up to {found.max_difference:.2g} "
            f"nats, {found.changed} of {found.utterances} transcripts; {allowed}"
        )


def _log_probs(model: Seq2Seq, memory: Memory, texts: Sequence[Sequence[int]]) -> list[Tensor]:
    """Log probabilities of the CTC heads' valid frames and of the decoder fed with `texts`, padding left out."""
    found = []
    ctc = model.ctc_log_probs(memory)
    if ctc is not None:
        counts = (memory.lengths * model.ctc_factor).tolist()
        found += [row[:count] for row, count in zip(ctc, counts, strict=True)]
    heard = model.phoneme_log_probs(memory)
    if heard is not None:
        found += [row[:count] for row, count in zip(heard[0], heard[1].tolist(), strict=True)]
    state = model.initial_state(memory)
    given = pad_sequence([torch.tensor([Tokenizer.sos, *text]) for text in texts], True)
    for position, column in enumerate(given.unbind(1)):
        log_probs, state = model.step(column, memory, state)
        valid = torch.tensor([len(text) >= position for text in texts])
        found.append(log_probs[valid][:, Tokenizer.eos :])  # those before are -inf always
    return found


def _graphs(model: Seq2Seq, int8: bool) -> dict[str, bytes]:
    try:
        from asr.onnx_graph import graphs

        found = {name: graph.SerializeToString() for name, graph in graphs(model).items()}
    except ImportError as error:
        raise ConfigError("export needs the package onnx: pip install onnx onnxruntime") from error
    return _quantised(found) if int8 else found


def _open(
    graphs: Mapping[str, bytes],
    sizes: ModelOptions,
    tokenizer: Tokenizer,
    features: FeatureOptions,
    threads: int | None,
) -> Seq2Seq:
    from asr.onnx_model import OnnxModel

    return OnnxModel(
        graphs,
        sizes,
        vocabulary=tokenizer.size,
        n_mels=features.n_mels,
        hop_seconds=features.hop_samples / features.sample_rate,
        threads=threads,
    ).eval()


def _quantised(graphs: Mapping[str, bytes]) -> dict[str, bytes]:
    """The graphs with LSTM and linear weights in 8 bits."""
    try:
        import onnx
        from onnxruntime.quantization import QuantType, quantize_dynamic
    except ImportError as error:
        raise ConfigError(
            "int8 needs the packages onnx and onnxruntime: pip install onnx onnxruntime"
        ) from error
    kinds, found = ["LSTM", "MatMul"], {}
    level = logging.root.level
    logging.root.setLevel(logging.ERROR)  # it advises a pass that these graphs do not need
    try:
        with tempfile.TemporaryDirectory() as folder:
            for name, graph in graphs.items():
                path = Path(folder) / name
                model = onnx.load_from_string(graph)
                quantize_dynamic(
                    model, path, weight_type=QuantType.QInt8, op_types_to_quantize=kinds
                )
                found[name] = path.read_bytes()
    finally:
        logging.root.setLevel(level)
    return found


def _quantised_encoder(model: Seq2Seq) -> Seq2Seq:
    """A copy whose encoder has 8-bit LSTM and linear layers; the decoder's steps gain nothing from them in torch."""
    from torch.ao.quantization import quantize_dynamic

    found = copy.deepcopy(model)
    kinds: set[Any] = {nn.LSTM, nn.GRU, nn.Linear}
    with warnings.catch_warnings():
        # torch announces a successor that is no part of torch.
        warnings.filterwarnings("ignore", "(?s).*deprecated", DeprecationWarning)
        warnings.filterwarnings("ignore", "(?s).*deprecated", UserWarning)
        found.encoder = quantize_dynamic(found.encoder, kinds, dtype=torch.qint8)
        found.phoneme_layers = quantize_dynamic(found.phoneme_layers, kinds, dtype=torch.qint8)
        if found.speller is not None:
            found.speller.encoder = quantize_dynamic(
                found.speller.encoder, kinds, dtype=torch.qint8
            )
    return found
