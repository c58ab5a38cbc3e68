"""Speech as it is spoken: a microphone, a file or a pipe in; partial texts, and at every pause a final one, out.

The encoder reads a piece in both directions, so nothing here streams through it: a final text comes when a pause has
ended its piece, and a partial text is all of the open piece decoded again, by a narrower beam.
"""

import queue
import sys
import time
import wave
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from io import BufferedReader
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from asr import audio
from asr.audio import Waveform
from asr.errors import AsrError, AudioError, ConfigError
from asr.files import is_terminal
from asr.options import check_range
from asr.pieces import Cutter, Piece
from asr.recognizer import Recognizer
from asr.transcript import Segment
from asr.vad import VadOptions

BLOCK_SECONDS = 0.1
PARTIAL_BEAM = 8
"""Hypotheses that a partial text is chosen from: one that takes long holds up the final one."""
PIPE_RATE = 16_000
"""Hertz of a pipe without a header: 16 bit little-endian samples of one channel."""
COMPRESSED = (b"OggS", b"fLaC", b"ID3", b"RF64", b"\x1aE\xdf\xa3")
"""How streams begin that are neither wav nor plain samples."""


@dataclass(frozen=True)
class ListenOptions:
    """When texts come; times in seconds."""

    pause: float = 0.5  # of silence, after which a text is final
    partial: float = 0.5  # of sound between two partial texts; 0 gives none
    max_seconds: float = 20.0  # of speech without a pause, after which it is cut all the same

    def __post_init__(self) -> None:
        check_range(self, "listen", ("pause",), 0.2, 5)
        check_range(self, "listen", ("partial",), 0, 60)
        check_range(self, "listen", ("max_seconds",), 5, 60)


@dataclass(frozen=True)
class Heard:
    """A text: `final`, or of what has been heard so far of a piece that goes on. Times are of all that was heard."""

    segment: Segment
    final: bool

    @property
    def text(self) -> str:
        """What was said."""
        return self.segment.text


@dataclass
class Latency:
    """Seconds that texts were late, where sound comes as fast as it is spoken."""

    final: list[float] = field(default_factory=list)  # from the end of speech to its final text
    partial: list[float] = field(default_factory=list)  # from a word's end to the text that has it

    def __str__(self) -> str:
        parts = [
            f"{name} text {median(times):.2f} s after {what} (median of {len(times)}, at most {max(times):.2f} s)"
            for name, what, times in (
                ("final", "the end of speech", self.final),
                ("partial", "the word", self.partial),
            )
            if times
        ]
        return "; ".join(parts) or "nothing was said"


class Listener:
    """Turns blocks of sound into texts; `latency` counts from the clock's time at the first block."""

    def __init__(
        self,
        recognizer: Recognizer,
        options: ListenOptions | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.recognizer = recognizer
        self._quick = _quick(recognizer)
        self.options = options = ListenOptions() if options is None else options
        self.latency = Latency()
        vad = VadOptions(
            max_pause=options.pause,
            padding=min(options.pause, 0.4),
            max_seconds=options.max_seconds,
        )
        self._cutter = Cutter(recognizer.trained.features.sample_rate, vad)
        self._clock = clock
        self._began: float | None = None
        self._heard = 0.0  # seconds
        self._next = 0.0  # second of sound from which another partial text may come
        self._shown: list[str] = []  # words of the last partial text

    def feed(self, block: Waveform) -> Iterator[Heard]:
        """Take the next block (S,) at the model's sample rate; yield the texts that it brings."""
        seconds = len(block) / self.recognizer.trained.features.sample_rate
        if self._began is None:
            self._began = self._clock() - seconds
        self._heard += seconds
        for piece in self._cutter.feed(block):
            yield from self._final(piece)
        if self.options.partial and self._heard >= self._next:
            yield from self._partial()

    def finish(self) -> Iterator[Heard]:
        """Yield the texts of what is left when no more sound comes."""
        for piece in self._cutter.finish():
            yield from self._final(piece)

    def _final(self, piece: Piece) -> Iterator[Heard]:
        segment = self._decode(piece, self.recognizer)
        self._shown = []
        if segment.text:
            self.latency.final.append(self._now() - piece.speech[1])
            yield Heard(segment, final=True)

    def _partial(self) -> Iterator[Heard]:
        piece, started = self._cutter.unfinished(), self._clock()
        self._next = self._heard + self.options.partial
        if piece is None:
            return
        segment = self._decode(piece, self._quick)
        # never so often that texts fall behind the sound
        self._next = max(self._next, self._heard + 2 * (self._clock() - started))
        words = [word.text for word in segment.words]
        if words and words != self._shown:
            now = self._now()
            self.latency.partial += [now - word.end for word in segment.words[len(self._shown) :]]
            self._shown = words
            yield Heard(segment, final=False)

    def _decode(self, piece: Piece, recognizer: Recognizer) -> Segment:
        ((_, decoded),) = recognizer.decode_pieces([piece], piece.seconds)
        return replace(decoded.segment, attention=None)

    def _now(self) -> float:
        return self._clock() - (self._began or 0.0)


def _quick(recognizer: Recognizer) -> Recognizer:
    """The same recognizer with no more than PARTIAL_BEAM hypotheses."""
    return Recognizer(
        recognizer.trained,
        search=recognizer.search.with_beam(min(PARTIAL_BEAM, recognizer.options.beam_size)),
        calibration=recognizer.calibration,
        device=recognizer.device,
    )


def from_file(path: str | Path, sample_rate: int) -> Iterator[Waveform]:
    """Yield a file's blocks. Raises AudioError as `asr.audio.read` does."""
    for _, block in audio.blocks(path, seconds=BLOCK_SECONDS, sample_rate=sample_rate):
        yield block


def from_pipe(pipe: BufferedReader, sample_rate: int) -> Iterator[Waveform]:
    """Yield the blocks of a wav stream, or without a header of 16 bit samples at 16 kHz. Raises AudioError."""
    head = pipe.peek(4)[:4]
    if not head:
        raise AudioError("-: nothing came through the pipe")
    if head.startswith(COMPRESSED):
        raise AudioError(
            "-: not a wav stream or plain samples; give a pipe one of these, or name the file"
        )
    if head != b"RIFF":
        yield from _pcm(pipe.read, 1, 2, PIPE_RATE, sample_rate)
        return
    try:
        file = wave.open(pipe)  # noqa: SIM115 - the pipe is not ours to close
        channels, width, rate = file.getnchannels(), file.getsampwidth(), file.getframerate()
    except (wave.Error, EOFError) as error:
        raise AudioError(
            f"-: not a plain wav stream of whole numbers, or in the extensible format, as of 24 bit: {error}"
        ) from error
    if width not in (2, 4):
        raise AudioError(f"-: wav samples of {8 * width} bits; a pipe may have 16 or 32")
    frame = channels * width
    yield from _pcm(lambda size: file.readframes(size // frame), channels, width, rate, sample_rate)


def paced(blocks: Iterator[Waveform], sample_rate: int) -> Iterator[Waveform]:
    """Pass blocks on no sooner than a microphone would."""
    due = time.monotonic()
    for block in blocks:
        due += len(block) / sample_rate
        time.sleep(max(0.0, due - time.monotonic()))
        yield block


def from_microphone(sample_rate: int, device: str | int | None = None) -> Iterator[Waveform]:
    """Yield what a microphone hears, without end. Raises AsrError where there is none or nothing to read it with."""
    sounddevice = _sounddevice()
    waiting: queue.Queue[Waveform] = queue.Queue()

    def take(block: Any, frames: int, when: Any, status: Any) -> None:
        waiting.put(block[:, 0].copy())

    with ExitStack() as stack:
        try:
            stream = sounddevice.InputStream(
                samplerate=sample_rate,
                channels=1,
                dtype="float32",
                device=device,
                blocksize=round(BLOCK_SECONDS * sample_rate),
                callback=take,
            )
            stack.enter_context(stream)  # starts it
        except (sounddevice.PortAudioError, ValueError) as error:
            raise AsrError(
                f"no microphone can be opened: {error}; devices: python -m sounddevice"
            ) from error
        while True:
            yield waiting.get()


def _sounddevice() -> Any:
    try:
        import sounddevice
    except ImportError as error:
        raise ConfigError(
            "the microphone needs the package sounddevice: pip install sounddevice; "
            "files and pipes (--input) need nothing"
        ) from error
    except OSError as error:
        raise ConfigError(
            f"the microphone needs PortAudio ({error}): on Debian, apt install libportaudio2; "
            "files and pipes (--input) need nothing"
        ) from error
    return sounddevice


def _pcm(
    read: Callable[[int], bytes], channels: int, width: int, from_rate: int, to_rate: int
) -> Iterator[Waveform]:
    import soxr

    frame = channels * width
    resampler = soxr.ResampleStream(from_rate, to_rate, 1, dtype="float32")
    size = max(1, round(BLOCK_SECONDS * from_rate)) * frame
    while data := read(size):
        samples = np.frombuffer(data[: len(data) // frame * frame], f"<i{width}")
        mono = (samples.reshape(-1, channels).mean(axis=1) / 2 ** (8 * width - 1)).astype(
            np.float32
        )
        yield mono if from_rate == to_rate else resampler.resample_chunk(mono)
    if from_rate != to_rate:
        yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)


def stdin_pipe() -> BufferedReader:
    """The standard input as a pipe of sound. Raises ConfigError where it is a terminal."""
    if sys.stdin is None or is_terminal(sys.stdin):
        raise ConfigError(
            "--input -: the standard input is a terminal or closed; pipe sound into it"
        )
    buffer: Any = sys.stdin.buffer
    return buffer if isinstance(buffer, BufferedReader) else BufferedReader(buffer)
