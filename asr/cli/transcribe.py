"""`asr transcribe`: recordings in, texts on stdout or files in every format out."""

import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from asr.cli.base import (
    BEAM,
    DEVICE,
    MODEL,
    SOME_FAILED,
    THREADS,
    app,
    complain,
    make_folder,
    note,
    printable,
    quiet_libraries,
)
from asr.cli.loading import ENGINE, GREEDY, HOTWORDS, INT8, Loading, open_recognizer
from asr.cli.progress import Follower, print_summary
from asr.errors import AsrError, ConfigError

if TYPE_CHECKING:
    from asr.bulk import Plan, Result
    from asr.inputs import Source
    from asr.recognizer import Recognizer
    from asr.writers import Layout, Writer

RECORDINGS = typer.Argument(
    help="Recordings; folders, with all below; patterns in quotes ('talks/**/*.mp3'); manifests (.jsonl); "
    "- is a recording on the standard input.",
)
FORMAT = typer.Option(
    ["txt"],
    "--format",
    help="txt, srt, vtt, json, tsv, ctm or lrc; several as srt,json or by repeating it; or all.",
)
OUTPUT_DIR = typer.Option(
    None,
    readable=False,
    help="Write files here, talk.wav as talk.txt. What a folder holds keeps its subfolders; where two "
    "recordings would share a name, as talk.wav.txt, or with the folders that tell them apart. One command knows no "
    "other's recordings: those of the same name need another folder.",
)
OVERWRITE = typer.Option(
    False,
    "--overwrite",
    help="Also do what is finished: recordings whose outputs all exist and are newer than they are. A json that names "
    "another model or other settings than now is done again anyway; the other formats do not tell what made them.",
)
CHANNEL = typer.Option(
    "mix",
    help="mix (the mean of all), left, right, a number from 0, or split: a transcript of each, "
    "talk.left.txt and talk.right.txt.",
)
WIDTH = typer.Option(None, help="Characters of a subtitle's line.")
COUNT = typer.Option(
    None,
    help="Lines of a subtitle, with --max-line-width: subtitles are filled, whatever the segments.",
)
HIGHLIGHT = typer.Option(
    False, "--highlight-words", help="In srt and vtt, underline each word as it is spoken."
)
PLOT = typer.Option(
    False,
    "--attention-plot",
    help="Also write a picture, talk.png: spectrogram, words, and where the model looked for each character.",
)
BATCH = typer.Option(
    40.0,
    "--batch-size",
    metavar="SECONDS",
    help="Audio decoded together, padding included: more needs more memory; with --greedy it is also faster.",
)

NAMED = 5
"""So many recordings are named in a line about them."""


@app.command(epilog="Example: asr transcribe talks 'more/*.mp3' --format srt,json --output-dir out")
def transcribe(
    recordings: list[str] = RECORDINGS,
    model: Path | None = MODEL,
    format_: list[str] = FORMAT,
    output_dir: Path | None = OUTPUT_DIR,
    overwrite: bool = OVERWRITE,
    channel: str = CHANNEL,
    max_line_width: int | None = WIDTH,
    max_line_count: int | None = COUNT,
    highlight_words: bool = HIGHLIGHT,
    attention_plot: bool = PLOT,
    batch_size: float = BATCH,
    beam_size: int | None = BEAM,
    greedy: bool = GREEDY,
    hotwords: Path | None = HOTWORDS,
    engine: str | None = ENGINE,
    int8: bool = INT8,
    threads: int | None = THREADS,
    device: str = DEVICE,
) -> None:
    """Turn recordings into text.

    Texts go to stdout, after the recording's name where there are several; a single one goes there in any format.
    Errors, progress and a summary go to stderr. A recording that cannot be used is named, and the others are done.
    """
    from asr import bulk
    from asr.writers import Layout, chosen

    writers = chosen(",".join(format_))
    layout = Layout(max_line_width, max_line_count, highlight_words)
    _check(writers, output_dir, attention_plot, batch_size, layout, overwrite=overwrite)
    loading = Loading(model, engine, int8, greedy, beam_size, hotwords, threads, device)
    recognizer = cache(lambda: open_recognizer(loading))  # where all is finished none may be needed
    endings = [*writers, *(["png"] if attention_plot else [])]
    with quiet_libraries(), tempfile.TemporaryDirectory(prefix="asr-") as scratch:
        plan = bulk.plan(
            recordings,
            Path(scratch),
            channel=channel,
            output_dir=output_dir,
            endings=endings,
            overwrite=overwrite,
            recognizer=recognizer,
        )
        if output_dir is None and len(plan.sources) > 1 and list(writers) != ["txt"]:
            raise ConfigError(f"--format {','.join(format_)}: several recordings need --output-dir")
        _announce(plan)
        follower = Follower(plan)
        results = bulk.run(
            recognizer(),
            plan.sources,
            Path(scratch),
            batch_seconds=batch_size,
            attention=attention_plot,
            on_progress=follower.move,
        )
        if output_dir is not None:
            results = _saved(results, plan, recognizer(), writers, layout, attention_plot)
        _follow(follower, results, plan, next(iter(writers.values())), layout)
    raise typer.Exit(SOME_FAILED if follower.tally.failed else 0)


def _check(
    writers: dict[str, "Writer"],
    output_dir: Path | None,
    attention_plot: bool,
    batch_size: float,
    layout: "Layout",
    *,
    overwrite: bool,
) -> None:
    if output_dir is not None:
        make_folder(output_dir, "--output-dir")
    if output_dir is None and len(writers) > 1:
        raise ConfigError("--format: several formats need --output-dir")
    if output_dir is None and attention_plot:
        raise ConfigError("--attention-plot needs --output-dir, a folder for the pictures")
    if not batch_size > 0:
        raise ConfigError(f"--batch-size is {batch_size:g}; it must be more than 0 seconds")
    _warn_of_unused(writers, layout, overwrites=overwrite and output_dir is None)


def _warn_of_unused(writers: dict[str, "Writer"], layout: "Layout", *, overwrites: bool) -> None:
    """Name the options that change nothing beside the others."""
    subtitles = {"srt", "vtt"} & set(writers)
    lines = subtitles or "lrc" in writers
    unused = {
        "--overwrite": ("--output-dir", overwrites),
        "--highlight-words": ("--format srt or vtt", layout.highlight_words and not subtitles),
        "--max-line-width": ("--format srt, vtt or lrc", layout.max_line_width and not lines),
        "--max-line-count": (
            "--max-line-width",
            layout.max_line_count is not None and layout.max_line_width is None,
        ),
    }
    for option, (needed, idle) in unused.items():
        if idle:
            note(f"warning: {option} has no effect without {needed}")


def _announce(plan: "Plan") -> None:
    """Tell what is not done, and what is done again; exit where nothing is left to do."""
    for problem in plan.problems:
        complain(str(problem))
    if plan.skipped:
        what = f"{_are(plan.skipped)} finished and skipped (--overwrite does them again)"
        note(f"{what}: {_listed(plan.skipped)}")
    if plan.outdated:
        what = f"{_are(plan.outdated)} done again: the json is of another model or other settings"
        note(f"{what}: {_listed(plan.outdated)}")
    if not plan.sources:
        raise typer.Exit(SOME_FAILED if plan.problems else 0)


def _are(sources: "Sequence[Source]") -> str:
    return "1 recording is" if len(sources) == 1 else f"{len(sources)} recordings are"


def _listed(sources: "Sequence[Source]") -> str:
    names = [str(source) for source in sources[:NAMED]]
    rest = len(sources) - len(names)
    return ", ".join(names) + (f" and {rest} more" if rest else "")


def _saved(
    results: Iterable[tuple[int, "Result"]],
    plan: "Plan",
    recognizer: "Recognizer",
    writers: dict[str, "Writer"],
    layout: "Layout",
    pictures: bool,
) -> Iterator[tuple[int, "Result"]]:
    """Write all that is asked for; the JSON last, because it tells that the other outputs are by the same model."""
    from asr.bulk import drawn
    from asr.writers import save_each

    last = {ending: write for ending, write in writers.items() if ending == "json"}
    first = {ending: write for ending, write in writers.items() if ending not in last}
    results = save_each(results, plan.stems, first, layout)
    results = drawn(results, plan, recognizer) if pictures else results
    return save_each(results, plan.stems, last, layout)


def _follow(
    follower: Follower,
    results: Iterable[tuple[int, "Result"]],
    plan: "Plan",
    write: "Writer",
    layout: "Layout",
) -> None:
    """Print results in the order of the inputs as they come, and the summary, also when interrupted."""
    from asr.writers import WRITERS, in_order

    sources, started = plan.sources, time.perf_counter()
    several = len(sources) + len(plan.problems) + len(plan.skipped) > 1
    shown = WRITERS["txt"] if plan.stems else write
    try:
        for index, result in in_order(follower.follow(results)):
            name = printable(str(sources[index]))
            if isinstance(result, AsrError):
                complain(str(result))
                continue
            if not result.complete:
                note(f"warning: {name}: cut at the length limit, its end may be missing")
            if several and shown is WRITERS["txt"]:
                text = " ".join(result.text.split())
                typer.echo(f"{name}: {text}")
            else:
                typer.echo(shown(result, layout), nl=False)
    finally:
        if several or plan.stems:
            print_summary(follower.tally, time.perf_counter() - started, len(sources))
