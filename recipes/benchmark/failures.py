"""Recordings that lead an attention astray in; failures that were seen, and words before and after mending, out.

The recordings are made of real utterances: with a long pause inside, with noise or tones after them, said twice, many
in a row; and of sounds without any speech. A last set is the plain utterances, on which mending must do no harm. Words
are counted as for WER; where nothing is said every word is an invention. The JSON line on stdout has all counts.
"""

import argparse
import json
import random
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from asr import manifest, metrics, recognizer
from asr.confidence import Calibration, load_calibration
from asr.description import Description, describe
from asr.errors import AsrError
from asr.metrics import Counts
from asr.recognizer import Recognizer
from asr.text import normalise
from recipes.benchmark.hearing import RATE, hear, load_waveforms
from recipes.benchmark.sounds import SOUNDS, white
from recipes.benchmark.train_speed import commit

LONGEST = 50.0  # seconds of a recording of many utterances
PLAIN = "plain"


@dataclass(frozen=True)
class Case:
    """One recording and what is said in it; `kind` names how it was made."""

    kind: str
    waveform: Tensor
    reference: str


@dataclass(frozen=True)
class Result:
    """A kind of recordings: edits before and after mending, inventions, and the failures by kind."""

    kind: str
    recordings: int
    before: Counts
    after: Counts
    failures: dict[str, int]


def make_cases(
    waveforms: Sequence[Tensor], texts: Sequence[str], count: int, seed: int
) -> list[Case]:
    """`count` recordings of each kind."""
    rng = random.Random(seed)
    numbers = range(len(waveforms))
    cases = []
    for _ in range(count):
        one, other = rng.sample(numbers, 2)
        noise, seconds = rng.randrange(1 << 30), rng.uniform(2, 8)
        said, twice = texts[one], f"{texts[one]} {texts[one]}"
        pause = white(seconds, -70, noise)
        parts = {
            "pause inside": ([waveforms[one], pause, waveforms[other]], f"{said} {texts[other]}"),
            "noise after": ([waveforms[one], white(seconds, -35, noise)], said),
            "tones after": ([waveforms[one], SOUNDS["tones"](seconds, -20, noise)], said),
            "said twice": ([waveforms[one]] * 2, twice),
        }
        level = rng.choice((-55, -45, -35, -25))
        parts |= {
            f"{name} only": ([make(seconds, level, noise)], "") for name, make in SOUNDS.items()
        }
        chosen = many(waveforms, rng)
        joined = [waveforms[i] for i in chosen], " ".join(texts[i] for i in chosen)
        parts["30 to 50 s"] = joined
        cases += [Case(kind, torch.cat(list(p)), text) for kind, (p, text) in parts.items()]
    return cases


def many(waveforms: Sequence[Tensor], rng: random.Random) -> list[int]:
    """Utterances of 30 s or more together, at most LONGEST; fewer seconds where none fits any more."""
    chosen: list[int] = []
    total = 0.0
    seconds = [len(waveform) / RATE for waveform in waveforms]
    while total < 30 and total + min(seconds) <= LONGEST:
        number = rng.randrange(len(waveforms))
        if total + seconds[number] <= LONGEST:
            chosen.append(number)
            total += seconds[number]
    return chosen


def told(
    model: Recognizer, cases: Sequence[Case], calibration: Calibration | None
) -> list[tuple[str, Description]]:
    """The text before mending, and the description, of each case."""
    found = []
    for heard in hear(model, [case.waveform for case in cases]):
        text = model.tokenizer.decode(heard.hypothesis.tokens)
        described = describe(
            heard.hypothesis, heard.ctc, model.tokenizer, heard.frame_seconds, calibration
        )
        found.append((" ".join(text.split()), described))
    return found


def results(cases: Sequence[Case], found: Sequence[tuple[str, Description]]) -> list[Result]:
    """The results of each kind, in the order in which the kinds come."""
    references = [case.reference for case in cases]
    before = metrics.word_counts(references, [text for text, _ in found])
    after = metrics.word_counts(references, [described.text for _, described in found])
    rows = []
    for kind in dict.fromkeys(case.kind for case in cases):
        own = [number for number, case in enumerate(cases) if case.kind == kind]
        failures = Counter(f.kind for n in own for f in found[n][1].failures)
        pooled = [metrics.total(counts[n] for n in own) for counts in (before, after)]
        rows.append(Result(kind, len(own), pooled[0], pooled[1], dict(failures)))
    return rows


def line(result: Result) -> str:
    """One row of the table."""
    columns = [f"{result.kind:13s} {result.recordings:4d} {result.before.reference_length:6d}"]
    for counts in (result.before, result.after):
        wer = f"{100 * counts.rate:6.1f}" if counts.reference_length else "     -"
        columns.append(
            f"{wer} {counts.substitutions:5d} {counts.deletions:5d} {counts.insertions:5d}"
        )
    columns.append(", ".join(f"{kind} {n}" for kind, n in sorted(result.failures.items())))
    return "  ".join(columns)


def counted(counts: Counts) -> dict[str, float]:
    """Counts for the JSON line."""
    return {
        "words": counts.reference_length,
        "substitutions": counts.substitutions,
        "deletions": counts.deletions,
        "insertions": counts.insertions,
        "wer": round(counts.rate, 4) if counts.reference_length else None,
    }


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Failures of the attention, and mending them.")
    add = parser.add_argument
    add("model", help="a model file; the search beside it is used")
    add("manifest", help="the utterances that recordings are made of; dev-clean, say")
    add("--calibration", type=Path, help="as recipes/benchmark/confidence.py writes it")
    add("--greedy", action="store_true", help="greedy search, whatever is beside the model")
    add("--count", type=int, default=20, help="recordings of each kind")
    add("--plain", type=int, default=300, help="plain utterances")
    add("--seed", type=int, default=1)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table and the JSON line; the exit status."""
    options = parse(arguments)
    try:
        model = recognizer.load(options.model, search="greedy" if options.greedy else None)
        calibration = load_calibration(options.calibration) if options.calibration else None
        utterances = manifest.read(options.manifest)
    except AsrError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    random.Random(options.seed).shuffle(utterances)
    utterances = utterances[: max(options.plain, 2)]
    waveforms = load_waveforms(utterances)
    texts = [normalise(utterance.text) for utterance in utterances]
    cases = make_cases(waveforms, texts, options.count, options.seed)
    if options.plain:
        cases += [Case(PLAIN, w, t) for w, t in zip(waveforms, texts, strict=True)]
    rows = results(cases, told(model, cases, calibration))
    head = "  WER   sub   del   ins"
    print(f"{'':13s}    n  words  {head}  {head}  failures", file=sys.stderr)
    print("\n".join(line(row) for row in rows), file=sys.stderr)
    values = {
        "benchmark": "failures",
        "model": options.model,
        "manifest": options.manifest,
        "calibration": str(options.calibration) if options.calibration else None,
        "greedy": options.greedy,
        "seed": options.seed,
        "results": [
            {
                "kind": row.kind,
                "recordings": row.recordings,
                "before": counted(row.before),
                "after": counted(row.after),
                "failures": row.failures,
            }
            for row in rows
        ],
        "commit": commit(),
    }
    print(json.dumps(values))
    return 0


if __name__ == "__main__":
    sys.exit(main())
