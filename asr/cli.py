"""The commands: arguments in, one call each, results on stdout, progress and errors on stderr.

Exit status: 0 all done; 1 some of the files could not be used, the rest is done; 2 wrong arguments or input that
the whole job needs; 130 interrupted. Nothing heavy is imported until a command needs it.
"""

import io
import json
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import typer
from typer.core import TyperGroup

from asr.errors import AsrError, ConfigError

if TYPE_CHECKING:
    from asr.evaluate import Evaluation
    from asr.transcript import Transcript

T = TypeVar("T")
SOME_FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130


class _Commands(TyperGroup):
    """Turns what a user can cause into one line on stderr and an exit status."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except AsrError as error:
            _complain(str(error))
        except BrokenPipeError:
            raise
        except OSError as error:
            _complain(f"{error.filename or 'input or output'}: {error.strerror or error}")
        except KeyboardInterrupt:
            _note("interrupted")
            raise typer.Exit(INTERRUPTED) from None
        raise typer.Exit(BAD_INPUT)


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="A Listen-Attend-Spell speech recognizer: prepare, train, evaluate, transcribe.",
    epilog="Exit status: 0 all done, 1 some files failed, 2 wrong arguments or input, 130 interrupted.",
)

BEAM = typer.Option(None, "--beam-size", help="Hypotheses kept; 1, the default, is greedy.")
DEVICE = typer.Option("cpu", help="cpu, cuda or cuda:N.")
THREADS = typer.Option(None, help="CPU threads; default: torch's choice.")
MODEL = typer.Option(None, help="Model file; default: the one in the package.")
FIGURES = (
    *("wer", "wer_interval", "cer", "audio_seconds", "real_time_factor", "diagonality"),
    *("empty_references", "empty_hypotheses", "cut"),
)


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
    for index, result in _tracked(in_order(results), "transcribing", len(files)):
        if isinstance(result, AsrError):
            _complain(str(result))
            failed += 1
            continue
        seconds += result.duration
        if not result.complete:
            _note(f"warning: {files[index]}: cut at the length limit, its end may be missing")
        typer.echo(("" if lone else f"{files[index]}: ") + shown(result), nl=False)
    if output_dir is not None:
        elapsed = time.perf_counter() - started
        factor = f"real-time factor {elapsed / seconds:.4f}, " if seconds else ""
        done = f"{len(files) - failed} of {len(files)} files, {seconds:.1f} s of audio"
        _note(f"{done} in {elapsed:.1f} s, {factor}written to {output_dir}")
    raise typer.Exit(SOME_FAILED if failed else 0)


@app.command(
    epilog="Example: asr evaluate model.pt test-clean.jsonl --beam-size 8 --output rows.tsv"
)
def evaluate(
    model: Path = typer.Argument(..., help="Model file."),
    manifest: Path = typer.Argument(..., help="Manifest, JSON lines."),
    beam_size: int | None = BEAM,
    limit: int = typer.Option(0, min=0, help="Only so many, evenly spread; 0 is all."),
    output: Path | None = typer.Option(None, help="Write a line per utterance: .tsv or .jsonl."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object instead of a table."),
    threads: int | None = THREADS,
    device: str = DEVICE,
) -> None:
    """Measure word and character error rates of a model on a manifest."""
    from asr import manifest as manifests
    from asr.evaluate import evaluate as measure
    from asr.evaluate import summary, write_rows
    from asr.recognizer import load
    from asr.training.validation import spread

    if output is not None and output.suffix not in (".tsv", ".jsonl"):
        raise ConfigError(f"--output {output}: must end in .tsv or .jsonl")
    utterances = spread(manifests.read(manifest), limit)
    recognizer = load(model, device=device, beam_size=beam_size, threads=threads)
    result = measure(recognizer, utterances, progress=sys.stderr.isatty())
    typer.echo(json.dumps(_figures(result)) if as_json else summary(result))
    if output is not None:
        write_rows(output, result)
    raise typer.Exit(SOME_FAILED if result.unreadable else 0)


@app.command(
    epilog="Example: asr train recipes/librispeech/mini.toml --hours 2 --set training.seed=2"
)
def train(
    recipe: Path = typer.Argument(..., help="Recipe, TOML."),
    set_: list[str] | None = typer.Option(
        None, "--set", metavar="SECTION.KEY=VALUE", help="Change an option of the recipe."
    ),
    hours: float | None = typer.Option(None, help="Train so long: --set training.hours=H."),
    output: Path | None = typer.Option(None, help="Folder for all results; default: runs/RECIPE."),
    resume: bool = typer.Option(True, help="Go on from what is in the folder, or begin anew."),
    init: Path | None = typer.Option(None, help="Model to begin with, where its weights fit."),
    device: str = DEVICE,
) -> None:
    """Train a model by a recipe; Ctrl-C saves, and the same command goes on from there."""
    from asr import config, training

    overrides = [*(set_ or []), *([] if hours is None else [f"training.hours={hours}"])]
    options = config.load(recipe, overrides)
    path = training.train(
        output or Path("runs") / recipe.stem,
        model=options.model,
        data=options.data,
        training=options.training,
        features=options.features,
        augmentation=options.augment,
        resume=resume,
        initial=init,
        device=device,
    )
    typer.echo(path)


@app.command(
    epilog="Example: asr prepare librispeech data --download --subset train-clean-5 --output data/manifests"
)
def prepare(
    arguments: list[str] = typer.Argument(
        ..., metavar="CORPUS ROOT | --check MANIFEST...", show_default=False
    ),
    output: Path | None = typer.Option(None, help="Folder for the manifests."),
    download: bool = typer.Option(False, "--download", help="Fetch it into ROOT first."),
    subset: list[str] | None = typer.Option(None, help="Which archive to fetch; may be repeated."),
    mirror: str | None = typer.Option(None, metavar="URL", help="Folder to fetch from instead."),
    name: str | None = typer.Option(None, help="Begin the manifests' names so."),
    holdout: float | None = typer.Option(
        None, help="Fraction, or number of utterances, that becomes the dev manifest."
    ),
    seed: int = typer.Option(0, help="Of the choice of --holdout."),
    check: bool = typer.Option(False, "--check", help="Look for faults in the manifests."),
    report: Path | None = typer.Option(None, help="Write all that --check finds here, as JSON."),
) -> None:
    """Write a corpus's manifests, or check manifests that are there.

    CORPUS: librispeech, ljspeech, common_voice, vctk, kaldi_dir, folder, csv_file. ROOT: its folder or file.

    With --check and no CORPUS, all arguments are manifests, which are checked together.
    """
    from asr import corpora

    if report is not None and not check:
        raise ConfigError("--report is where --check writes what it finds: give it too")
    if check and arguments[0] not in corpora.CORPORA:
        if output or download or subset or mirror or name or holdout is not None:
            raise ConfigError(
                f"{arguments[0]!r} is no CORPUS, and manifests take no option but --check and --report; "
                f"a CORPUS is one of {', '.join(corpora.CORPORA)}"
            )
        raise typer.Exit(0 if _check(arguments, report) else SOME_FAILED)
    if len(arguments) != 2:
        raise ConfigError("prepare takes a CORPUS and its ROOT, or --check and manifests")
    if output is None:
        raise ConfigError("prepare needs --output, a folder for the manifests")
    corpus, root = arguments
    if (subset or mirror) and not download:
        raise ConfigError("--subset and --mirror say what --download fetches: give it too")
    folder = _download(corpus, root, subset or [], mirror) if download else Path(root)
    summary = corpora.prepare(corpus, folder, output, name=name, holdout=holdout, seed=seed)
    corpora.print_summary(summary)
    fine = not check or _check([split.manifest for split in summary.splits], report)
    raise typer.Exit(SOME_FAILED if summary.problems or not fine else 0)


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


def _tracked(results: Iterable[T], name: str, total: int) -> Iterator[T]:
    """Pass results on, with a progress bar on stderr if that is a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    hidden = not console.is_terminal
    # A redirected stdout is the user's file: the bar must not take over what is printed to it.
    shared = sys.stdout.isatty()
    with Progress(console=console, disable=hidden, transient=True, redirect_stdout=shared) as bar:
        yield from bar.track(results, total=total, description=name)


def _download(corpus: str, root: str, subsets: list[str], mirror: str | None) -> Path:
    from asr.corpora.download import ARCHIVES, download

    names = subsets or [corpus]
    known = [name for name, archive in ARCHIVES.items() if archive.corpus == corpus]
    for name in names:
        if not known:
            raise ConfigError(f"--download: {corpus} has no public archive")
        if name not in known:
            wrong = f"no subset {name!r} of {corpus}" if subsets else f"{corpus} needs --subset"
            raise ConfigError(f"--download: {wrong}: choose from {', '.join(known)}")
    folders = [download(name, root, mirror=mirror) for name in names]
    return folders[0]  # all subsets of a corpus lie in one


def _check(manifests: Iterable[str | Path], report: Path | None) -> bool:
    from asr import doctor

    found = doctor.check_manifests(manifests)
    doctor.print_report(found)
    if report is not None:
        doctor.write_json(found, report)
    return found.ok


def _figures(result: "Evaluation") -> dict[str, Any]:
    counts = {"utterances": len(result.rows), "unreadable": len(result.unreadable)}
    edits = {"words": asdict(result.words), "characters": asdict(result.characters)}
    return counts | {name: getattr(result, name) for name in FIGURES} | edits


def _line(transcript: "Transcript") -> str:
    return transcript.text + "\n"


def _note(line: str) -> None:
    typer.echo(line, err=True)


def _complain(message: str) -> None:
    _note(f"error: {message}")


def main() -> None:
    """Run the command line: the entry point of `asr` and of `python -m asr`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # file names need not be UTF-8
    app()
