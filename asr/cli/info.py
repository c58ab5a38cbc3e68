"""`asr info`: a model in, what it is out."""

from dataclasses import asdict
from pathlib import Path

import typer

from asr.cli.base import app


@app.command(epilog="Example: asr info model.pt")
def info(
    model: Path | None = typer.Argument(None, help="Model file; default: the one in the package."),
) -> None:
    """Tell what a model is: its sizes, its features, and how it was trained."""
    from asr import checkpoint

    path = checkpoint.bundled() if model is None else model
    trained = checkpoint.load(path)
    weights = sum(weight.numel() for weight in trained.model.parameters())
    typer.echo(f"file: {path} ({path.stat().st_size / 1e6:.1f} MB)")
    typer.echo(f"weights: {weights:,}")
    typer.echo(f"memory step: {1000 * trained.model.frame_seconds:g} ms")
    typer.echo(f"alphabet: {trained.tokenizer.alphabet!r}")
    options = {"features": asdict(trained.features), "model": asdict(trained.model.options)}
    for section, values in (options | {"training": trained.info}).items():
        for key, value in values.items():
            typer.echo(f"{section}.{key}: {value}")
