"""Trainings small enough for tests: a few toy utterances, a network of a few units, one step in milliseconds."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import soundfile
import torch

from asr import checkpoint, manifest, options, training
from asr.config import Config
from asr.errors import AsrError
from asr.manifest import Utterance
from asr.model import Losses
from asr.training import loop
from recipes.toy.make_toy import make_corpus

ROOT = Path(__file__).resolve().parents[1]

QUIET = {"freq_masks": 0, "time_masks": 0, "speeds": [1.0]}
TINY: dict[str, dict[str, Any]] = {
    "features": {"n_mels": 20},
    "augment": QUIET,
    "model": {
        "encoder": {"width": 8, "channels": 4, "bottom_layers": 1, "pyramid_levels": 0}
        | {"flat_layers": 0, "dropout": 0.0},
        "decoder": {"width": 16, "embedding": 8, "dropout": 0.0, "attention": {"width": 8}},
    },
    "training": {"max_steps": 6, "precision": "float32", "warmup_steps": 2, "log_every": 1},
}
EVERYTHING: dict[str, dict[str, Any]] = {
    "augment": {"freq_masks": 2, "freq_mask_bins": 5, "time_masks": 2, "time_mask_fraction": 0.2}
    | {"speeds": [1.0, 0.9]},
    "model": {"encoder": {"dropout": 0.2}, "decoder": {"dropout": 0.2}},
    "training": {"accumulate": 2, "masks_from": 0, "sampling": 0.5, "sampling_from": 2}
    | {"label_smoothing_from": 3, "guide_steps": 8},
}


def make_manifest(folder: Path, utterances: int = 6, seed: int = 0) -> Path:
    """A manifest of toy speech in `folder`."""
    entries = []
    for audio in make_corpus(folder, utterances=utterances, seed=seed):
        text = audio.with_suffix(".txt").read_text(encoding="utf-8").strip()
        duration = soundfile.info(audio).duration
        entries.append(Utterance(f"{folder.name}-{audio.stem}", audio, duration, text))
    path = folder / "manifest.jsonl"
    manifest.write(path, entries)
    return path


def config(train: Path, *changes: dict[str, dict[str, Any]], dev: bool = False) -> Config:
    """A tiny training on a manifest, its features cached beside it; `changes` are tables over TINY, the last wins."""
    data = {"train": [str(train)], "dev": [str(train)] if dev else []}
    data |= {"cache": str(train.parent / "cache"), "batch_seconds": 2.5, "workers": 1}
    tables: dict[str, Any] = {"data": data}
    for change in (TINY, *changes):
        tables = _merged(tables, change)
    return options.from_dict(Config, tables)


def run(output: Path, recipe: Config, **arguments: Any) -> Path:
    """Train by a recipe; returns `output`."""
    training.train(
        output,
        model=recipe.model,
        data=recipe.data,
        training=recipe.training,
        features=recipe.features,
        augmentation=recipe.augment,
        spelling=recipe.spelling,
        **arguments,
    )
    return output


@dataclass(frozen=True)
class Job:
    """A training for a process of its own, and what is done to it there."""

    output: Path
    recipe: Config
    step_seconds: float = 0.0  # at least, for every step
    clock: float = 1.0  # how much too fast the clock runs
    interrupt_in: int = -1  # step in which Ctrl-C is pressed
    spoil_in: int = -1  # step whose loss is not a number
    port: int = 0  # where the processes of this training meet


def start_process(folder: Path, *jobs: Job, **environment: str) -> "subprocess.Popen[str]":
    """Train one job after the other in a new process, which prints how each of them ended."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"jobs-{environment.get('RANK', '')}.json"
    dicts = [options.to_dict(job) | {"output": str(job.output)} for job in jobs]
    path.write_text(json.dumps(dicts), encoding="utf-8")
    return subprocess.Popen(
        [sys.executable, __file__, str(path)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def rows(output: Path, kind: str = "train") -> list[dict[str, Any]]:
    """What metrics.jsonl holds of a kind."""
    lines = (output / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [row for row in map(json.loads, lines) if row["kind"] == kind]


def losses(output: Path) -> list[tuple[int, float, float]]:
    """Step, attention loss and CTC loss of every logged step."""
    return [(row["step"], row["attention"], row["ctc"]) for row in rows(output)]


def state(output: Path, name: str = "last.pt") -> dict[str, Any]:
    """What a saved state holds."""
    return checkpoint.read(output / name)


def same_weights(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Whether two saved states hold exactly the same weights."""
    pairs = zip(a["weights"].items(), b["weights"].items(), strict=True)
    return all(m == n and torch.equal(v, w) for (m, v), (n, w) in pairs)


def _merged(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
    merged = dict(a)
    for key, value in b.items():
        old = merged.get(key)
        both = isinstance(old, dict) and isinstance(value, dict)
        merged[key] = _merged(old, value) if both else value
    return merged


def _do(job: Job) -> str:
    step, losses_of, monotonic = loop._step, loop._losses, time.monotonic
    steps = itertools.count()

    def changed_step(*arguments: Any) -> bool:
        number = next(steps)
        time.sleep(job.step_seconds)
        if number == job.interrupt_in:
            signal.raise_signal(signal.SIGINT)
        loop._losses = spoilt_losses if number == job.spoil_in else losses_of
        return step(*arguments)

    def spoilt_losses(*arguments: Any) -> Losses:
        found = losses_of(*arguments)
        return replace(found, total=found.total * float("nan"))

    os.environ["MASTER_PORT"] = str(job.port)
    loop._step, time.monotonic = changed_step, lambda: job.clock * monotonic()
    try:
        run(job.output, job.recipe)
        return "finished"
    except (AsrError, KeyboardInterrupt) as error:
        return f"{type(error).__name__} {error}"
    finally:
        loop._step, loop._losses, time.monotonic = step, losses_of, monotonic


def _main(path: Path) -> None:
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also where it was ignored
    for values in json.loads(path.read_text(encoding="utf-8")):
        recipe = options.from_dict(Config, values.pop("recipe"))
        print(_do(Job(output=Path(values.pop("output")), recipe=recipe, **values)), flush=True)


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
