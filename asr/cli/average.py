"""`asr average`: several models in, their mean out."""

from pathlib import Path

import typer

from asr.cli.base import app


@app.command(epilog="Example: asr average runs/mini/step-*.pt --output averaged.pt")
def average(
    checkpoints: list[Path] = typer.Argument(..., help="Models of one training."),
    output: Path = typer.Option(..., "--output", "-o", help="Where the mean goes."),
    bits: int = typer.Option(32, help="Of a stored weight: 32, 16 or 8."),
) -> None:
    """Write the model whose weights are the mean of several."""
    from asr import checkpoint

    checkpoint.save(output, checkpoint.average(checkpoints), bits=bits)
    typer.echo(output)
