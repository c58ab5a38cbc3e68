"""What was said in one recording: text in segments with times, as values that every writer and caller reads.

In: nothing but plain values. Out: `Transcript`, `Segment`, `Word`. All times are seconds from the start of the
recording. Confidences are numbers from 0 to 1, or None where none was computed.
"""

from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass(frozen=True)
class Word:
    """One word with its times."""

    text: str
    start: float
    end: float
    confidence: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the word as a plain dict, ready for JSON."""
        return {
            "text": self.text,
            "start": _round(self.start),
            "end": _round(self.end),
            "confidence": _round(self.confidence),
        }


@dataclass(frozen=True)
class Segment:
    """A stretch of speech with its text; `words` is empty where no word times were computed."""

    start: float
    end: float
    text: str
    words: tuple[Word, ...] = ()
    confidence: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the segment as a plain dict, ready for JSON."""
        return {
            "start": _round(self.start),
            "end": _round(self.end),
            "text": self.text,
            "confidence": _round(self.confidence),
            "words": [word.to_dict() for word in self.words],
        }


@dataclass(frozen=True)
class Attention:
    """Where the decoder looked while it wrote each token.

    `weights` is (L, U), one row a token, each row summing to 1; `tokens` are the L tokens as text; column `u`
    covers the seconds from `u * frame_seconds` to `(u + 1) * frame_seconds`.
    """

    weights: torch.Tensor
    tokens: tuple[str, ...]
    frame_seconds: float


@dataclass(frozen=True)
class Transcript:
    """The result for one recording: its text, and the segments that the text is made of.

    `duration` is the recording's length in seconds. `confidence` is the geometric mean of the probabilities
    that the decoder gave to its tokens, the end included; it is not calibrated: compare it between results of
    one model, do not read it as the share of right words. It is None where nothing was decoded (silence).
    `complete` is False where decoding was cut at its length limit, so that the end may be missing or repeated.
    `audio` is the path as it was given, None for a waveform.
    """

    text: str
    segments: tuple[Segment, ...] = ()
    duration: float = 0.0
    confidence: float | None = None
    audio: str | None = None
    complete: bool = True
    attention: Attention | None = field(default=None, repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Return the transcript as a plain dict, ready for JSON: everything but the attention."""
        return {
            "audio": self.audio,
            "duration": _round(self.duration),
            "text": self.text,
            "confidence": _round(self.confidence),
            "complete": self.complete,
            "segments": [segment.to_dict() for segment in self.segments],
        }


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
