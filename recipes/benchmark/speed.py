"""How fast recognition is on this machine: a manifest in, tables on stderr and one JSON line on stdout out.

Everything runs on the same recordings, one after the other: this package's searches with both engines in several
precisions, and, where the extra `benchmark` is installed, faster-whisper's tiny.en in 8 bits and PocketSphinx. Each
setting runs in a process of its own, so that its peak memory is its own. Recordings are read and resampled before the
clock starts. A first pass warms up (allocator, kernel choice, weights into memory); of the passes after it the fastest
counts for each batch: other work on the machine can only add time, so the shortest is nearest to what the code costs.
"""

import argparse
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

from asr.errors import AsrError

if __package__:
    from recipes.benchmark.systems import Plan, Result, installed, measure
else:
    from systems import Plan, Result, installed, measure

SAMPLES = Path(__file__).parents[2] / "data" / "samples" / "manifest.jsonl"
ALWAYS = (("torch", "float32"), ("onnx", "float32"), ("onnx", "int8"))
ONCE = (("torch", "bf16"), ("torch", "int8"))  # with the first number of threads only
SEARCHES = ("greedy", "beam8", "full")
OTHERS = {"whisper": ("beam5", "greedy"), "pocketsphinx": ("beam",)}
BEAMS = (1, 2, 4, 8, 16)
LENGTHS = (5.0, 10.0, 20.0, 40.0)


def plans(options: argparse.Namespace) -> Iterator[tuple[str, Plan]]:
    """All settings with the table each belongs to, in the order in which they run."""
    one = options.threads[0]
    plan = Plan("asr", str(options.manifest), options.limit, one, options.seconds)
    plan = replace(plan, model=str(options.model or ""), lm=options.lm, ngram=options.ngram)
    for threads in options.threads:
        settings = ALWAYS if options.quick or threads != one else ALWAYS + ONCE
        for search in SEARCHES:
            for engine, precision in settings:
                setting = replace(plan, engine=engine, precision=precision, search=search)
                yield "searches", replace(setting, threads=threads, batches=(1, options.batch))
    for system, searches in OTHERS.items():
        # PocketSphinx has one thread only.
        counts = options.threads if system == "whisper" else options.threads[:1]
        for threads in counts if installed(system) else ():
            for search in searches[:1] if options.quick else searches:
                setting = replace(plan, system=system, search=search, threads=threads)
                yield "others", replace(setting, passes=1)
    if options.quick:
        return
    plan = replace(plan, engine="torch", precision="float32")
    for size in BEAMS:
        yield "beams", replace(plan, search=f"beam{size}")
    for search in ("greedy", "full"):
        for length in LENGTHS:
            yield "lengths", replace(plan, search=search, length=length)


def in_new_process(plan: Plan) -> Result:
    """What the plan gives in a process that has done nothing else."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(measure, plan).result()


HEAD = (
    "system        engine  precision  search  threads  length s  batch     RTF  CPU RTF"
    "  10 s takes s     WER  CPU used  peak MiB"
)


def rows(result: Result) -> list[str]:
    """A result as lines of the table, one a batch size."""
    start = (
        f"{result.system:<12}  {result.engine or '-':<6}  {result.precision or '-':<9}"
        f"  {result.search:<6}  {result.threads:7d}  {result.length or '-':>8}"
    )
    wer = "-" if result.wer is None else f"{result.wer:.1%}"
    return [
        f"{start}  {timing.batch:5d}  {timing.rtf:6.4f}  {timing.cpu_rtf:7.4f}"
        f"  {result.latency_seconds:12.3f}  {wer:>6}"
        f"  {timing.cpu_share:8.0%}  {timing.peak_rss_mib:8d}"
        for timing in result.timings
    ]


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="How fast recognition is on this machine, beside others.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    add = parser.add_argument
    add("manifest", type=Path, nargs="?", default=SAMPLES, help="recordings with their texts")
    add("--model", type=Path, help="checkpoint; default: the bundled one")
    add("--lm", default="", help="character language model of the full search")
    add("--ngram", default="", help="word n-gram model of the full search")
    add("--limit", type=int, default=20, help="utterances, evenly spread; 0 is all")
    add("--threads", type=int, nargs="+", default=[1, 2][: max(1, cpus or 1)], help="of each")
    add("--batch", type=int, default=8, help="utterances decoded together, beside one by one")
    add("--seconds", type=float, default=1.0, help="repeat passes so long, two at least")
    add("--quick", action="store_true", help="five utterances, one thread, fewer settings")
    options = parser.parse_args(arguments)
    if options.quick:
        options.limit, options.threads, options.seconds = 5, [1], 0.0
    if min(*options.threads, options.batch) < 1 or options.limit < 0 or options.seconds < 0:
        parser.error("threads and batch must be 1 or more, limit and seconds 0 or more")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure every setting, print tables and the JSON line; the exit status."""
    options = parse(arguments)
    began, table, found = time.perf_counter(), "", []
    for name, plan in plans(options):
        if name != table:
            print(f"\n{name}\n{HEAD}", file=sys.stderr)
            table = name
        try:
            result = in_new_process(plan)
        except AsrError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        print("\n".join(rows(result)), file=sys.stderr, flush=True)
        found.append({"table": name, **asdict(result)})
    if __package__:
        from recipes.benchmark.train_speed import machine
    else:
        from train_speed import machine
    values = {
        "benchmark": "speed",
        **machine(),
        "manifest": str(options.manifest),
        "limit": options.limit,
        "quick": options.quick,
        "minutes": round((time.perf_counter() - began) / 60, 1),
        "results": found,
    }
    print(json.dumps(values))
    return 0


if __name__ == "__main__":
    sys.exit(main())
