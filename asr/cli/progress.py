"""How far a job over many recordings has come, and what it did: a bar and a table on stderr."""

import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

    from asr.bulk import Plan, Result, Tally


def followed(
    results: Iterable[tuple[int, "Result"]], plan: "Plan", tally: "Tally"
) -> Iterator[tuple[int, "Result"]]:
    """Pass results on and count them, with a bar on stderr if that is a terminal.

    The time left is reckoned by the files' sizes, which unlike their lengths cost nothing to know.
    """
    sizes = [_size(source.path) for source in plan.sources]
    with _bar() as bar:
        task = bar.add_task("transcribing", total=sum(sizes), files="", speed="")
        started = time.perf_counter()
        for index, result in results:
            tally.add(result)
            rate = tally.seconds / (time.perf_counter() - started)
            files = f"{tally.done + tally.failed}/{len(sizes)}"
            bar.update(task, advance=sizes[index], files=files, speed=f"{rate:.0f} × real time")
            yield index, result


def print_summary(tally: "Tally", elapsed: float, wanted: int) -> None:
    """Print what was done as one row below its headings."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    confidence = "-" if tally.confidence is None else f"{tally.confidence:.2f}"
    factor, speed = "-", "-"
    if tally.seconds and elapsed:
        factor, speed = f"{elapsed / tally.seconds:.4f}", f"{tally.seconds / elapsed:.0f}"
    row = {
        "files": f"{tally.done} of {wanted}",
        "failed": str(tally.failed),
        "skipped": str(tally.skipped),
        "audio": _clock(tally.seconds),
        "time": _clock(elapsed),
        "real-time factor": factor,
        "× real time": speed,
        "words": str(tally.words),
        "confidence": confidence,
        "flagged": _flags(tally),
    }
    for name in row:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_row(*row.values())
    Console(stderr=True, width=max(120, Console(stderr=True).width)).print(table)


def _bar() -> "Progress":
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[files]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[speed]}"),
        console=console,
        disable=not console.is_terminal,
        transient=True,
        # A redirected stdout is the user's file: the bar must not take over what is printed to it.
        redirect_stdout=sys.stdout.isatty(),
    )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _clock(seconds: float) -> str:
    """Return 12.3 s, or 1:02:03 from a minute on."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, second = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{second:02d}"


def _flags(tally: "Tally") -> str:
    kinds = ", ".join(f"{count} {kind}" for kind, count in tally.failures.most_common())
    return kinds or "0"
