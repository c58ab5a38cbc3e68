"""`asr transcribe`: recordings in, texts on stdout or a file of each out."""

# ruff: noqa: B008 - one parameter an option is how Typer reads a command

import time
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from asr.cli.base import BEAM, DEVICE, MODEL, SOME_FAILED, THREADS, app, complain, note, tracked
from asr.errors import AsrError, ConfigError

if TYPE_CHECKING:
    from asr.transcript import Transcript


@app.command(epilog="Example: asr transcribe talk.wav call.mp3 --format srt --output-dir subtitles")
def transcribe(
    files: list[Path] = typer.Argument(..., help="Recordings of up to 60 s."),
    model: Path | None = MODEL,
    format_: str = typer.Option("txt", "--format", help="txt, json, srt, vtt or tsv."),
    output_dir: Path | None = typer.Option(
        None,
        help="Write one file per recording here, talk.wav as talk.txt; where two recordings would share "
        "a name, as talk.wav.txt, or with the folders that tell them apart.",
    ),
    beam_size: int | None = BEAM,
    threads: int | None = THREADS,
    device: str = DEVICE,
) -> None:
    """Turn recordings into text.

    Texts go to stdout, after the file's name where there are several; a single one goes there in any format.
    """
    from asr.recognizer import load
    from asr.writers import in_order, output_paths, save_each, writer

    files = list(dict.fromkeys(files))
    write = writer(format_)
    if output_dir is None and format_ != "txt" and len(files) > 1:
        raise ConfigError(f"--format {format_}: several recordings need --output-dir")
    recognizer = load(model, device=device, beam_size=beam_size, threads=threads)
    started = time.perf_counter()
    results = recognizer.transcribe_each(files)
    if output_dir is not None:
        results = save_each(results, output_paths(files, output_dir, format_), write)
    lone = len(files) == 1
    shown = write if lone and output_dir is None else _line
    failed, seconds = 0, 0.0
    for index, result in tracked(in_order(results), "transcribing", len(files)):
        if isinstance(result, AsrError):
            complain(str(result))
            failed += 1
            continue
        seconds += result.duration
        if not result.complete:
            note(f"warning: {files[index]}: cut at the length limit, its end may be missing")
        typer.echo(("" if lone else f"{files[index]}: ") + shown(result), nl=False)
    if output_dir is not None:
        elapsed = time.perf_counter() - started
        factor = f"real-time factor {elapsed / seconds:.4f}, " if seconds else ""
        done = f"{len(files) - failed} of {len(files)} files, {seconds:.1f} s of audio"
        note(f"{done} in {elapsed:.1f} s, {factor}written to {output_dir}")
    raise typer.Exit(SOME_FAILED if failed else 0)


def _line(transcript: "Transcript") -> str:
    return transcript.text + "\n"
