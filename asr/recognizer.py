"""A trained model that transcribes: audio files or waveforms in, `Transcript` values out.

Load once, transcribe often. `Recognizer.recognise` is the one path from waveforms to hypotheses; evaluation,
training's validation and the command line all take it.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.utils.rnn import pad_sequence

from asr import audio, checkpoint
from asr.checkpoint import Trained
from asr.decoding import DecodingOptions, Hypothesis, decode
from asr.errors import AsrError, AudioError, ConfigError
from asr.features import LogMel
from asr.transcript import Attention, Segment, Transcript

MAX_SECONDS = 60.0
"""The longest recording that is transcribed in one piece; a longer one is refused."""

SILENCE_DBFS = -60.0
"""A recording whose loudest tenth of a second stays below this level (RMS, full scale = 0 dB) is silence."""

AudioInput = str | Path | NDArray[np.generic] | torch.Tensor
"""What can be transcribed: a path, or a mono waveform (S,), floats in [-1, 1] or 16 or 32 bit integers."""


def load(
    model: str | Path | None = None,
    *,
    device: str = "cpu",
    beam_size: int | None = None,
    threads: int | None = None,
) -> "Recognizer":
    """Load a recognizer from a checkpoint file, or the model that comes with the package if `model` is None.

    `beam_size` 1 is greedy search; None is the default of `DecodingOptions`. `threads` sets torch's number of
    CPU threads for the whole process. Raises CheckpointError if the model cannot be read and ConfigError if
    an option is out of range.
    """
    if threads is not None:
        if threads < 1:
            raise ConfigError(f"threads is {threads}; it must be 1 or more")
        torch.set_num_threads(threads)
    options = DecodingOptions() if beam_size is None else DecodingOptions(beam_size=beam_size)
    place = checked_device(device)
    path = checkpoint.bundled() if model is None else Path(model)
    return Recognizer(checkpoint.load(path, device=place), options=options, device=place)


def transcribe(
    audio: AudioInput, *, model: str | Path | None = None, sample_rate: int = 16_000
) -> Transcript:
    """Load a model (None: the bundled one) and transcribe one recording; see `Recognizer.transcribe`.

    For more than one recording, `load` once and use the recognizer.
    """
    return load(model).transcribe(audio, sample_rate=sample_rate)


class Recognizer:
    """A model with its features, tokenizer and search options, ready to transcribe recordings of up to 60 s."""

    def __init__(
        self,
        trained: Trained,
        *,
        options: DecodingOptions | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        """Wrap `trained`, moving its model to `device` and into evaluation mode."""
        self.trained = trained
        self.options = DecodingOptions() if options is None else options
        self.device = torch.device(device)
        self.model = trained.model.to(self.device).eval()
        self.tokenizer = trained.tokenizer
        self.features = LogMel(trained.features).to(self.device)

    def transcribe(self, audio: AudioInput, *, sample_rate: int = 16_000) -> Transcript:
        """Transcribe one recording: a file at any rate, or a waveform (S,) at `sample_rate` hertz.

        Silence, and audio shorter than one step of the model, gives an empty text. Raises AudioError, naming
        the file and the reason, if it cannot be read or is longer than 60 s.
        """
        _checked_duration(audio, sample_rate)  # of a file by its header, before all of it is read
        waveform = self._waveform(audio, sample_rate)
        return self._transcript(audio, waveform, self.recognise([waveform])[0][0])

    def transcribe_batch(
        self,
        audios: Sequence[AudioInput],
        *,
        sample_rate: int = 16_000,
        batch_seconds: float = 120.0,
    ) -> list[Transcript | AsrError]:
        """Transcribe several recordings; the results come in the order of `audios`.

        A recording that cannot be used has its error as its result; the others are not affected.
        `batch_seconds` bounds the padded seconds that are decoded together, and with them the memory used.
        """
        results = dict(
            self.transcribe_each(audios, sample_rate=sample_rate, batch_seconds=batch_seconds)
        )
        return [results[index] for index in range(len(audios))]

    def transcribe_each(
        self,
        audios: Sequence[AudioInput],
        *,
        sample_rate: int = 16_000,
        batch_seconds: float = 120.0,
    ) -> Iterator[tuple[int, Transcript | AsrError]]:
        """Yield (index into `audios`, result) as results are ready, recordings of like length together."""
        durations: dict[int, float] = {}
        for index, item in enumerate(audios):
            try:
                durations[index] = _checked_duration(item, sample_rate)
            except AsrError as error:
                yield index, error
        for batch in _batches(durations, batch_seconds):
            yield from self._transcribe_together(batch, audios, sample_rate)

    @torch.inference_mode()
    def recognise(self, waveforms: Sequence[torch.Tensor]) -> list[list[Hypothesis]]:
        """Return the n-best hypotheses, best first, of each waveform (S,) at the model's sample rate.

        The waveforms are padded and decoded as one batch. One that is silent or too short for the model has a
        single hypothesis without tokens. This is the one path from sound to tokens.
        """
        results = [[_nothing()] for _ in waveforms]
        heard = [i for i, waveform in enumerate(waveforms) if self._is_audible(waveform)]
        if not heard:
            return results
        features = [
            self.features.extract(waveforms[i].to(self.device, torch.float32)) for i in heard
        ]
        lengths = torch.tensor([len(item) for item in features], device=self.device)
        memory = self.model.encode(pad_sequence(features, batch_first=True), lengths)
        decoded = decode(self.model, memory, self.tokenizer, self.options)
        for index, hypotheses in zip(heard, decoded, strict=True):
            results[index] = hypotheses
        return results

    def _transcribe_together(
        self, indices: Sequence[int], audios: Sequence[AudioInput], sample_rate: int
    ) -> Iterator[tuple[int, Transcript | AsrError]]:
        waveforms: dict[int, torch.Tensor] = {}
        for index in indices:
            try:
                waveforms[index] = self._waveform(audios[index], sample_rate)
            except AsrError as error:
                yield index, error
        decoded = self.recognise(list(waveforms.values()))
        for (index, waveform), hypotheses in zip(waveforms.items(), decoded, strict=True):
            yield index, self._transcript(audios[index], waveform, hypotheses[0])

    def _is_audible(self, waveform: torch.Tensor) -> bool:
        rate = self.trained.features.sample_rate
        needed = max(2, round(self.model.frame_seconds * 1000 / self.trained.features.hop_ms))
        enough = self.features.frames(len(waveform)) >= needed
        return enough and _loudness(waveform, rate) >= SILENCE_DBFS

    def _waveform(self, item: AudioInput, sample_rate: int) -> torch.Tensor:
        rate = self.trained.features.sample_rate
        if isinstance(item, str | Path):
            waveform = torch.from_numpy(audio.read(item, sample_rate=rate))
        else:
            array = _as_floats(item)
            if sample_rate != rate:
                array = audio.resample(array, sample_rate, rate)
            waveform = torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
        _refuse_long(item, len(waveform) / rate)
        return waveform

    def _transcript(
        self, item: AudioInput, waveform: torch.Tensor, hypothesis: Hypothesis
    ) -> Transcript:
        text = self.tokenizer.decode(hypothesis.tokens).strip()
        duration = len(waveform) / self.trained.features.sample_rate
        confidence = _confidence(hypothesis)
        segment = Segment(start=0.0, end=duration, text=text, confidence=confidence)
        tokens = tuple(self.tokenizer.decode([token]) for token in hypothesis.tokens)
        return Transcript(
            text=text,
            segments=(segment,) if text else (),
            duration=duration,
            confidence=confidence,
            audio=str(item) if isinstance(item, str | Path) else None,
            complete=hypothesis.ended,
            attention=Attention(hypothesis.attention, tokens, self.model.frame_seconds),
        )


def _confidence(hypothesis: Hypothesis) -> float | None:
    if not hypothesis.token_log_probs:
        return None
    return float(np.exp(np.mean(hypothesis.token_log_probs)))


def _nothing() -> Hypothesis:
    return Hypothesis(
        tokens=(), score=0.0, token_log_probs=(), attention=torch.zeros(0, 0), ended=True
    )


def _loudness(waveform: torch.Tensor, sample_rate: int) -> float:
    """Return the RMS level of the loudest tenth of a second, in dB relative to full scale."""
    window = min(len(waveform), sample_rate // 10)
    blocks = waveform[: len(waveform) // window * window].float().reshape(-1, window)
    power = float(blocks.square().mean(dim=1).max())
    return float(10 * np.log10(power + 1e-20))


def _batches(durations: dict[int, float], batch_seconds: float) -> Iterator[list[int]]:
    """Group indices by length, longest first, so that each batch's padded seconds stay within the bound."""
    batch: list[int] = []
    longest = 0.0
    for index in sorted(durations, key=lambda i: -durations[i]):
        if batch and longest * (len(batch) + 1) > batch_seconds:
            yield batch
            batch = []
        longest = durations[index] if not batch else longest
        batch.append(index)
    if batch:
        yield batch


def _checked_duration(item: AudioInput, sample_rate: int) -> float:
    """Return the length in seconds; a file's header is trusted here and its samples are checked once read."""
    if isinstance(item, str | Path):
        seconds = audio.info(item).duration
    else:
        if sample_rate < 1:
            raise AudioError(
                f"sample_rate is {sample_rate}; it must be in hertz, 16000 for instance"
            )
        seconds = len(_as_floats(item)) / sample_rate
    _refuse_long(item, seconds)
    return seconds


def _refuse_long(item: AudioInput, seconds: float) -> None:
    if seconds > MAX_SECONDS:
        name = item if isinstance(item, str | Path) else "waveform"
        raise AudioError(
            f"{name}: {seconds:.1f} s long; a recording may be up to {MAX_SECONDS:.0f} s, cut it at pauses"
        )


def _as_floats(item: NDArray[np.generic] | torch.Tensor) -> NDArray[np.float32]:
    array = item.detach().cpu().numpy() if isinstance(item, torch.Tensor) else np.asarray(item)
    if array.ndim != 1 or not len(array):
        shape = "x".join(map(str, array.shape)) or "no"
        raise AudioError(f"waveform of shape {shape}: give one channel as (samples,), not empty")
    if array.dtype in (np.int16, np.int32):
        return (array / -float(np.iinfo(array.dtype).min)).astype(np.float32)
    if not np.issubdtype(array.dtype, np.floating):
        raise AudioError(f"waveform of {array.dtype}: give floats in [-1, 1], int16 or int32")
    if not np.isfinite(array).all():
        raise AudioError("waveform holds NaN or infinite values")
    return array.astype(np.float32)


def checked_device(device: str) -> torch.device:
    """The device of that name. Raises ConfigError where it is unknown or not to be had here."""
    try:
        place = torch.device(device)
    except RuntimeError:
        place = torch.device("meta")
    if place.type not in ("cpu", "cuda", "mps"):
        raise ConfigError(f"device {device!r} is not known; use cpu, cuda, cuda:0 or mps")
    if place.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device {device!r}: torch finds no CUDA GPU here; use cpu")
    if place.type == "cuda" and (place.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise ConfigError(f"device {device!r}: torch finds {count} CUDA GPU(s) here")
    if place.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError(f"device {device!r}: torch finds no Apple GPU here; use cpu")
    return place
