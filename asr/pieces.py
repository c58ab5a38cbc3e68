"""A recording of any length as pieces of speech: blocks of its waveform in, pieces that a model can decode out.

Pieces end at pauses, never overlap and leave out nothing but silence, so that their texts joined are the recording's.
No more of the recording is held than one piece and one block.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from asr.audio import Waveform
from asr.errors import AudioError
from asr.vad import (
    FRAME,
    FRAME_SECONDS,
    RATE,
    DetectorState,
    Probabilities,
    VadOptions,
    detector,
    is_speech,
    speech_runs,
)

LEFT_OVER = 2.0  # seconds; the least that a cut leaves of speech for the next piece


@dataclass(frozen=True)
class Piece:
    """A part of a recording, from `start` to `end`, with speech from `speech[0]` to `speech[1]`, all in its seconds."""

    waveform: Waveform  # (S,)
    start: float
    end: float
    speech: tuple[float, float]

    @property
    def seconds(self) -> float:
        """How long it is."""
        return self.end - self.start


@dataclass(frozen=True)
class _Cut:
    """Where the next piece lies, in frames of the window; what is before `end` has been dealt with."""

    start: int
    end: int
    speech: tuple[int, int]


def cut(
    blocks: Iterable[Waveform], *, sample_rate: int, options: VadOptions | None = None
) -> Iterator[Piece]:
    """Yield the pieces of a recording that comes in blocks (S,) of any lengths, each as soon as its end is known.

    Silence, noise, music and tones are in no piece. Speech goes on in one piece until a pause longer than
    `max_pause`; one that would get longer than `max_seconds` ends at its longest pause, or where there is none,
    where the probability of speech is least. The pieces do not depend on the lengths of the blocks.
    """
    cutter = Cutter(sample_rate, VadOptions() if options is None else options)
    try:
        for block in blocks:
            yield from cutter.feed(block)
    except AudioError:  # the recording is damaged from here on
        yield from cutter.finish()
        raise
    yield from cutter.finish()


def batches(pieces: Sequence[Piece], seconds: float) -> Iterator[list[int]]:
    """Group the pieces' numbers by length, longest first; a group holds at most `seconds` with its padding."""
    batch: list[int] = []
    for number in sorted(range(len(pieces)), key=lambda n: -len(pieces[n].waveform)):
        if batch and pieces[batch[0]].seconds * (len(batch) + 1) > seconds:
            yield batch
            batch = []
        batch.append(number)
    if batch:
        yield batch


class Cutter:
    """Cuts a recording as it comes; holds what is not dealt with yet, its samples and its frames' probabilities."""

    def __init__(self, sample_rate: int, options: VadOptions) -> None:
        self.sample_rate = sample_rate
        self.options = options
        self._resampler = None if sample_rate == RATE else _resampler(sample_rate)
        self._state: DetectorState = detector().start()
        self._frame = 0  # of the recording, at which the window begins
        self._first = 0  # the sample at which it begins
        self._waveform: Waveform = np.zeros(0, np.float32)
        self._probabilities: Probabilities = np.zeros(0, np.float32)
        self._speaking = False  # just before the window

    def feed(self, block: Waveform) -> Iterator[Piece]:
        """Take the next block (S,); yield the pieces whose ends are now known."""
        self._add(block)
        yield from self._pieces(final=False)
        self._drop(_silent(self._runs(), len(self._probabilities), self.options))

    def finish(self) -> Iterator[Piece]:
        """Yield the pieces of what is left at the recording's end."""
        if self._resampler is not None:
            self._add(np.zeros(0, np.float32), last=True)
        rest = torch.zeros(FRAME)  # to make a whole frame of the last one
        heard, self._state = detector().listen(rest, self._state)
        self._probabilities = np.concatenate([self._probabilities, heard])
        yield from self._pieces(final=True)

    def unfinished(self) -> Piece | None:
        """Return the piece that has begun, as far as it has come; None in silence."""
        runs = self._runs()
        if not runs:
            return None
        start = max(0, runs[0][0] - _frames(self.options.padding))
        end = min(start + _frames(self.options.max_seconds), len(self._probabilities))
        return self._piece(_Cut(start, end, (runs[0][0], min(runs[-1][1], end))))

    def _add(self, block: Waveform, *, last: bool = False) -> None:
        self._waveform = np.concatenate([self._waveform, block])
        if self._resampler is not None:
            block = self._resampler.resample_chunk(block, last=last)
        heard, self._state = detector().listen(torch.from_numpy(block), self._state)
        self._probabilities = np.concatenate([self._probabilities, heard])

    def _runs(self) -> list[tuple[int, int]]:
        return speech_runs(self._probabilities, self.options, speaking=self._speaking)

    def _pieces(self, *, final: bool) -> Iterator[Piece]:
        while found := _next_cut(self._runs(), self._probabilities, self.options, final=final):
            yield self._piece(found)
            self._drop(found.end)

    def _piece(self, found: _Cut) -> Piece:
        start, end = (self._sample(self._frame + frame) for frame in (found.start, found.end))
        waveform = self._waveform[start - self._first : end - self._first].copy()
        limit = (start + len(waveform)) / self.sample_rate
        speech = [min((self._frame + frame) * FRAME_SECONDS, limit) for frame in found.speech]
        return Piece(waveform, start / self.sample_rate, limit, (speech[0], speech[1]))

    def _drop(self, frames: int) -> None:
        gone = self._probabilities[:frames]
        if len(gone):
            self._speaking = bool(is_speech(gone, self.options, speaking=self._speaking)[-1])
        self._frame += frames
        self._probabilities = self._probabilities[frames:]
        sample = self._sample(self._frame)
        self._waveform = self._waveform[sample - self._first :]
        self._first = sample

    def _sample(self, frame: int) -> int:
        return frame * FRAME * self.sample_rate // RATE


def _next_cut(
    runs: list[tuple[int, int]], probabilities: Probabilities, options: VadOptions, *, final: bool
) -> _Cut | None:
    """Find the first piece of the window with these runs of speech, or None while its end is not known.

    `final` says that the recording ends with the window. Only what no later frame can change is decided.
    """
    known = len(probabilities)
    longest, padding, pause, left_over = map(
        _frames, (options.max_seconds, options.padding, options.max_pause, LEFT_OVER)
    )
    settling = pause + _frames(options.min_speech) + _frames(options.min_silence) + 1
    if not runs:
        return None
    start, last = max(0, runs[0][0] - padding), runs[-1][1]
    pauses = [(a[1], b[0]) for a, b in pairwise(runs)]
    if final or known - last > settling:
        pauses.append((last, known))
    end = next((p for p in pauses if p[1] - p[0] > pause), pauses[-1] if final else None)
    if end is not None and end[0] - start <= longest:
        return _Cut(start, min(end[0] + padding, end[1], start + longest), (runs[0][0], end[0]))
    if not final and known - start < longest + left_over + settling:
        return None
    high = min(start + longest, (known if end is None else end[0]) - left_over)
    at = _best_cut(probabilities, pauses, runs[0][0] + longest // 4, high)
    spoken = [run for run in runs if run[0] < at]
    return _Cut(start, at, (spoken[0][0], min(spoken[-1][1], at)))


def _best_cut(
    probabilities: Probabilities, pauses: list[tuple[int, int]], low: int, high: int
) -> int:
    """Return the middle of the longest pause from `low` to `high`, else the frame least like speech."""
    inside = [p for p in pauses if low <= (p[0] + p[1]) // 2 <= high]
    if inside:
        best = max(inside, key=lambda p: p[1] - p[0])
        return (best[0] + best[1]) // 2
    smooth = np.convolve(probabilities, np.ones(5) / 5, mode="same")
    return low + int(np.argmin(smooth[low : high + 1]))


def _silent(runs: list[tuple[int, int]], known: int, options: VadOptions) -> int:
    """Return how many of the window's `known` frames can be forgotten: silence, but for the padding of what comes."""
    begun = _frames(options.min_speech) + _frames(options.min_silence)
    first = runs[0][0] if runs else known - begun
    return max(0, first - _frames(options.padding))


def _frames(seconds: float) -> int:
    return round(seconds / FRAME_SECONDS)


def _resampler(sample_rate: int) -> Any:
    import soxr

    return soxr.ResampleStream(sample_rate, RATE, 1, dtype="float32")
