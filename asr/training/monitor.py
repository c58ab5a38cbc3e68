"""What a training shows: a progress bar or lines on stderr, metrics.jsonl, and TensorBoard curves and pictures."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from asr.files import atomic_write
from asr.training import distributed
from asr.training.schedule import Progress

METRICS = "metrics.jsonl"
LOSSES = ("attention", "ctc", "guide", "phonemes")
SUMS = (*LOSSES, "targets", "gradient_norm", "steps", "audio_seconds")


class Monitor:
    """Collects losses between two log lines; a silent one (`output` None) is what the other processes get."""

    def __init__(self, output: Path | None) -> None:
        self.output = output
        self.sums: dict[str, float] = {}
        self.started = time.perf_counter()
        self.board: Any = None
        self.live: Any = None
        self.heard = 0.0  # seconds of audio since the last log line, over all processes
        if output is not None:
            output.mkdir(parents=True, exist_ok=True)

    def begin(self, step: int) -> None:
        """Open the records at a step; rows of a run that went further and lost that work are dropped."""
        self.started = time.perf_counter()
        if self.output is None:
            return
        self.live = _live_bar()
        self.live.start()
        from torch.utils.tensorboard import SummaryWriter

        self.board = SummaryWriter(str(self.output / "tensorboard"), purge_step=step + 1)
        metrics = self.output / METRICS
        if metrics.exists():
            rows = metrics.read_text(encoding="utf-8").splitlines(keepends=True)
            with atomic_write(metrics) as file:
                file.writelines(row for row in rows if _step(row) <= step)

    def say(self, line: str) -> None:
        """One line on stderr, above the progress bar if there is one."""
        if self.output is None:
            return
        if self.live is not None and not self.live.disable:
            self.live.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            print(line, file=sys.stderr, flush=True)

    def show(self, progress: Progress, fraction: float, audio_seconds: float) -> None:
        """Move the progress bar after a step that heard so much audio, over all processes."""
        self.heard += audio_seconds
        if self.live is not None:
            speed = self.heard / (time.perf_counter() - self.started)
            text = f"step {progress.step}  epoch {progress.epoch}  {speed:.0f}x real time"
            self.live.update(self.live.task_ids[0], completed=fraction, description=text)

    @contextmanager
    def bar(self, name: str) -> Iterator[Callable[[int, int], None]]:
        """A progress bar on stderr for the time of the block; gives a function of (done, total)."""
        from rich.console import Console
        from rich.progress import Progress as Bar

        with Bar(console=Console(stderr=True), disable=self.output is None, transient=True) as bar:
            task = bar.add_task(name, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)

    def add(self, **values: float) -> None:
        """Add to the sums that the next log line shows."""
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value

    def log(self, progress: Progress, learning_rate: float) -> None:
        """Show and keep the means since the last call, per target token over all processes, and the speed."""
        seconds = time.perf_counter() - self.started
        totals = distributed.total(*(self.sums.get(name, 0.0) for name in SUMS))
        sums = dict(zip(SUMS, totals, strict=True))
        targets = max(1.0, sums["targets"])
        row = {name: sums[name] / targets for name in LOSSES}
        row["gradient_norm"] = sums["gradient_norm"] / max(1.0, sums["steps"])
        row["times_real_time"] = sums["audio_seconds"] / seconds
        row["data_wait"] = self.sums.get("waited", 0.0) / seconds
        row["learning_rate"] = learning_rate
        row["skipped_steps"] = progress.skipped_steps
        self.write("train", progress, row)
        self.say(
            f"step {progress.step}  epoch {progress.epoch}  {progress.elapsed / 3600:.2f} h  "
            + "".join(f"{name} {row[name]:.3f}  " for name in LOSSES)
            + f"norm {row['gradient_norm']:.2f}  lr {learning_rate:.2e}  {row['times_real_time']:.0f}x real time  "
            f"data wait {row['data_wait']:.1%}"
            + (f"  {progress.skipped_steps} steps skipped" if progress.skipped_steps else "")
        )
        self.sums.clear()
        self.heard = 0.0
        self.started = time.perf_counter()

    def write(self, kind: str, progress: Progress, row: dict[str, float]) -> None:
        """Append a row to metrics.jsonl and to TensorBoard."""
        if self.output is None:
            return
        with open(self.output / METRICS, "a", encoding="utf-8") as file:
            base = {"kind": kind, "step": progress.step, "hours": round(progress.elapsed / 3600, 4)}
            file.write(json.dumps(base | row) + "\n")
        for name, value in row.items():
            self.board.add_scalar(f"{kind}/{name}", value, progress.step)

    def picture(self, name: str, path: Path, progress: Progress) -> None:
        """A PNG file to TensorBoard, if it was made."""
        if self.board is not None and path.exists():
            from matplotlib.image import imread

            self.board.add_image(name, imread(path), progress.step, dataformats="HWC")

    def close(self) -> None:
        """Write out what is buffered and take the progress bar away."""
        if self.live is not None:
            self.live.stop()
        if self.board is not None:
            self.board.close()


def _live_bar() -> Any:
    """A progress bar on stderr that counts from 0 to 1; disabled where stderr is not a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    console = Console(stderr=True)
    disabled = not console.is_terminal
    bar = Bar(*columns, TimeRemainingColumn(), console=console, disable=disabled, transient=True)
    bar.add_task("starting", total=1.0)
    return bar


def _step(row: str) -> float:
    """The step of a row of metrics.jsonl; infinite for one that was cut short when its process was killed."""
    try:
        return float(json.loads(row)["step"])
    except json.JSONDecodeError:
        return float("inf")
