"""`asr attention`: a recording in, a picture of where the model looked out."""

# ruff: noqa: B008 - one parameter an option is how Typer reads a command

from pathlib import Path

import typer

from asr.cli.base import BEAM, DEVICE, MODEL, app


@app.command(epilog="Example: asr attention talk.wav --output talk.png")
def attention(
    file: Path = typer.Argument(..., help="Recording of up to 60 s."),
    output: Path = typer.Option(..., "--output", "-o", help="Where the picture goes, PNG."),
    model: Path | None = MODEL,
    beam_size: int | None = BEAM,
    device: str = DEVICE,
) -> None:
    """Draw where the model looked for each character, below what it heard."""
    import torch

    from asr import audio
    from asr.recognizer import load
    from asr.report import attention_plot

    recognizer = load(model, device=device, beam_size=beam_size)
    transcript = recognizer.transcribe(file)
    options = recognizer.trained.features
    waveform = torch.from_numpy(audio.read(file, sample_rate=options.sample_rate))
    if transcript.attention is not None:
        title = f"{file.name}: {transcript.text}"
        attention_plot(waveform, transcript.attention, output, features=options, title=title)
    typer.echo(transcript.text)
