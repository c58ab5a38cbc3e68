"""An audio file in; its rate, its channels and its decoded samples a piece at a time out, for `asr.audio` to use.

All that depends on a decoder is here: which one reads a file, what its errors mean, and how a file that was cut short
shows in each format.
"""

import math
import os
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile

from asr.errors import AudioError

Waveform = npt.NDArray[np.float32]

CHUNK_FRAMES = 1 << 18  # samples decoded at a time, of all channels: 16 s at 16 kHz, mono
LOWEST_RATE, HIGHEST_RATE = 1_000, 1_000_000  # hertz
MAX_FRAMES = 1 << 60
MP3_SLACK_FRAMES = 2 * 1152  # encoders disagree on whether the first and last mp3 frames count
CONTAINER_SLACK_SECONDS = 0.5  # the stated duration of mp4 and webm includes codec delay
ENDLESS_BYTES = 0x7FFF0000  # sizes from here on are what programs write to a pipe: "not known yet"
MEDIA_SUFFIXES = {
    ".3gp", ".aac", ".ac3", ".amr", ".asf", ".avi", ".flv", ".m4a", ".m4b", ".m4v",
    ".mka", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wma", ".wmv",
}  # fmt: skip
NEED_PYAV = (
    "this kind of file needs PyAV: pip install av "
    "(wav, flac, ogg, opus, mp3 and aiff need nothing more)"
)


@dataclass(frozen=True)
class Recording:
    """An open file: `frames` is what its header promises (None: nothing), `slack` how far that may be off."""

    sample_rate: int
    channels: int
    frames: int | None
    slack: int
    format: str
    chunks: Iterator[Waveform]  # (n, channels) each


@contextmanager
def open_recording(path: Path) -> Iterator[Recording]:
    """Open a file with the decoder that reads it; raises AudioError naming the file and the reason."""
    head = _head(path)
    if head[:4] == b"OggS":
        _check_ogg_tail(path)
    if _is_joined(path, head):
        with _open_av(
            path, "several recordings in one file need PyAV: pip install av"
        ) as recording:
            yield _checked(recording, path)
        return
    try:
        # as bytes, since soundfile refuses names that are not valid UTF-8
        file = soundfile.SoundFile(path if os.name == "nt" else os.fsencode(path))
    except soundfile.LibsndfileError as error:
        if path.suffix.lower() not in MEDIA_SUFFIXES and not _is_container(head):
            raise AudioError(f"{path}: not audio, or damaged: {_reason(error)}") from error
    except TypeError as error:
        raise AudioError(
            f"{path}: raw samples without a header; convert it to wav first"
        ) from error
    else:
        with file:
            yield _checked(_from_soundfile(file, path), path)
        return
    with _open_av(path) as recording:
        yield _checked(recording, path)


def _head(path: Path) -> bytes:
    try:
        if path.exists() and not path.is_dir() and not path.is_file():
            raise AudioError(f"{path}: not a regular file")
        with path.open("rb") as file:
            head = file.read(64)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise AudioError(f"{path}: cannot be read: {reason.lower()}") from error
    if not head:
        raise AudioError(f"{path}: empty file (0 bytes)")
    return head


def _checked(recording: Recording, path: Path) -> Recording:
    """A damaged header may state any rate; one of 1 Hz would make gigabytes of a few kilobytes."""
    if not LOWEST_RATE <= recording.sample_rate <= HIGHEST_RATE:
        raise AudioError(
            f"{path}: its header states a sample rate of {recording.sample_rate} Hz; "
            f"{LOWEST_RATE} to {HIGHEST_RATE} Hz are read"
        )
    return recording


def _is_container(head: bytes) -> bool:
    """Whether the first bytes are those of mp4/mov, webm/mkv, wma, avi, flv, amr or raw aac."""
    known = (
        b"\x1a\x45\xdf\xa3",
        b"\x30\x26\xb2\x75\x8e\x66\xcf\x11",
        b"FLV\x01",
        b"#!AMR",
        b"\xff\xf1",
        b"\xff\xf9",
    )
    return (
        head[4:8] == b"ftyp"
        or head.startswith(known)
        or (head[:4] == b"RIFF" and head[8:12] == b"AVI ")
    )


def _reason(error: soundfile.LibsndfileError) -> str:
    text = str(error.error_string).removeprefix("Error : ").rstrip(".")
    if "psf_fseek" in text:  # a flac whose header states more than there is
        return "it ends before its header says"
    # libsndfile says "File does not exist" of any mp3 without a frame in it
    return "no audio found in it" if "does not exist" in text else text[:1].lower() + text[1:]


def _from_soundfile(file: soundfile.SoundFile, path: Path) -> Recording:
    _check_riff_size(file.extra_info, path)
    if file.frames > MAX_FRAMES:  # written to a pipe
        raise AudioError(f"{path}: its header does not state its length; write it anew as a file")
    is_mp3 = file.format == "MP3"
    frames: int | None = file.frames
    if is_mp3 and _xing_end(path) is None:
        frames = None  # guessed from the bit rate
    return Recording(
        sample_rate=file.samplerate,
        channels=file.channels,
        frames=frames,
        slack=MP3_SLACK_FRAMES if is_mp3 else 0,
        format=f"{file.format}/{file.subtype}",
        chunks=_decode(file, path),
    )


def _decode(file: soundfile.SoundFile, path: Path) -> Iterator[Waveform]:
    frames = max(1024, CHUNK_FRAMES // file.channels)
    while True:
        try:
            chunk = file.read(frames, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise AudioError(f"{path}: truncated or damaged: {_reason(error)}") from error
        if not len(chunk):
            return
        yield chunk


def _check_riff_size(log: str, path: Path) -> None:
    """wav, aiff and au: libsndfile trims the sample count to what is there and says so only in its log."""
    found = re.search(r"(?:data|SSND|Data Size) *: (\d+) \(should be (\d+)\)", log)
    if found and int(found[2]) < int(found[1]) < ENDLESS_BYTES:
        raise AudioError(
            f"{path}: truncated: has {found[2]} of the {found[1]} bytes of samples its header states"
        )


def _check_ogg_tail(path: Path) -> None:
    """A page that the file's end cuts; a stream stopped between two pages, as recorders leave it, is whole."""
    page = _last_ogg_page(path)
    if page[:4] != b"OggS":  # no page ends within a page's greatest length
        raise AudioError(f"{path}: truncated or damaged: no ogg page at its end")
    header = 27 + page[26] if len(page) > 26 else 27
    if len(page) < header or len(page) < header + sum(page[27:header]):
        raise AudioError(f"{path}: truncated: its last ogg page is not complete")


def _last_ogg_page(path: Path) -> bytes:
    """From the last page's beginning to the file's end; from somewhere else where there is none near it."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - (1 << 16)))
        tail = file.read()
    return tail[max(0, tail.rfind(b"OggS")) :]


def _is_joined(path: Path, head: bytes) -> bool:
    """Whether another recording follows in the file, as in a radio's dump: libsndfile reads the first alone."""
    serial = slice(14, 18)  # of an ogg page: the number of its stream
    if head[:4] == b"OggS":
        return _last_ogg_page(path)[serial] != head[serial]
    end = _xing_end(path) if head[:3] == b"ID3" or _is_mpeg_frame(head) else None
    if not end:
        return False
    with path.open("rb") as file:
        file.seek(end)
        following = file.read(3)
    return following == b"ID3" or _is_mpeg_frame(following)


def _is_mpeg_frame(head: bytes) -> bool:
    return len(head) > 1 and head[0] == 0xFF and head[1] & 0xE6 == 0xE2  # layer III


def _xing_end(path: Path) -> int | None:
    """Where an mp3 ends by its Xing or Info header, 0 where that does not say; None without such a header."""
    with path.open("rb") as file:
        head = file.read(10)
        tag = 0
        if head[:3] == b"ID3":  # a size of four 7-bit bytes, then the tag
            tag = 10 + sum(
                byte << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True)
            )
        file.seek(tag)
        start = file.read(4096)
    found = re.search(b"Xing|Info", start)
    if found is None:
        return None
    flags, *values = struct.unpack(">3I", start[found.end() :][:12].ljust(12, b"\0"))
    frames_stated, bytes_stated = flags & 1, flags & 2
    return tag + values[frames_stated] if bytes_stated else 0


@contextmanager
def _open_av(path: Path, missing: str = NEED_PYAV) -> Iterator[Recording]:
    try:
        import av
    except ImportError as error:
        raise AudioError(f"{path}: {missing}") from error
    try:
        container = av.open(str(path), metadata_errors="replace")
    except (av.FFmpegError, OSError) as error:
        raise AudioError(f"{path}: not audio, or damaged: {error.strerror or error}") from error
    with container:
        if not container.streams.audio:
            raise AudioError(f"{path}: has no audio track")
        stream = container.streams.audio[0]
        if stream.codec_context is None:
            raise AudioError(f"{path}: its audio is in a codec that PyAV does not know")
        seconds = _stated_seconds(container, stream)
        yield Recording(
            sample_rate=stream.rate or 0,
            channels=stream.channels,
            frames=None if seconds is None else math.floor(seconds * stream.rate),
            slack=math.ceil(CONTAINER_SLACK_SECONDS * stream.rate),
            format=f"{container.format.name.split(',')[0].upper()}/{stream.codec_context.name.upper()}",
            chunks=_decode_av(container, stream, path),
        )


def _stated_seconds(container: Any, stream: Any) -> float | None:
    """The duration in the header, where it is one of the audio and not a guess from the bit rate."""
    if "mp4" in container.format.name and stream.duration:
        return float(stream.duration * stream.time_base)
    if "matroska" in container.format.name and len(container.streams) == 1 and container.duration:
        return float(container.duration) / 1e6
    return None


def _decode_av(container: Any, stream: Any, path: Path) -> Iterator[Waveform]:
    import av

    # Recordings joined in one file may differ in rate and channels: all are brought to those of the first.
    layout, rate = stream.layout.name, stream.rate
    resampler: Any = None
    kind = None
    try:
        for frame in container.decode(stream):
            if kind != (kind := (frame.sample_rate, frame.layout.name, frame.format.name)):
                yield from _rest(resampler)
                resampler = av.AudioResampler(format="fltp", layout=layout, rate=rate)
            yield from map(_samples, resampler.resample(frame))
        yield from _rest(resampler)
    except (av.FFmpegError, ValueError) as error:
        raise AudioError(
            f"{path}: truncated or damaged: {getattr(error, 'strerror', None) or error}"
        ) from error


def _rest(resampler: Any) -> Iterator[Waveform]:
    """What a resampler still holds; nothing where there is none yet."""
    if resampler is not None:
        yield from map(_samples, resampler.resample(None))


def _samples(frame: Any) -> Waveform:
    return np.asarray(frame.to_ndarray().T, dtype=np.float32)
