"""How far a job over many recordings has come, and what it did: a bar and a table on stderr."""

import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from asr.files import is_terminal

if TYPE_CHECKING:
    from rich.progress import Progress

    from asr.bulk import Plan, Result, Tally


class Follower:
    """A bar on stderr, if that is a terminal, that moves with the audio dealt with, within long files too.

    The time left is reckoned by the files' sizes, which unlike their lengths cost nothing to know; how far a file has
    come, by the length in its header. One whose header does not state it counts when it is done.
    """

    def __init__(self, plan: "Plan") -> None:
        from asr.bulk import Tally

        self.problems = len(plan.problems)  # which are in no file of the bar
        self.tally = Tally(failed=self.problems, skipped=len(plan.skipped))
        self.paths = [source.path for source in plan.sources]
        self.sizes = [_size(path) for path in self.paths]
        self.bar = _bar()
        self.task = self.bar.add_task("transcribing", total=sum(self.sizes), files="", speed="")
        self.started = time.perf_counter()
        self.finished = 0  # bytes
        self.begun: dict[int, float] = {}  # seconds dealt with of files that are not done
        self.lengths: dict[int, float | None] = {}

    def follow(self, results: Iterable[tuple[int, "Result"]]) -> Iterator[tuple[int, "Result"]]:
        """Pass results on and count them."""
        with self.bar:
            self.started = time.perf_counter()
            for index, result in results:
                self.tally.add(result)
                self.finished += self.sizes[index]
                self.begun.pop(index, None)
                self._show()
                yield index, result

    def move(self, index: int, seconds: float) -> None:
        """Take note that so many seconds of a file have been dealt with."""
        if self.bar.disable:
            return
        self.begun[index] = seconds
        self._show()

    def _show(self) -> None:
        tally = self.tally
        heard = tally.seconds + sum(self.begun.values())
        rate = heard / (time.perf_counter() - self.started)
        self.bar.update(
            self.task,
            completed=self.finished + sum(self._share(*item) for item in self.begun.items()),
            files=f"{tally.done + tally.failed - self.problems}/{len(self.sizes)}",
            speed=f"{rate:.0f} × real time",
        )

    def _share(self, index: int, seconds: float) -> float:
        """The bytes of a file that so many of its seconds stand for."""
        if index not in self.lengths:
            self.lengths[index] = _stated_seconds(self.paths[index])
        length = self.lengths[index]
        return self.sizes[index] * min(1.0, seconds / length) if length else 0.0


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
        redirect_stdout=is_terminal(sys.stdout),
    )


def _stated_seconds(path: Path) -> float | None:
    from asr import audio
    from asr.errors import AudioError

    try:
        return audio.stated_seconds(path)
    except AudioError:  # the transcription names it
        return None


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
