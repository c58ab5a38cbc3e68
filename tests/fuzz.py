"""Bad recordings, made on the fly: each file with what its error must say, and mutations of real files."""

import io
import os
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile

RATE = 16_000
FORMATS = {
    "wav": ("WAV", "PCM_16"),
    "flac": ("FLAC", "PCM_16"),
    "ogg": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
}
TEN_HOURS = 36_000  # seconds


def encoded(
    samples: np.ndarray, suffix: str, rate: int = RATE, subtype: str | None = None
) -> bytes:
    """The samples as a file of a format."""
    file = io.BytesIO()
    form, usual = FORMATS[suffix]
    soundfile.write(file, samples, rate, format=form, subtype=subtype or usual)
    return file.getvalue()


def wav_header(*, rate: int = RATE, channels: int = 1, data_bytes: int = 0) -> bytes:
    """A wav header that says whatever it is told."""
    form = struct.pack(
        "<IHHIIHH", 16, 1, channels, rate, 2 * rate % 2**32, 2 * channels % 2**16, 16
    )
    start = b"RIFF" + struct.pack("<I", 36 + data_bytes) + b"WAVEfmt "
    return start + form + b"data" + struct.pack("<I", data_bytes)


def lying_flac(samples: np.ndarray, seconds: int) -> bytes:
    """A flac whose header states another length."""
    content = bytearray(encoded(samples, "flac"))
    total = seconds * RATE
    content[21] = content[21] & 0xF0 | total >> 32
    content[22:26] = (total & 0xFFFFFFFF).to_bytes(4, "big")
    return bytes(content)


def lying_mp3(samples: np.ndarray, seconds: int) -> bytes:
    """An mp3 whose Xing or Info header states another length."""
    content = bytearray(encoded(samples, "mp3"))
    tag = max(content.find(b"Xing"), content.find(b"Info"))
    content[tag + 8 : tag + 12] = (seconds * RATE // 576).to_bytes(4, "big")
    return bytes(content)


def bad_files(folder: Path, samples: np.ndarray) -> dict[Path, str]:
    """Make files that are no recordings; return what the error of each must say."""
    expected: dict[Path, str] = {}

    def make(name: str, content: bytes, reason: str) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        expected[path] = reason

    for suffix in FORMATS:
        whole = encoded(samples, suffix)
        make(f"head.{suffix}", whole[:20], "")  # what it says differs by format
        make(f"half.{suffix}", whole[: len(whole) // 2], "truncated")
        make(f"empty.{suffix}", b"", "empty file (0 bytes)")
        make(f"text.{suffix}", b"Dear diary, this is not audio.\n" * 100, "not audio")
        make(f"zeros.{suffix}", bytes(4096), "not audio")
    make("picture.mp3", b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 8, "not audio")
    for name, value in (("nan", np.nan), ("infinite", -np.inf)):
        spoilt = samples.copy()
        spoilt[100] = value
        make(f"{name}.wav", encoded(spoilt, "wav", subtype="FLOAT"), "NaN or infinite samples")
    make("nothing.wav", encoded(samples[:0], "wav"), "has no samples")
    make("one.wav", encoded(samples[:1], "wav"), "too short: samples: 1")
    make("one-48.wav", encoded(samples[:1], "wav", 48_000), "too short: samples: 1")
    data = 2 * RATE * TEN_HOURS
    make("hours.wav", wav_header(data_bytes=data) + bytes(2000), "truncated")
    make("hours.flac", lying_flac(samples, TEN_HOURS), "truncated")
    make("hours.mp3", lying_mp3(samples, TEN_HOURS), "truncated")
    slow = wav_header(rate=1, data_bytes=32_000) + bytes(32_000)
    make("slow.wav", slow, "a sample rate of 1 Hz")
    crowd = wav_header(channels=65_535, data_bytes=131_070) + bytes(131_070)
    make("crowd.wav", crowd, "not audio")
    make("two\nlines.wav", b"", "empty file (0 bytes)")
    if hasattr(os, "mkfifo"):
        os.mkfifo(folder / "pipe.wav")
        expected[folder / "pipe.wav"] = "not a regular file"
    (folder / "loop.wav").symlink_to(folder / "loop.wav")
    expected[folder / "loop.wav"] = "symbolic links"
    (folder / "dangling.wav").symlink_to(folder / "nowhere.wav")
    expected[folder / "dangling.wav"] = "no such file"
    (folder / "round").symlink_to(folder)
    return expected


def good_files(folder: Path, samples: np.ndarray) -> list[Path]:
    """Make odd files that are recordings all the same."""
    folder.mkdir(parents=True, exist_ok=True)
    contents = {
        "plain.wav": encoded(samples, "wav"),
        "flac-as.wav": encoded(samples, "flac"),
        "mp3-as.ogg": encoded(samples, "mp3"),
        "wav-as.m4a": encoded(samples, "wav"),
        "pair.wav": encoded(samples[:2], "wav"),
        "studio.flac": encoded(np.column_stack([samples] * 8), "flac", 96_000),
        "fine\nlines.wav": encoded(samples, "wav"),
        "piped.wav": wav_header(data_bytes=0x7FFFF000) + encoded(samples, "wav")[44:],
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return [folder / name for name in contents]


Mutation = Callable[[bytearray, int, int], None]


def _flip(content: bytearray, at: int, value: int) -> None:
    content[at] ^= 1 << value % 8


def _write(content: bytearray, at: int, value: int) -> None:
    content[at] = value % 256


def _number(content: bytearray, at: int, value: int) -> None:
    odd = (0, 1, 0xFFFF, 1 << 24, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE)[value % 7]
    content[at : at + 4] = odd.to_bytes(4, "little" if value % 2 else "big")


def _cut(content: bytearray, at: int, value: int) -> None:
    del content[at:]


def _drop(content: bytearray, at: int, value: int) -> None:
    del content[at : at + 1 + value]


def _insert(content: bytearray, at: int, value: int) -> None:
    content[at:at] = bytes([value % 256]) * (1 + value % 40)


MUTATIONS: dict[str, Mutation] = {
    "flip": _flip,
    "write": _write,
    "number": _number,
    "cut": _cut,
    "drop": _drop,
    "insert": _insert,
}


def mutated(content: bytes, changes: list[tuple[str, float, int]]) -> bytes:
    """Apply (mutation, place from 0 to 1, value) one after the other; half of the places are in the first 64 bytes."""
    found = bytearray(content)
    for name, place, value in changes:
        if not found:
            break
        reach = min(64, len(found)) if value % 2 else len(found)
        MUTATIONS[name](found, int(place * reach), value)
    return bytes(found)
