"""A trained model that transcribes: recordings of any length in, `Transcript` values out.

Load once, transcribe often, from any number of threads. `Recognizer.recognise` is the one path from waveforms to
hypotheses; evaluation, training's validation and the command line all take it.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from asr import checkpoint
from asr.assembly import Assembly, Decoded, Heard, decoded, events, kept
from asr.checkpoint import Trained
from asr.confidence import Calibration
from asr.decoding import DecodingOptions, HotWords, Hypothesis, Search, decode
from asr.decoding.hypothesis import empty_hypothesis
from asr.devices import checked_device, give_memory_back, limit_caches
from asr.encoding import encode, extract
from asr.errors import AsrError, ConfigError
from asr.export import open_engine
from asr.features import LogMel
from asr.files import content_name
from asr.pieces import Piece, batches
from asr.recording import AudioInput, Reader
from asr.search_file import default_calibration, default_search
from asr.transcript import Segment, Transcript
from asr.vad import VadOptions, loudness

SILENCE_DBFS = -60.0
"""A piece whose loudest tenth of a second stays below this level (RMS, full scale = 0 dB) is silence."""

BATCH_SECONDS = 40.0
"""Padded seconds decoded together unless told otherwise: more takes more memory and, with a wide beam, no less time."""

POOL = 8
"""So many batches of pieces are gathered before they are decoded, so that each can be of like lengths."""

OnProgress = Callable[[int, float], None]
"""Called with a recording's number and how many seconds of it have been dealt with."""


def load(
    model: str | Path | None = None,
    *,
    device: str = "cpu",
    beam_size: int | None = None,
    threads: int | None = None,
    search: Search | Literal["greedy"] | None = None,
    engine: str | None = None,
    int8: bool = False,
    hotwords: str | Path | None = None,
) -> "Recognizer":
    """Load a recognizer from a checkpoint file or an exported folder; None is the model that comes with the package.

    `search` says how to decode: "greedy", a `Search`, or None for the model's own, which the TOML file beside it holds
    with calibrations of confidence for it and for "greedy" (english.toml beside english.pt, search.toml in an exported
    folder); without one it is greedy. A `Search` that is given has the calibration of the model's own.
    `beam_size` changes its width. `hotwords` is a text file of words or phrases to expect, one a line.
    `engine` (torch or onnx) and `int8` are as in `asr.export.open_engine`. `threads` sets torch's number of CPU threads
    for the whole process. Raises CheckpointError if the model cannot be read and ConfigError if an option is out of
    range or does not fit the model.

    >>> recognizer = load()
    >>> recognizer.transcribe("data/samples/horse.opus").segments[0].words[0].start < 1.0
    True
    """
    if threads is not None:
        if threads < 1:
            raise ConfigError(f"threads is {threads}; it must be 1 or more")
        torch.set_num_threads(threads)
    place = checked_device(device)
    path = checkpoint.bundled() if model is None else Path(model)
    trained = open_engine(path, engine, int8=int8, threads=threads, device=place)
    if search is None:
        search, calibration = default_search(path)
    else:
        calibration = default_calibration(path, greedy=search == "greedy")
        search = Search() if search == "greedy" else search
    if beam_size is not None:
        search = search.with_beam(beam_size)
    if hotwords is not None:
        names = {**search.names, "hotwords": content_name(hotwords)}
        search = replace(search, hotwords=HotWords.load(hotwords, trained.tokenizer), names=names)
    name = content_name(path)
    return Recognizer(trained, search=search, calibration=calibration, device=place, name=name)


def transcribe(
    audio: AudioInput, *, model: str | Path | None = None, sample_rate: int = 16_000
) -> Transcript:
    """Load a model (None: the bundled one) and transcribe one recording; see `Recognizer.transcribe`.

    For more than one recording, `load` once and use the recognizer.
    """
    return load(model).transcribe(audio, sample_rate=sample_rate)


class Recognizer:
    """A model with its features, tokenizer and search, ready to transcribe recordings of any length.

    Nothing in it changes once it is made: threads may share one.
    """

    def __init__(
        self,
        trained: Trained,
        *,
        search: Search | None = None,
        vad: VadOptions | None = None,
        calibration: Calibration | None = None,
        device: str | torch.device = "cpu",
        name: str | None = None,
    ) -> None:
        """Wrap `trained`, moving its model to `device` and into evaluation mode.

        `name` is what transcripts call the model. Raises ConfigError where the search does not fit the model.
        """
        limit_caches()
        self.trained = trained
        self.search = Search() if search is None else search
        self.vad = VadOptions() if vad is None else vad
        self.calibration = calibration
        self.device = torch.device(device)
        self.name = name
        self.model = trained.model.to(self.device).eval()
        self.tokenizer = trained.tokenizer
        self.features = LogMel(trained.features).to(self.device)
        if self.search.lm is not None:
            self.search.lm.model.to(self.device)
        self.search.check(self.model, self.tokenizer)  # to refuse now what does not fit

    @property
    def options(self) -> DecodingOptions:
        """The options of the search."""
        return self.search.options

    @property
    def settings(self) -> dict[str, Any]:
        """What transcripts say of how they were made: the search, what it adds to the model, engine and precision."""
        passes = {"first_pass": self.search.first_pass, "ranking": self.search.ranking}
        tables = {name: None if each is None else asdict(each) for name, each in passes.items()}
        calibration = self.calibration.name if self.calibration else None
        added = self.search.in_use() | tables | {"calibration": calibration}
        made_by = {"engine": self.trained.engine, "int8": self.trained.int8}
        return asdict(self.options) | added | made_by

    def transcribe(
        self,
        audio: AudioInput,
        *,
        sample_rate: int = 16_000,
        whole: bool = False,
        attention: bool = False,
    ) -> Transcript:
        """Transcribe one recording: a file at any rate, or a waveform (S,) at `sample_rate` hertz.

        It is cut into pieces of speech (see `asr.pieces.cut`), each of which is a segment; silence, noise and music
        give no text. `whole` decodes a recording of up to 60 s as it is. `attention` keeps every segment's attention;
        that of a recording of one piece is always there. Raises AudioError, naming the file and the reason, if it
        cannot be read.

        >>> import numpy
        >>> load().transcribe(numpy.zeros(8_000), sample_rate=8_000)
        Transcript(text='', segments=(), duration=1.0, ...)
        """
        _, result = next(
            self.transcribe_each([audio], sample_rate=sample_rate, whole=whole, attention=attention)
        )
        if isinstance(result, AsrError):
            raise result
        return result

    def transcribe_batch(
        self,
        audios: Sequence[AudioInput],
        *,
        sample_rate: int = 16_000,
        batch_seconds: float = BATCH_SECONDS,
        whole: bool = False,
        attention: bool = False,
    ) -> list[Transcript | AsrError]:
        """Transcribe several recordings; the results come in the order of `audios`.

        A recording that cannot be used has its error as its result; the others are not affected.
        `batch_seconds` bounds the padded seconds that are decoded together, and with them the memory used.
        """
        results = dict(
            self.transcribe_each(
                audios,
                sample_rate=sample_rate,
                batch_seconds=batch_seconds,
                whole=whole,
                attention=attention,
            )
        )
        return [results[index] for index in range(len(audios))]

    def transcribe_each(
        self,
        audios: Iterable[AudioInput],
        *,
        sample_rate: int = 16_000,
        batch_seconds: float = BATCH_SECONDS,
        whole: bool = False,
        attention: bool = False,
        on_progress: OnProgress | None = None,
    ) -> Iterator[tuple[int, Transcript | AsrError]]:
        """Yield (number in `audios`, result) as results are ready, pieces of like length decoded together.

        No more than a few batches of audio are held, however long or many the recordings are. `on_progress` is called
        after each piece with the recording's number and how many seconds of it have been dealt with: decoded, or
        found to be silence.
        """
        jobs = (Assembly(n, self._reader(item, sample_rate)) for n, item in enumerate(audios))
        pool: list[tuple[Assembly, Piece]] = []
        for job, event in events(jobs, self.vad, whole=whole):
            if isinstance(event, AsrError):
                yield job.index, event
            elif event is not None:
                pool.append((job, event))
                if sum(piece.seconds for _, piece in pool) >= POOL * batch_seconds:
                    yield from self._finish(pool, batch_seconds, attention, on_progress)
                    pool = []
            elif not job.waiting:
                yield job.index, self._transcript(job)
        yield from self._finish(pool, batch_seconds, attention, on_progress)

    def stream(
        self,
        audio: AudioInput,
        *,
        sample_rate: int = 16_000,
        batch_seconds: float = BATCH_SECONDS,
        attention: bool = False,
    ) -> Iterator[Segment]:
        """Yield the segments of one long recording in order, while the rest of it is still to be read.

        Those before a damage in a file are yielded, then AudioError is raised.

        >>> for segment in load().stream("data/samples/horse.opus"):
        ...     print(f"{segment.start:.1f} to {segment.end:.1f} s")
        0.2 to 3.4 s
        """
        pool: list[Piece] = []
        try:
            for piece in self._reader(audio, sample_rate).pieces(self.vad):
                pool.append(piece)
                if sum(piece.seconds for piece in pool) >= batch_seconds:
                    done, pool = pool, []
                    yield from self._in_order(done, batch_seconds, attention)
        except AsrError:
            yield from self._in_order(pool, batch_seconds, attention)
            raise
        yield from self._in_order(pool, batch_seconds, attention)

    def recognise(self, waveforms: Sequence[Tensor]) -> list[list[Hypothesis]]:
        """Return the n-best hypotheses, best first, of each waveform (S,) at the model's sample rate.

        The waveforms are padded and decoded as one batch, as they are. One that is silent or too short for the model
        has a single hypothesis without tokens.
        """
        return [heard.hypotheses for heard in self._hear(waveforms)]

    @torch.inference_mode()
    def _hear(self, waveforms: Sequence[Tensor]) -> list[Heard]:
        """The one path from sound to tokens."""
        nothing = Heard([replace(empty_hypothesis(), ended=True)], self.model.frame_seconds)
        results = [nothing for _ in waveforms]
        audible = [i for i, waveform in enumerate(waveforms) if self._is_audible(waveform)]
        if not audible:
            return results
        audio = [waveforms[i].to(self.device, torch.float32) for i in audible]
        found = extract(self.model, self.features, audio)
        warp, options = self.search.warp, self.trained.features
        memory = encode(self.model, found.features, found.lengths, warp, options)
        ctc = self.model.ctc_log_probs(memory)
        decoded = decode(self.model, memory, self.tokenizer, self.search)
        for row, (index, hypotheses) in enumerate(zip(audible, decoded, strict=True)):
            frames = int(memory.lengths[row]) * self.model.ctc_factor
            log_probs = None if ctc is None else ctc[row, :frames].float().cpu()
            results[index] = Heard(hypotheses, found.frame_seconds[row], log_probs)
        return results

    def _is_audible(self, waveform: Tensor) -> bool:
        needed = max(2, round(self.model.frame_seconds * 1000 / self.trained.features.hop_ms))
        enough = self.features.frames(len(waveform)) >= needed
        return enough and loudness(waveform, self._rate) >= SILENCE_DBFS

    @property
    def _rate(self) -> int:
        return self.trained.features.sample_rate

    def _reader(self, item: AudioInput, sample_rate: int) -> Reader:
        return Reader(item, sample_rate=sample_rate, rate=self._rate)

    def _finish(
        self,
        pool: Sequence[tuple[Assembly, Piece]],
        batch_seconds: float,
        attention: bool,
        on_progress: OnProgress | None,
    ) -> Iterator[tuple[int, Transcript]]:
        """Decode the pieces of a pool; yield the recordings that are done with it."""
        pool = [(job, piece) for job, piece in pool if not job.failed]
        for number, found in self.decode_pieces([piece for _, piece in pool], batch_seconds):
            job, piece = pool[number]
            job.add(found, piece.seconds, attention=attention)
            if on_progress is not None:
                on_progress(job.index, job.seconds)
            if job.read and not job.waiting:
                yield job.index, self._transcript(job)

    def _in_order(
        self, pieces: Sequence[Piece], batch_seconds: float, attention: bool
    ) -> Iterator[Segment]:
        found = dict(self.decode_pieces(pieces, batch_seconds))
        for number in range(len(pieces)):
            if found[number].says_something:
                yield kept(found[number].segment, attention=attention)

    def decode_pieces(
        self, pieces: Sequence[Piece], batch_seconds: float
    ) -> Iterator[tuple[int, Decoded]]:
        """Yield (number in `pieces`, what was said there) batch by batch, pieces of like length together."""
        for batch in batches(pieces, batch_seconds):
            heard = self._hear([torch.from_numpy(pieces[i].waveform) for i in batch])
            for number, one in zip(batch, heard, strict=True):
                yield number, self._described(pieces[number], one)
            give_memory_back()

    def _described(self, piece: Piece, heard: Heard) -> Decoded:
        return decoded(
            piece,
            heard,
            tokenizer=self.tokenizer,
            calibration=self.calibration,
        )

    def _transcript(self, job: Assembly) -> Transcript:
        return job.transcript(model=self.name, settings=self.settings)
