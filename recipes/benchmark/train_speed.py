"""How fast a recipe trains on this machine: a recipe in, a table on stderr and one JSON line on stdout out.

Made-up utterances of one length go through the same batches, losses, clipping and optimizer as in training. Each
combination of threads and precision runs in a process of its own, so that its peak memory is its own. After some
steps of warm-up (allocator, kernel choice) the shortest of the measured steps counts: other work on the machine can
only ever add time, so the shortest is nearest to what the code costs, and repeats from one run to the next. Where
even that one got less than its threads' worth of CPU, the machine was busy and the figure is too low.
"""

import argparse
import json
import multiprocessing
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from asr import config, phonemes
from asr.augment import spec_augment
from asr.batching import Batch, Example, TrainingSet
from asr.config import Config
from asr.errors import AsrError
from asr.model import Seq2Seq
from asr.tokenizer import Tokenizer
from asr.training.optimizer import Optimizer, build
from asr.training.run import new_model
from asr.training.schedule import loss_weights

CHARACTERS_A_SECOND = 14  # of read English
PARTS = ("data", "forward", "backward", "optimizer")


@dataclass(frozen=True)
class Plan:
    """One measurement."""

    recipe: str
    overrides: tuple[str, ...]
    threads: int
    precision: str  # float32 | bf16
    seconds: float  # of every utterance
    at_step: int  # the losses are weighted as in this step of a training
    warmup: int  # steps
    repeats: int  # steps


@dataclass(frozen=True)
class Speed:
    """What came out; seconds are those of the fastest step, the parts add up to the step."""

    threads: int
    precision: str
    parameters: int
    batch: int  # utterances
    times_real_time: float
    step_seconds: float
    data_seconds: float
    forward_seconds: float  # SpecAugment included
    backward_seconds: float
    optimizer_seconds: float  # clipping included
    median_step_seconds: float
    data_share: float  # of the fastest step
    cpu_share: float  # CPU seconds per second and thread of the fastest step; under 0.9 the machine was busy
    peak_rss_mib: int


def measure(plan: Plan) -> Speed:
    """Train some steps as the plan says; for a process of its own."""
    torch.set_num_threads(plan.threads)
    recipe = config.load(plan.recipe, plan.overrides)
    model = new_model(recipe.model, recipe.features, seed=1, device=torch.device("cpu")).model
    optimizer = build(model, recipe.training.optimizer)
    for parameters in optimizer.param_groups:
        parameters["lr"] = recipe.training.learning_rate
    with tempfile.TemporaryDirectory() as folder:
        data = made_up_data(recipe, plan.seconds, Path(folder) / "features.f16")
        steps, cpu = [], []
        for _ in range(plan.warmup + plan.repeats):
            began = time.process_time()
            batch, times = timed_step(model, optimizer, data, recipe, plan)
            cpu.append(time.process_time() - began)
            steps.append(times)
    steps, cpu = steps[plan.warmup :], cpu[plan.warmup :]
    totals = [sum(times.values()) for times in steps]
    best = min(range(len(steps)), key=totals.__getitem__)
    return Speed(
        threads=plan.threads,
        precision=plan.precision,
        parameters=sum(weight.numel() for weight in model.parameters()),
        batch=len(batch.ids),
        times_real_time=round(batch.seconds / totals[best], 1),
        step_seconds=round(totals[best], 4),
        **{f"{part}_seconds": round(steps[best][part], 4) for part in PARTS},
        median_step_seconds=round(float(np.median(totals)), 4),
        data_share=round(steps[best]["data"] / totals[best], 4),
        cpu_share=round(cpu[best] / totals[best] / plan.threads, 3),
        peak_rss_mib=peak_rss_mib(),
    )


def timed_step(
    model: Seq2Seq,
    optimizer: Optimizer,
    data: TrainingSet,
    recipe: Config,
    plan: Plan,
) -> tuple[Batch, dict[str, float]]:
    """One step as asr.training makes it; its batch, and the seconds of each of its parts."""
    clock = [time.perf_counter()]
    batch = data.batch([(index, 0) for index in range(len(data))])
    clock.append(time.perf_counter())
    optimizer.zero_grad()
    features = spec_augment(batch.features, batch.feature_lengths, recipe.augment)
    weights = loss_weights(plan.at_step, recipe.training)
    with torch.autocast("cpu", torch.bfloat16, enabled=plan.precision == "bf16"):
        losses = model(
            features,
            batch.feature_lengths,
            batch.tokens,
            batch.token_lengths,
            weights,
            batch.phonemes,
            batch.phoneme_lengths,
        )
    clock.append(time.perf_counter())
    (losses.total / losses.targets).backward()
    clock.append(time.perf_counter())
    nn.utils.clip_grad_norm_(model.parameters(), recipe.training.clip)
    optimizer.step()
    clock.append(time.perf_counter())
    seconds = [after - before for before, after in pairwise(clock)]
    return batch, dict(zip(PARTS, seconds, strict=True))


def made_up_data(recipe: Config, seconds: float, path: Path) -> TrainingSet:
    """As many utterances of noise and random letters as the recipe puts into one batch, from a mapped file."""
    hop = recipe.features.hop_ms / 1000
    frames, tokens = round(seconds / hop), round(seconds * CHARACTERS_A_SECOND)
    count = max(1, int(recipe.data.batch_seconds / seconds))
    random = np.random.default_rng(1)
    size = (count * frames, recipe.features.n_mels)
    random.standard_normal(size, dtype=np.float32).astype(np.float16).tofile(path)
    store = np.memmap(path, dtype=np.float16, mode="r").reshape(size)
    letters = random.integers(Tokenizer.first_character, Tokenizer().size, (count, tokens))
    spoken = (
        random.integers(2, phonemes.SIZE, letters.shape)
        if recipe.model.phonemes
        else letters[:, :0]
    )
    examples = [
        Example(
            str(row),
            tuple(letters[row].tolist()),
            0,
            (row * frames,),
            (frames,),
            tuple(spoken[row].tolist()),
        )
        for row in range(count)
    ]
    return TrainingSet(examples, [store], [], hop)


def peak_rss_mib() -> int:
    """The most memory that this process has had, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / 2**20 if sys.platform == "darwin" else peak / 2**10)


def in_new_process(function: Callable[[Plan], Speed], plan: Plan) -> Speed:
    """The function's result from a process that has done nothing else."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, plan).result()


def machine() -> dict[str, Any]:
    """What a speed depends on beside the recipe."""
    return {
        "torch": torch.__version__,
        "cpu": cpu_name(),
        "cpus_usable": len(usable_cpus()),
        "commit": commit(),
    }


def usable_cpus() -> list[int]:
    """The CPUs that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def cpu_name() -> str:
    """The processor as the system calls it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def commit() -> str | None:
    """The commit of the code that was measured, with "-dirty" where files differ from it; None outside git."""
    command = ["git", "describe", "--always", "--dirty", "--exclude", "*"]
    folder = Path(__file__).parent
    try:
        found = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()


def table(speeds: Sequence[Speed]) -> str:
    """The results for people."""
    head = "threads  precision  x real time  step s  data  forward  backward  optimizer  CPU used  peak MiB"
    lines = [
        f"{s.threads:7d}  {s.precision:>9}  {s.times_real_time:11.0f}  {s.step_seconds:6.3f}"
        f"  {s.data_seconds / s.step_seconds:4.0%}  {s.forward_seconds / s.step_seconds:7.0%}"
        f"  {s.backward_seconds / s.step_seconds:8.0%}  {s.optimizer_seconds / s.step_seconds:9.0%}"
        f"  {s.cpu_share:8.0%}  {s.peak_rss_mib:8d}"
        for s in speeds
    ]
    return "\n".join([head, *lines])


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="How fast a recipe trains on this machine.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    cpus = len(usable_cpus())
    add = parser.add_argument
    add("recipe", help="a recipe's TOML file")
    add("--set", action="append", default=[], help="section.key=value, as for asr train")
    add("--threads", type=int, nargs="+", default=[cpus], help="of torch, one or more numbers")
    add("--precision", nargs="+", choices=["float32", "bf16"], default=["float32", "bf16"])
    add("--seconds", type=float, default=10.0, help="length of every utterance")
    add("--at-step", type=int, default=5000, help="weigh the losses as in this step")
    add("--warmup", type=int, default=2, help="steps that are not measured")
    add("--repeats", type=int, default=5, help="steps that are; the fastest one counts")
    options = parser.parse_args(arguments)
    if min(*options.threads, options.repeats) < 1 or options.warmup < 0 or options.seconds <= 0:
        parser.error("threads and repeats must be 1 or more, seconds above 0, warmup 0 or more")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure every combination, print the table and the JSON line; the exit status."""
    options = parse(arguments)
    try:
        recipe = config.load(options.recipe, options.set)
    except AsrError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    plans = [
        Plan(
            options.recipe,
            tuple(options.set),
            threads,
            precision,
            options.seconds,
            options.at_step,
            options.warmup,
            options.repeats,
        )
        for threads in options.threads
        for precision in options.precision
    ]
    speeds = [in_new_process(measure, plan) for plan in plans]
    print(table(speeds), file=sys.stderr)
    values = {
        "benchmark": "train_speed",
        **machine(),
        "recipe": options.recipe,
        "set": options.set,
        "utterance_seconds": options.seconds,
        "batch_seconds": recipe.data.batch_seconds,
        "results": [asdict(speed) for speed in speeds],
    }
    print(json.dumps(values))
    return 0


if __name__ == "__main__":
    sys.exit(main())
