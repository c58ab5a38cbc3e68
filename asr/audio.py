"""Audio files in; mono float32 waveforms at one sample rate out, whole or in blocks of bounded memory.

soundfile decodes wav, flac, ogg (Vorbis and Opus), mp3, aiff and the like with nothing else to install; mp4/m4a, webm,
aac, wma and other film and phone containers need the optional package PyAV, and so do several recordings joined in one
ogg or mp3 file. Whatever is wrong with a file is one AudioError that names it and says why, so that a job over many
files can report one and go on.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from asr._decoders import Recording, Waveform, open_recording
from asr.errors import AudioError, ConfigError

__all__ = [
    "AudioInfo",
    "Waveform",
    "blocks",
    "channels",
    "info",
    "read",
    "resample",
    "save_channel",
    "stated_seconds",
]


@dataclass(frozen=True)
class AudioInfo:
    """What a file says of itself: `duration` in seconds, `sample_rate` in hertz, `format` as in "WAV/PCM_16"."""

    duration: float
    sample_rate: int
    channels: int
    format: str


def read(path: str | Path, *, sample_rate: int = 16_000, channel: str | int = "mix") -> Waveform:
    """Read a whole audio file as one channel at `sample_rate`.

    Returns float32 (S,), full scale ±1; a float file or a lossy codec that goes beyond ±1 is not clipped. `channel` is
    "mix" (the mean of all) or an index from 0. Raises AudioError, naming the file, where it is missing, a folder,
    empty, truncated, not audio, not readable, has one sample or none, or so few that resampling leaves nothing, NaN or
    infinite ones, or not the channel asked for. A truncated mp3 or ogg is noticed only where the file lets it: an mp3
    by its Xing/Info header, an ogg by a last page that is cut.
    """
    pieces = list(_stream(Path(path), sample_rate, channel))
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


def blocks(
    path: str | Path,
    *,
    seconds: float,
    sample_rate: int = 16_000,
    channel: str | int = "mix",
) -> Iterator[tuple[float, Waveform]]:
    """Read a file as successive (start in seconds, waveform (S,)) blocks, in memory that does not grow with its length.

    Each block is `seconds` long, the last may be shorter; joined they are exactly what `read` returns. Raises
    AudioError as `read` does, for a damaged file after what could be read of it, ConfigError for a length that is
    not positive.
    """
    size = round(seconds * sample_rate)
    if size < 1:
        raise ConfigError(f"seconds={seconds}: a block must be longer than 0 seconds")
    return _blocks(_stream(Path(path), sample_rate, channel), size, sample_rate)


def info(path: str | Path) -> AudioInfo:
    """Describe a file from its header, without decoding it where the header states the length.

    Raises AudioError as `read` does for what shows without decoding; NaN and a flac or mp3 that ends early do not.
    """
    path = Path(path)
    with open_recording(path) as recording:
        frames = recording.frames
        if frames is None:
            frames = sum(len(chunk) for chunk in recording.chunks)
        if frames == 0:
            raise AudioError(f"{path}: has no samples")
        return AudioInfo(
            frames / recording.sample_rate,
            recording.sample_rate,
            recording.channels,
            recording.format,
        )


def stated_seconds(path: str | Path) -> float | None:
    """How long a file's header says that it is, None where it does not say; nothing is decoded.

    Raises AudioError as `read` does for a file that cannot be opened.
    """
    with open_recording(Path(path)) as recording:
        return None if recording.frames is None else recording.frames / recording.sample_rate


def channels(path: str | Path) -> int:
    """How many channels a file has; nothing is decoded. Raises AudioError as `stated_seconds` does."""
    with open_recording(Path(path)) as recording:
        return recording.channels


def save_channel(
    path: str | Path, target: str | Path, *, channel: str | int, sample_rate: int
) -> None:
    """Write one channel at `sample_rate` to `target`, float samples, in memory that does not grow with its length.

    `channel` is as in `read`. Raises AudioError as `read` does, and for a `target` that cannot be written.
    """
    pieces = _stream(Path(path), sample_rate, channel)
    try:
        with soundfile.SoundFile(
            target, "w", sample_rate, 1, format="RF64", subtype="FLOAT"
        ) as file:
            for piece in pieces:
                file.write(piece)
    except (soundfile.LibsndfileError, OSError) as error:
        raise AudioError(f"{target}: cannot be written: {error}") from error


def resample(waveform: Waveform, from_rate: int, to_rate: int) -> Waveform:
    """Resample a waveform (S,) from one rate to another, in hertz (soxr, high quality: flat to 0.91 of the half rate).

    Returns float32 of about S * to_rate / from_rate samples, rounded; the same waveform where the rates are equal.
    """
    if from_rate == to_rate:
        return waveform
    import soxr

    return np.asarray(
        soxr.resample(waveform.astype(np.float32, copy=False), from_rate, to_rate), dtype=np.float32
    )


def _blocks(
    pieces: Iterator[Waveform], size: int, sample_rate: int
) -> Iterator[tuple[float, Waveform]]:
    held: list[Waveform] = []
    length = start = 0
    try:
        for piece in pieces:
            held.append(piece)
            length += len(piece)
            if length <= size:
                continue
            joined = np.concatenate(held)
            at = 0
            while len(joined) - at > size:
                yield (start + at) / sample_rate, joined[at : at + size].copy()
                at += size
            held, length, start = [joined[at:].copy()], len(joined) - at, start + at
    except AudioError:  # the file is damaged from here on
        if length:
            yield start / sample_rate, np.concatenate(held)
        raise
    yield start / sample_rate, np.concatenate(held)


def _stream(path: Path, sample_rate: int, channel: str | int) -> Iterator[Waveform]:
    """Decode, check, pick the channel and resample, a piece at a time."""
    if sample_rate < 1:
        raise ConfigError(f"sample_rate={sample_rate}: must be at least 1 Hz")
    with open_recording(path) as recording:
        resampler = _resampler(recording.sample_rate, sample_rate)
        frames = kept = 0
        for chunk in recording.chunks:
            _check_finite(chunk, path, frames, recording.sample_rate)
            frames += len(chunk)
            piece = _pick_channel(chunk, channel, path)
            if resampler is not None:
                piece = resampler.resample_chunk(piece)
            kept += len(piece)
            yield piece
        _check_complete(recording, frames, path)
        if resampler is not None:
            piece = resampler.resample_chunk(np.zeros(0, np.float32), last=True)
            kept += len(piece)
            yield piece
        if frames < 2 or kept == 0:
            raise AudioError(f"{path}: too short: samples: {frames}, at {recording.sample_rate} Hz")


def _resampler(from_rate: int, to_rate: int) -> Any:
    if from_rate == to_rate:
        return None
    import soxr

    return soxr.ResampleStream(from_rate, to_rate, 1, dtype="float32")


def _pick_channel(chunk: Waveform, channel: str | int, path: Path) -> Waveform:
    channels = chunk.shape[1]
    if channel == "mix":
        return chunk[:, 0] if channels == 1 else chunk.mean(axis=1)
    if isinstance(channel, str):
        raise ConfigError(f"channel={channel!r}: must be 'mix' or a channel's number from 0")
    if not 0 <= channel < channels:
        has = (
            "1 channel, number 0"
            if channels == 1
            else f"{channels} channels, numbers 0 to {channels - 1}"
        )
        raise AudioError(f"{path}: no channel {channel}: it has {has}")
    return np.ascontiguousarray(chunk[:, channel])


def _check_finite(chunk: Waveform, path: Path, before: int, sample_rate: int) -> None:
    if not np.isfinite(chunk).all():
        first = before + int(np.argmin(np.isfinite(chunk).all(axis=1)))
        raise AudioError(
            f"{path}: has NaN or infinite samples, the first at {first / sample_rate:.3f} s"
        )


def _check_complete(recording: Recording, frames: int, path: Path) -> None:
    if frames == 0:
        raise AudioError(f"{path}: has no samples")
    if recording.frames is not None and frames < recording.frames - recording.slack:
        has, promised = frames / recording.sample_rate, recording.frames / recording.sample_rate
        raise AudioError(
            f"{path}: truncated: ends after {has:.2f} s of the {promised:.2f} s its header states"
        )
