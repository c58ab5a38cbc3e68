"""Word and character error rates: texts in, counts of edits out.

jiwer aligns; every figure here is a view of its counts. Rates are of the corpus: all edits over all reference tokens,
never a mean of rates. Texts are compared as they are given: normalise them first.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

BLOCK = 1 << 22  # random indices drawn at a time by the bootstrap
MIN_SPEAKERS = 5  # fewer say too little of how speakers differ


@dataclass(frozen=True)
class Counts:
    """Edits that turn references into hypotheses, in words or in characters; add them to pool utterances."""

    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0
    hits: int = 0

    @property
    def errors(self) -> int:
        """All edits."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def reference_length(self) -> int:
        """Words or characters of the references."""
        return self.hits + self.substitutions + self.deletions

    @property
    def rate(self) -> float:
        """Edits per reference token; where the references are empty, the number of insertions, as in jiwer."""
        return self.errors / max(self.reference_length, 1)

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            self.substitutions + other.substitutions,
            self.deletions + other.deletions,
            self.insertions + other.insertions,
            self.hits + other.hits,
        )


def word_counts(references: Sequence[str], hypotheses: Sequence[str]) -> list[Counts]:
    """Count word edits, utterance by utterance; words are what white space separates.

    An empty reference has only insertions, an empty hypothesis only deletions. Raises ValueError where the two
    lists differ in length.
    """
    import jiwer

    return _counts(jiwer.process_words, references, hypotheses)


def character_counts(references: Sequence[str], hypotheses: Sequence[str]) -> list[Counts]:
    """Count character edits, utterance by utterance; the space between two words is a character."""
    import jiwer

    return _counts(jiwer.process_characters, references, hypotheses)


def total(counts: Iterable[Counts]) -> Counts:
    """Pool the counts of many utterances."""
    return sum(counts, Counts())


def by_speaker(counts: Sequence[Counts], speakers: Sequence[str]) -> dict[str, Counts]:
    """Pool counts by speaker, in the order of the speakers' names."""
    pooled: dict[str, Counts] = {}
    for one, speaker in zip(counts, speakers, strict=True):
        pooled[speaker] = pooled.get(speaker, Counts()) + one
    return dict(sorted(pooled.items()))


def known_speakers(speakers: Sequence[str | None]) -> list[str] | None:
    """The speaker of each utterance to resample by; None where one is unknown or there are too few (MIN_SPEAKERS)."""
    names = [speaker for speaker in speakers if speaker is not None]
    return names if len(names) == len(speakers) and len(set(names)) >= MIN_SPEAKERS else None


def confidence_interval(
    counts: Sequence[Counts],
    speakers: Sequence[str] | None = None,
    *,
    level: float = 0.95,
    replicates: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """Return the bootstrap interval (low, high) of the corpus rate, by percentiles (Bisani & Ney 2004, section 3).

    Utterances are drawn with replacement, or whole speakers where `speakers` names one for each utterance: errors
    of one speaker go together, and drawing utterances would then claim too much.
    """
    units = counts if speakers is None else list(by_speaker(counts, speakers).values())
    errors = np.array([unit.errors for unit in units])
    lengths = np.array([unit.reference_length for unit in units])
    random = np.random.default_rng(seed)
    rates: list[Any] = []
    block = max(1, BLOCK // len(units))
    for start in range(0, replicates, block):
        drawn = random.integers(len(units), size=(min(block, replicates - start), len(units)))
        rates.append(errors[drawn].sum(1) / np.maximum(lengths[drawn].sum(1), 1))
    low, high = np.quantile(np.concatenate(rates), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _counts(process: Any, references: Sequence[str], hypotheses: Sequence[str]) -> list[Counts]:
    if len(references) != len(hypotheses):
        raise ValueError(f"{len(references)} references, but {len(hypotheses)} hypotheses")
    if not references:
        return []
    return [_count(chunks) for chunks in process(list(references), list(hypotheses)).alignments]


def _count(chunks: Iterable[Any]) -> Counts:
    sizes = {"substitute": 0, "delete": 0, "insert": 0, "equal": 0}
    for chunk in chunks:
        reference = chunk.ref_end_idx - chunk.ref_start_idx
        sizes[chunk.type] += reference or chunk.hyp_end_idx - chunk.hyp_start_idx
    return Counts(sizes["substitute"], sizes["delete"], sizes["insert"], sizes["equal"])
