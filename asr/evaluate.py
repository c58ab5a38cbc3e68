"""Utterances with their transcripts in, error rates out: the only scoring path, for `asr evaluate` and for training.

Recordings take the recognizer's own way from file to text; reference and hypothesis pass the one normaliser.
"""

import csv
import json
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from asr import metrics
from asr.decoding.diagonality import diagonality
from asr.errors import AsrError, ConfigError
from asr.files import atomic_write
from asr.manifest import Utterance
from asr.metrics import Counts
from asr.recognizer import BATCH_SECONDS, Recognizer
from asr.text import normalise
from asr.transcript import Transcript


@dataclass(frozen=True)
class Row:
    """One utterance that was scored; texts are normalised, durations in seconds, of the recording itself."""

    id: str
    speaker: str | None
    duration: float
    reference: str
    hypothesis: str
    words: Counts
    characters: Counts
    confidence: float | None  # as in Transcript; None where nothing was decoded
    complete: bool  # False: the hypothesis was cut at the token limit
    diagonality: float | None  # of the attention, 0 to 1; None for a recording of several pieces


@dataclass(frozen=True)
class Unreadable:
    """One utterance whose recording could not be used; it is in no rate."""

    id: str
    reason: str


@dataclass(frozen=True)
class Evaluation:
    """What a model makes of a manifest; `rows` and `unreadable` are in the manifest's order."""

    rows: tuple[Row, ...]
    unreadable: tuple[Unreadable, ...]
    processing_seconds: float  # wall time from file to text

    @cached_property
    def words(self) -> Counts:
        """Word edits of all rows."""
        return metrics.total(row.words for row in self.rows)

    @cached_property
    def characters(self) -> Counts:
        """Character edits of all rows."""
        return metrics.total(row.characters for row in self.rows)

    @property
    def wer(self) -> float:
        """Word error rate of the corpus."""
        return self.words.rate

    @property
    def cer(self) -> float:
        """Character error rate of the corpus."""
        return self.characters.rate

    @property
    def speakers(self) -> list[str] | None:
        """The speaker of each row; None where some are unknown or there are too few to resample."""
        return metrics.known_speakers([row.speaker for row in self.rows])

    @cached_property
    def wer_interval(self) -> tuple[float, float]:
        """Bootstrap 95 % interval of the WER, over speakers where they are known, else over utterances."""
        return metrics.confidence_interval([row.words for row in self.rows], self.speakers)

    @property
    def audio_seconds(self) -> float:
        """Seconds of audio that were scored."""
        return sum(row.duration for row in self.rows)

    @property
    def real_time_factor(self) -> float:
        """Wall time from file to text per second of audio."""
        return self.processing_seconds / self.audio_seconds

    @property
    def diagonality(self) -> float | None:
        """Mean of the rows' attention diagonality, where it is known; None where it is of no row."""
        known = [row.diagonality for row in self.rows if row.diagonality is not None]
        return sum(known) / len(known) if known else None

    @property
    def empty_references(self) -> int:
        """Rows whose reference has no words after normalisation; their words all count as insertions."""
        return sum(not row.reference for row in self.rows)

    @property
    def empty_hypotheses(self) -> int:
        """Rows for which the model gave no words."""
        return sum(not row.hypothesis for row in self.rows)

    @property
    def cut(self) -> int:
        """Rows whose hypothesis was cut at the token limit."""
        return sum(not row.complete for row in self.rows)


def evaluate(
    recognizer: Recognizer,
    utterances: Sequence[Utterance],
    *,
    batch_seconds: float = BATCH_SECONDS,
    progress: bool = False,
) -> Evaluation:
    """Transcribe `utterances` and score them; `batch_seconds` bounds the padded audio that is decoded at once.

    Each recording of up to 60 s is decoded as it is, without a search for speech in it: an utterance of a manifest has
    been cut out already, and what is measured is the model. Longer ones are cut into pieces as in `transcribe`.
    A recording that cannot be read is named in the result and not scored. `progress` shows a bar on stderr. Raises
    AsrError where there is nothing to score.
    """
    if not utterances:
        raise AsrError("nothing to evaluate: the manifest has no utterances")
    start = time.perf_counter()
    results = recognizer.transcribe_each(
        [u.audio for u in utterances], batch_seconds=batch_seconds, whole=True
    )
    heard: dict[int, tuple[Transcript, float | None]] = {}
    failed: dict[int, Unreadable] = {}
    for index, result in _shown(results, len(utterances), progress):
        if isinstance(result, AsrError):
            failed[index] = Unreadable(utterances[index].id, str(result))
        else:
            look = None if result.attention is None else diagonality(result.attention.weights)
            heard[index] = replace(result, attention=None), look  # a long manifest's would not fit
    seconds = time.perf_counter() - start
    if not heard:
        reason = failed[min(failed)].reason
        raise AsrError(f"none of {len(utterances)} recordings could be read; the first: {reason}")
    order = sorted(heard)
    rows = _rows([utterances[index] for index in order], [heard[index] for index in order])
    return Evaluation(tuple(rows), tuple(failed[index] for index in sorted(failed)), seconds)


def summary(evaluation: Evaluation) -> str:
    """Return the result as a table of plain text, with every utterance that was not scored by name."""
    e, (low, high) = evaluation, evaluation.wer_interval
    units = "utterances" if e.speakers is None else f"{len(set(e.speakers))} speakers"
    interval = f"95 % interval {100 * low:.2f} to {100 * high:.2f}, over {units}"
    lines = [
        ("utterances", f"{len(e.rows)} scored, {len(e.unreadable)} unreadable"),
        ("audio", _duration(e.audio_seconds)),
        ("WER", f"{_percent(e.wer)}  ({interval})"),
        ("  words", _edits(e.words)),
        ("CER", _percent(e.cer)),
        ("  characters", _edits(e.characters)),
        ("empty references", f"{e.empty_references}"),
        ("empty hypotheses", f"{e.empty_hypotheses}"),
        ("cut at the limit", f"{e.cut}"),
        ("diagonality", "-" if e.diagonality is None else f"{e.diagonality:.3f}"),
        ("real-time factor", f"{e.real_time_factor:.4f}  ({_duration(e.processing_seconds)})"),
    ]
    lines += [("not scored", f"{item.id}: {item.reason}") for item in evaluation.unreadable]
    return "\n".join(f"{name:<18}{value}" for name, value in lines)


def write_rows(path: str | Path, evaluation: Evaluation) -> None:
    """Write one line per utterance, whole or not at all: .tsv with a header line, or .jsonl.

    Utterances that could not be read come last, with the reason in `error`. Raises ConfigError for other suffixes.
    """
    path = Path(path)
    if path.suffix not in (".tsv", ".jsonl"):
        raise ConfigError(f"{path}: per-utterance results are written as .tsv or .jsonl")
    empty = dict.fromkeys(_columns(evaluation.rows[0]))
    rows = [_columns(row) for row in evaluation.rows]
    rows += [empty | {"id": item.id, "error": item.reason} for item in evaluation.unreadable]
    with atomic_write(path) as file:
        if path.suffix == ".tsv":
            table = csv.DictWriter(file, list(empty), delimiter="\t", lineterminator="\n")
            table.writeheader()
            table.writerows(rows)
        else:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _rows(utterances: list[Utterance], heard: list[tuple[Transcript, float | None]]) -> list[Row]:
    references = [normalise(utterance.text) for utterance in utterances]
    hypotheses = [normalise(transcript.text) for transcript, _ in heard]
    words = metrics.word_counts(references, hypotheses)
    characters = metrics.character_counts(references, hypotheses)
    return [
        Row(
            id=utterance.id,
            speaker=utterance.speaker,
            duration=transcript.duration,
            reference=references[i],
            hypothesis=hypotheses[i],
            words=words[i],
            characters=characters[i],
            confidence=transcript.confidence,
            complete=transcript.complete,
            diagonality=look,
        )
        for i, (utterance, (transcript, look)) in enumerate(zip(utterances, heard, strict=True))
    ]


def _columns(row: Row) -> dict[str, Any]:
    return {
        "id": row.id,
        "speaker": row.speaker,
        "duration": round(row.duration, 3),
        "wer": round(row.words.rate, 4),
        "reference_words": row.words.reference_length,
        "substitutions": row.words.substitutions,
        "deletions": row.words.deletions,
        "insertions": row.words.insertions,
        "reference_characters": row.characters.reference_length,
        "character_errors": row.characters.errors,
        "confidence": None if row.confidence is None else round(row.confidence, 4),
        "complete": row.complete,
        "diagonality": None if row.diagonality is None else round(row.diagonality, 4),
        "reference": row.reference,
        "hypothesis": row.hypothesis,
        "error": None,
    }


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 600 else f"{seconds / 3600:.2f} h"


def _percent(rate: float) -> str:
    return f"{100 * rate:.2f} %"


def _edits(counts: Counts) -> str:
    return (
        f"{counts.reference_length} in the references; {counts.substitutions} substituted, "
        f"{counts.deletions} deleted, {counts.insertions} inserted"
    )


def _shown(
    results: Iterable[tuple[int, Transcript | AsrError]], count: int, progress: bool
) -> Iterator[tuple[int, Transcript | AsrError]]:
    if not progress:
        yield from results
        return
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    yield from track(results, "evaluating", total=count, console=console, transient=True)
