"""What a training shows: a progress bar or lines on stderr, metrics.jsonl, and TensorBoard curves and pictures."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from asr.training.schedule import Progress


class Monitor:
    """Collects losses between two log lines; a silent one (`output` None) is what the other processes get."""

    def __init__(self, output: Path | None) -> None:
        self.output = output
        self.sums: dict[str, float] = {}
        self.started = time.perf_counter()
        self.board: Any = None
        if output is not None:
            from torch.utils.tensorboard import SummaryWriter

            output.mkdir(parents=True, exist_ok=True)
            self.board = SummaryWriter(str(output / "tensorboard"))  # type: ignore[no-untyped-call]

    def say(self, line: str) -> None:
        """One line on stderr."""
        if self.output is not None:
            print(line, file=sys.stderr, flush=True)

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
        """Show and keep the means since the last call, per target token, and the speed."""
        seconds = time.perf_counter() - self.started
        targets = max(1.0, self.sums.get("targets", 0))
        row = {name: self.sums.get(name, 0.0) / targets for name in ("attention", "ctc", "guide")}
        row["gradient_norm"] = self.sums.get("gradient_norm", 0.0) / max(
            1.0, self.sums.get("steps", 0)
        )
        row["times_real_time"] = self.sums.get("audio_seconds", 0.0) / seconds
        row["data_wait"] = self.sums.get("waited", 0.0) / seconds
        row["learning_rate"] = learning_rate
        self.write("train", progress, row)
        self.say(
            f"step {progress.step}  epoch {progress.epoch}  {progress.elapsed / 3600:.2f} h  "
            f"attention {row['attention']:.3f}  ctc {row['ctc']:.3f}  guide {row['guide']:.3f}  "
            f"norm {row['gradient_norm']:.2f}  lr {learning_rate:.2e}  {row['times_real_time']:.0f}x real time  "
            f"data wait {row['data_wait']:.1%}"
        )
        self.sums.clear()
        self.started = time.perf_counter()

    def write(self, kind: str, progress: Progress, row: dict[str, float]) -> None:
        """Append a row to metrics.jsonl and to TensorBoard."""
        if self.output is None:
            return
        with open(self.output / "metrics.jsonl", "a", encoding="utf-8") as file:
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
        """Write out what is buffered."""
        if self.board is not None:
            self.board.close()
