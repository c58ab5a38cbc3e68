"""`asr evaluate`: a model and a manifest in, error rates out."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from asr.cli.base import BEAM, DEVICE, SOME_FAILED, THREADS, app, complain, make_folder
from asr.cli.loading import ENGINE, GREEDY, HOTWORDS, INT8, Loading, open_recognizer
from asr.errors import ConfigError
from asr.files import is_terminal

if TYPE_CHECKING:
    from asr.evaluate import Evaluation

FIGURES = (
    *("wer", "wer_interval", "cer", "audio_seconds", "real_time_factor", "diagonality"),
    *("empty_references", "empty_hypotheses", "cut"),
)


@app.command(
    epilog="Example: asr evaluate model.pt test-clean.jsonl --beam-size 8 --output rows.tsv"
)
def evaluate(
    model: Path = typer.Argument(..., help="Model file or exported folder."),
    manifest: Path = typer.Argument(..., help="Manifest, JSON lines."),
    beam_size: int | None = BEAM,
    greedy: bool = GREEDY,
    hotwords: Path | None = HOTWORDS,
    engine: str | None = ENGINE,
    int8: bool = INT8,
    limit: int = typer.Option(0, min=0, help="Only so many, evenly spread; 0 is all."),
    output: Path | None = typer.Option(None, help="Write a line per utterance: .tsv or .jsonl."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object instead of a table."),
    threads: int | None = THREADS,
    device: str = DEVICE,
) -> None:
    """Measure word and character error rates of a model, with its default search, on a manifest."""
    from asr import manifest as manifests
    from asr.evaluate import evaluate as measure
    from asr.evaluate import summary, write_rows
    from asr.training.validation import spread

    if output is not None and output.suffix not in (".tsv", ".jsonl"):
        raise ConfigError(f"--output {output}: must end in .tsv or .jsonl")
    if output is not None:
        make_folder(output.parent, "--output")
    utterances = spread(manifests.read(manifest), limit)
    recognizer = open_recognizer(
        Loading(model, engine, int8, greedy, beam_size, hotwords, threads, device)
    )
    result = measure(recognizer, utterances, progress=is_terminal(sys.stderr))
    typer.echo(json.dumps(_figures(result)) if as_json else summary(result))
    if as_json:  # the summary names them too
        for item in result.unreadable:
            complain(f"{item.id}: {item.reason}")
    if output is not None:
        write_rows(output, result)
    raise typer.Exit(SOME_FAILED if result.unreadable else 0)


def _figures(result: "Evaluation") -> dict[str, Any]:
    counts = {"utterances": len(result.rows), "unreadable": len(result.unreadable)}
    edits = {"words": asdict(result.words), "characters": asdict(result.characters)}
    return counts | {name: getattr(result, name) for name in FIGURES} | edits
