"""`asr info`: a model in, a recognizer's or a language model's, what it is out."""

import zipfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer

from asr.cli.base import app


@app.command(epilog="Example: asr info model.pt")
def info(
    model: Path | None = typer.Argument(
        None,
        help="Model file or exported folder, or a language model: n-grams (.ngram, .arpa) or an LSTM (.pt); "
        "default: the model in the package.",
    ),
) -> None:
    """Tell what a model is: its sizes, its features, and how it was trained."""
    from asr import checkpoint

    path = checkpoint.bundled() if model is None else model
    if _is_ngram(path):
        lines = _ngram(path)
    elif path.is_file() and "lm_format" in checkpoint.read(path):
        lines = _lstm(path)
    else:
        lines = _recognizer(path)
    typer.echo(f"file: {path} ({_bytes(path) / 1e6:.1f} MB)")
    for key, value in lines.items():
        typer.echo(f"{key}: {value}")


def _recognizer(path: Path) -> dict[str, Any]:
    from asr.export import open_engine

    trained = open_engine(path)
    lines: dict[str, Any] = {"kind": "recognizer", "engine": trained.engine, "int8": trained.int8}
    if trained.engine == "torch":  # the weights of an exported model are inside its graphs
        lines["weights"] = _count(trained.model)
    lines["memory step"] = f"{1000 * trained.model.frame_seconds:g} ms"
    lines["alphabet"] = repr(trained.tokenizer.alphabet)
    lines |= _section("features", asdict(trained.features))
    return (
        lines
        | _section("model", asdict(trained.model.options))
        | _section("training", trained.info)
    )


def _lstm(path: Path) -> dict[str, Any]:
    from asr.lm_checkpoint import load_lm
    from asr.tokenizer import Tokenizer

    trained = load_lm(path)
    key = {"characters": "lm", "words": "word_lm"}[trained.kind]
    lines = {
        "kind": f"language model of {trained.kind}, to be named as {key} in the TOML beside a model",
        "weights": _count(trained.model),
    }
    if isinstance(trained.tokenizer, Tokenizer):
        lines["alphabet"] = repr(trained.tokenizer.alphabet)
    return (
        lines
        | _section("model", asdict(trained.model.options))
        | _section("training", trained.info)
    )


def _ngram(path: Path) -> dict[str, Any]:
    from asr import ngram

    found = ngram.read(path)
    lines: dict[str, Any] = {
        "kind": "word n-gram language model, to be named as ngram in the TOML beside a model",
        "order": found.order,
    }
    return lines | {f"{n}-grams": f"{count:,}" for n, count in enumerate(found.counts, 1)}


def _is_ngram(path: Path) -> bool:
    """Whether a file is the binary, by what is in it, or ARPA, by its name."""
    if path.name.endswith((".arpa", ".arpa.gz")):
        return True
    from asr.ngram.files import DAMAGED

    try:
        with zipfile.ZipFile(path) as archive:
            return "format.npy" in archive.namelist()
    except (OSError, *DAMAGED):
        return False


def _section(name: str, values: dict[str, Any]) -> dict[str, Any]:
    return {f"{name}.{key}": value for key, value in values.items()}


def _count(model: Any) -> str:
    return f"{sum(weight.numel() for weight in model.parameters()):,}"


def _bytes(path: Path) -> int:
    files = path.iterdir() if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files)
