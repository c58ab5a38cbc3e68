"""What was said in one recording: text in segments with times, as values that every writer and caller reads.

In: nothing but plain values. Out: `Transcript`, `Segment`, `Word`, `Failure`. All times are seconds from the start of
the recording. Confidences are numbers from 0 to 1, or None where none was computed.
"""

from dataclasses import dataclass, field
from typing import Any

import torch

VERSION = 1
"""Of what `Transcript.to_dict` returns: goes up where a reader of the last one would fail."""


@dataclass(frozen=True)
class Word:
    """One word with its times.

    `confidence` is the chance that the word is right, as the model's calibration has it; without a calibration it is
    the decoder's mean probability, to be compared between results of one model only.
    """

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


FAILURES = ("loop", "skip", "early-stop", "unattended", "silence", "cut")
"""Every kind of failure.

loop: the same audio was read twice or more; skip: the attention jumped over speech; early-stop: the text ends before
the speech does; unattended: speech that nothing in the text was read from; silence: there was nothing to attend to;
cut: decoding was stopped at its length limit.
"""


@dataclass(frozen=True)
class Failure:
    """Something that went wrong between `start` and `end`, as the attention shows it.

    `kind` is one of FAILURES. `mended` tells that the text of that span was replaced by what another scorer heard.
    """

    kind: str
    start: float
    end: float
    detail: str = ""
    mended: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return the failure as a plain dict, ready for JSON."""
        return {
            "kind": self.kind,
            "start": _round(self.start),
            "end": _round(self.end),
            "detail": self.detail,
            "mended": self.mended,
        }


@dataclass(frozen=True)
class Attention:
    """Where the decoder looked while it wrote each token.

    `weights` is (L, U), one row a token, each row summing to 1; `tokens` are the L tokens as text; column `u`
    covers the seconds from `start + u * frame_seconds` to `start + (u + 1) * frame_seconds`.
    """

    weights: torch.Tensor
    tokens: tuple[str, ...]
    frame_seconds: float
    start: float = 0.0


@dataclass(frozen=True)
class Segment:
    """A stretch of speech with its text; `words` is empty where no word times were computed.

    A segment without text says by its `failures` why nothing is there. `confidence` is the mean over its words, None
    where there are none. `attention` is kept where it was asked for.
    """

    start: float
    end: float
    text: str
    words: tuple[Word, ...] = ()
    confidence: float | None = None
    failures: tuple[Failure, ...] = ()
    attention: Attention | None = field(default=None, repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Return the segment as a plain dict, ready for JSON."""
        return {
            "start": _round(self.start),
            "end": _round(self.end),
            "text": self.text,
            "confidence": _round(self.confidence),
            "failures": [failure.to_dict() for failure in self.failures],
            "words": [word.to_dict() for word in self.words],
        }


@dataclass(frozen=True)
class Transcript:
    """The result for one recording: its text, and the segments that the text is made of.

    `duration` is the recording's length in seconds. `confidence` is the mean over the words' confidences, None where
    there are no words.
    `complete` is False where decoding was cut at its length limit, so that the end may be missing or repeated.
    `audio` is the path as it was given, None for a waveform. `model` names the model, `settings` holds as plain
    values the options of the search, its first pass and ranking, the names of what it adds to the model (as lm, ngram,
    hotwords; None where it does not), the engine and int8; both None where they are not known. `channel` is which of
    the recording's channels was transcribed, "left", "right" or "channelN" with N from 0; None for the mean of all.
    """

    text: str
    segments: tuple[Segment, ...] = ()
    duration: float = 0.0
    confidence: float | None = None
    audio: str | None = None
    complete: bool = True
    attention: Attention | None = field(default=None, repr=False, compare=False)
    model: str | None = None
    settings: dict[str, Any] | None = None
    channel: str | None = None

    @property
    def failures(self) -> tuple[Failure, ...]:
        """All segments' failures."""
        return tuple(failure for segment in self.segments for failure in segment.failures)

    @property
    def words(self) -> tuple[Word, ...]:
        """All segments' words."""
        return tuple(word for segment in self.segments for word in segment.words)

    def to_dict(self) -> dict[str, Any]:
        """Return the transcript as a plain dict, ready for JSON: everything but the attention."""
        return {
            "version": VERSION,
            "model": self.model,
            "settings": self.settings,
            "audio": self.audio,
            "channel": self.channel,
            "duration": _round(self.duration),
            "text": self.text,
            "confidence": _round(self.confidence),
            "complete": self.complete,
            "segments": [segment.to_dict() for segment in self.segments],
        }


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
