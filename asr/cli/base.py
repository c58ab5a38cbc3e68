"""What all commands share: the app itself, its exit statuses, common options, and how it speaks on stderr.

A command's own file holds its arguments, one call and what is printed; see asr/cli/__init__.py for the list.
"""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup

from asr.errors import AsrError, ConfigError

SOME_FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130
STDERR = 2
FIRST = ("transcribe", "listen", "evaluate", "train", "prepare")
"""The commands that --help lists before the others."""


class _Commands(TyperGroup):
    """Turns what a user can cause into one line on stderr and an exit status."""

    def list_commands(self, ctx: Any) -> list[str]:
        names = sorted(super().list_commands(ctx))
        return sorted(names, key=lambda name: FIRST.index(name) if name in FIRST else len(FIRST))

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except AsrError as error:
            complain(str(error))
        except BrokenPipeError:
            raise
        except OSError as error:
            # Of two names the second is what a temporary file was to become.
            name = error.filename2 or error.filename or "input or output"
            complain(f"{name}: {error.strerror or error}")
        except KeyboardInterrupt:
            note("interrupted")
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

BEAM = typer.Option(None, "--beam-size", help="Hypotheses kept; default: the model's.")
DEVICE = typer.Option("cpu", help="cpu, cuda or cuda:N.")
THREADS = typer.Option(None, help="CPU threads; default: torch's choice.")
MODEL = typer.Option(None, help="Model file or exported folder; default: the model in the package.")


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"asr {version('asr')}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(
        False, "--version", callback=_print_version, is_eager=True, help="Print it and exit."
    ),
) -> None:
    pass


def printable(text: str) -> str:
    r"""Return text as one line of visible characters: a file name may hold a line break, shown as \n."""
    shown = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return "".join(shown)


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keep off stderr what C libraries write there, libmpg123's notes on damage for instance; our lines still come."""
    try:
        own = sys.stderr.fileno() == STDERR
    except (AttributeError, OSError, ValueError):  # it is closed, or no file
        own = False
    if not own:
        yield
        return
    before, kept = sys.stderr, os.dup(STDERR)
    with open(kept, "w", buffering=1, encoding=before.encoding, errors=before.errors) as stream:
        sys.stderr = stream
        with open(os.devnull, "w") as nothing:
            os.dup2(nothing.fileno(), STDERR)
        try:
            yield
        finally:
            stream.flush()
            os.dup2(kept, STDERR)
            sys.stderr = before


def note(line: str) -> None:
    """Print a line on stderr."""
    typer.echo(printable(line), err=True)


def complain(message: str) -> None:
    """Print an error on stderr."""
    note(f"error: {message}")


def make_folder(folder: Path, option: str) -> None:
    """Make the folder that an option needs, if need be; raises ConfigError where nothing can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{option} {folder}: {error.strerror or error}") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(f"{option} {folder}: cannot be written to")


def main() -> None:
    """Run the command line: the entry point of `asr` and of `python -m asr`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # file names need not be UTF-8
    app()
