"""Error rates of several recognizers on the same recordings: a manifest in, a table with 95 % intervals out.

    python -m recipes.benchmark.accuracy data/manifests/test-clean.jsonl --limit 200

All texts pass this package's normaliser, and every system hears whole recordings, at 16 kHz, one after the other or in
batches as it likes. The table goes to stderr, one JSON line to stdout; --rows keeps every text.
"""

import argparse
import csv
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from recipes.benchmark.systems import RATE, SYSTEMS, Plan, Waveform, installed

CHOICES = {
    "asr": ("asr", "full"),
    "asr-greedy": ("asr", "greedy"),
    "pocketsphinx": ("pocketsphinx", "beam"),
    "whisper-greedy": ("whisper", "greedy"),
    "whisper-beam5": ("whisper", "beam5"),
}


@dataclass(frozen=True)
class Result:
    """One system on all recordings."""

    system: str
    wer: float  # percent, as the interval
    low: float
    high: float
    substitutions: int
    deletions: int
    insertions: int
    real_time_factor: float  # wall


def texts_of(choice: str, waveforms: Sequence[Waveform], threads: int, model: str) -> list[str]:
    """What a system hears in the recordings; this package with all that `asr evaluate` does, mending included."""
    system, search = CHOICES[choice]
    if system == "asr":
        from asr.recognizer import load

        options: dict[str, Any] = {"search": "greedy"} if search == "greedy" else {}
        recognizer = load(model or None, threads=threads, **options)
        found = recognizer.transcribe_batch(list(waveforms), whole=True)
        return [getattr(result, "text", "") for result in found]
    plan = Plan(system, "", 0, threads, 0.0, search=search)
    recognise: Callable[[Sequence[Waveform]], list[str]] = SYSTEMS[system](plan)
    return recognise(waveforms)


def score(
    choice: str, utterances: Sequence[Any], texts: Sequence[str], seconds: float, wall: float
) -> Result:
    """Error rate with its interval, over speakers where the manifest names enough of them."""
    from asr import metrics
    from asr.text import normalise

    counts = metrics.word_counts(
        [normalise(u.text) for u in utterances], [normalise(text) for text in texts]
    )
    speakers = metrics.known_speakers([u.speaker for u in utterances])
    low, high = metrics.confidence_interval(counts, speakers)
    total = metrics.total(counts)
    return Result(
        choice,
        round(100 * total.rate, 2),
        round(100 * low, 2),
        round(100 * high, 2),
        total.substitutions,
        total.deletions,
        total.insertions,
        round(wall / seconds, 4),
    )


def table(results: Sequence[Result]) -> str:
    """The results for people."""
    head = "system             WER %   95 % interval       S      D      I     RTF"
    lines = [
        f"{r.system:16s}  {r.wer:6.2f}  {r.low:6.2f} to {r.high:5.2f}  {r.substitutions:6d} {r.deletions:6d}"
        f" {r.insertions:6d}  {r.real_time_factor:6.3f}"
        for r in results
    ]
    return "\n".join([head, *lines])


def write_rows(path: Path, utterances: Sequence[Any], texts: dict[str, list[str]]) -> None:
    """Write every utterance's reference and texts as TSV."""
    from asr.files import atomic_write

    with atomic_write(path) as file:
        rows = csv.writer(file, delimiter="\t", lineterminator="\n")
        rows.writerow(["id", "speaker", "reference", *texts])
        for number, utterance in enumerate(utterances):
            found = (" ".join(column[number].split()) for column in texts.values())
            rows.writerow([utterance.id, utterance.speaker, utterance.text, *found])


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Error rates of several recognizers on the same recordings.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("manifest", help="recordings with transcripts")
    add("--systems", nargs="+", choices=CHOICES, default=list(CHOICES), help="to compare")
    add("--model", default="", help="model file of asr; default: the one in the package")
    add("--limit", type=int, default=0, help="utterances, evenly spread; 0 is all")
    add("--threads", type=int, default=1, help="of each system that can use them")
    add("--rows", type=Path, help="write every text to this TSV file")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table and the JSON line; the exit status."""
    options = parse(arguments)
    from asr import audio, manifest
    from asr.errors import AsrError
    from asr.training.validation import spread
    from recipes.benchmark.train_speed import machine

    missing = [name for name in options.systems if not installed(CHOICES[name][0])]
    if missing:
        print(f"not installed: {', '.join(missing)}; pip install '.[benchmark]'", file=sys.stderr)
        return 2
    try:
        utterances = spread(manifest.read(options.manifest), options.limit)
        waveforms = [audio.read(u.audio, sample_rate=RATE) for u in utterances]
    except AsrError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    seconds = sum(map(len, waveforms)) / RATE
    results, texts = [], {}
    for choice in options.systems:
        began = time.perf_counter()
        texts[choice] = texts_of(choice, waveforms, options.threads, options.model)
        wall = time.perf_counter() - began
        results.append(score(choice, utterances, texts[choice], seconds, wall))
        print(f"{choice}: {results[-1].wer:.2f} %", file=sys.stderr)
    print(table(results), file=sys.stderr)
    if options.rows:
        write_rows(options.rows, utterances, texts)
    values = {"benchmark": "accuracy", **machine(), "manifest": options.manifest}
    values |= {"utterances": len(utterances), "audio_seconds": round(seconds, 1)}
    print(json.dumps(values | {"results": [asdict(result) for result in results]}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
