"""`asr export`: a model in, a folder of ONNX graphs out."""

from pathlib import Path

import typer

from asr.cli.base import app, note


@app.command(epilog="Example: asr export model.pt --output model-onnx --check talk.wav")
def export(
    model: Path = typer.Argument(..., help="Model file."),
    output: Path = typer.Option(..., "--output", "-o", help="Folder for the graphs."),
    int8: bool = typer.Option(False, "--int8", help="8-bit LSTM and linear layers."),
    check: list[Path] | None = typer.Option(
        None, help="Compare with the original on this recording; may be repeated."
    ),
) -> None:
    """Write a model as ONNX graphs, which --model takes in its place, and its default search with them.

    With --check they are read back first, and no folder is left if they do not compute what the original does.
    """
    import torch

    from asr import audio, checkpoint
    from asr import export as exporting

    trained = checkpoint.load(model)
    rate = trained.features.sample_rate
    waveforms = [torch.from_numpy(audio.read(path, sample_rate=rate)) for path in check or []]
    found = exporting.publish(model, trained, output, int8=int8, waveforms=waveforms)
    if found is not None:
        note(
            f"checked on {found.utterances} recordings: log probabilities differ by at most "
            f"{found.max_difference:.1e} nats, {found.changed} transcripts changed"
        )
    typer.echo(output)
