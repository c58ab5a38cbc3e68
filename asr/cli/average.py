"""`asr average`: several models in, their mean out."""

from pathlib import Path

import typer

from asr.cli.base import app


@app.command(epilog="Example: asr average runs/mini/step-*.pt --output averaged.pt")
def average(
    checkpoints: list[Path] = typer.Argument(..., help="Models of one training."),
    output: Path = typer.Option(..., "--output", "-o", help="Where the mean goes."),
    half: bool = typer.Option(False, help="Store 16-bit weights: half the size."),
) -> None:
    """Write the model whose weights are the mean of several."""
    from asr import checkpoint

    checkpoint.save(output, checkpoint.average(checkpoints), half=half)
    typer.echo(output)
