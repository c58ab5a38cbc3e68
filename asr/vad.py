"""Where there is speech: a waveform in, the probability of speech in every 32 ms and spans of speech out.

The network is silero-vad's, with the weights of that package, written as one pass over many frames: the same
probabilities as its own frame by frame call, many times faster, and with its state as a value, so that one detector
serves any number of recordings and threads.
"""

import warnings
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from asr.errors import AsrError, ConfigError
from asr.options import check_range

RATE = 16_000  # hertz; what the detector hears
FRAME = 512  # samples
CONTEXT = 64  # samples of the frame before that a frame begins with
FRAME_SECONDS = FRAME / RATE

Probabilities = NDArray[np.float32]


@dataclass(frozen=True)
class VadOptions:
    """What counts as speech, and how a recording is cut into pieces of speech; all times in seconds."""

    threshold: float = 0.5  # probability from which a frame begins speech
    release: float = 0.35  # probability below which speech ends
    min_speech: float = 0.1  # a shorter sound is none
    min_silence: float = 0.1  # a shorter dip is no pause
    max_pause: float = 0.4  # a longer pause ends a piece
    padding: float = 0.4  # of the recording that is kept before and after the speech of a piece
    max_seconds: float = 20.0  # a piece that would get longer is cut at its longest pause

    def __post_init__(self) -> None:
        check_range(self, "vad", ("threshold", "release"), 0, 1)
        check_range(self, "vad", ("min_speech", "min_silence", "max_pause", "padding"), 0)
        check_range(self, "vad", ("max_seconds",), 5)
        if self.release > self.threshold:
            raise ConfigError(
                f"vad.release is {self.release}; it must be at most threshold ({self.threshold})"
            )
        if self.padding > min(self.max_pause, self.max_seconds / 5):
            raise ConfigError(
                f"vad.padding is {self.padding}; it must be at most max_pause ({self.max_pause}) "
                f"and a fifth of max_seconds ({self.max_seconds})"
            )


@dataclass(frozen=True)
class DetectorState:
    """What the detector keeps of a recording between two blocks."""

    samples: Tensor  # (CONTEXT + rest,) the last frame's end and what is not yet a frame
    recurrent: tuple[Tensor, Tensor] | None = None


class Detector(nn.Module):
    """silero-vad's network for 16 kHz (https://github.com/snakers4/silero-vad, MIT licence)."""

    def __init__(self) -> None:
        super().__init__()
        self.spectrum = nn.Conv1d(1, 258, 256, stride=128, bias=False)
        sizes = [(129, 128, 1), (128, 64, 2), (64, 64, 2), (64, 128, 1)]
        self.encoder = nn.ModuleList(nn.Conv1d(i, o, 3, s, padding=1) for i, o, s in sizes)
        self.rnn = nn.LSTM(128, 128)
        self.output = nn.Conv1d(128, 1, 1)

    @staticmethod
    def start() -> DetectorState:
        """Return the state before the first block of a recording."""
        return DetectorState(torch.zeros(CONTEXT))

    @torch.inference_mode()
    def listen(self, block: Tensor, state: DetectorState) -> tuple[Probabilities, DetectorState]:
        """Take the next block (S,) at 16 kHz; return the probabilities (N,) of the frames now whole, and the state.

        Blocks may have any length; the probabilities do not depend on how a recording is cut into blocks.
        """
        samples = torch.cat([state.samples, block])
        count = (len(samples) - CONTEXT) // FRAME
        if count < 1:
            return np.zeros(0, np.float32), DetectorState(samples, state.recurrent)
        frames = samples.unfold(0, CONTEXT + FRAME, FRAME)[:, None]
        bins = self.spectrum(nn.functional.pad(frames, (0, 64), mode="reflect"))
        values = (bins[:, :129].square() + bins[:, 129:].square()).sqrt()
        for layer in self.encoder:
            values = layer(values).relu()
        values, recurrent = self.rnn(values.reshape(count, 1, 128), state.recurrent)
        speech = self.output(values.transpose(1, 2).relu()).sigmoid().flatten()
        return speech.numpy(), DetectorState(samples[count * FRAME :], recurrent)


@cache
def detector() -> Detector:
    """Return silero-vad's detector, loaded once. Raises AsrError where the package or its weights are missing."""
    # Neither imported nor run: the package sets torch's number of threads, and its model holds its state itself.
    found = find_spec("silero_vad")
    folders = [] if found is None else found.submodule_search_locations or []
    path = Path(next(iter(folders), "")) / "data" / "silero_vad.jit"
    if not path.is_file():
        raise AsrError("the weights of silero-vad are not there: pip install silero-vad")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of torch.jit as a whole
        weights = torch.jit.load(path).state_dict()
    names = {"stft.forward_basis_buffer": "spectrum.weight"}
    for kind in ("weight", "bias"):
        names |= {f"encoder.{i}.reparam_conv.{kind}": f"encoder.{i}.{kind}" for i in range(4)}
        names |= {f"decoder.rnn.{kind}_{part}": f"rnn.{kind}_{part}_l0" for part in ("ih", "hh")}
        names[f"decoder.decoder.2.{kind}"] = f"output.{kind}"
    network = Detector().eval().requires_grad_(False)
    network.load_state_dict({new: weights[f"_model.{old}"] for old, new in names.items()})
    return network


def is_speech(
    probabilities: Probabilities, options: VadOptions, *, speaking: bool = False
) -> NDArray[np.int64]:
    """Return 1 for each frame of speech, else 0: it begins at `threshold` and ends where they are below `release`.

    `speaking` says what the frame before the first was.
    """
    known = np.full(len(probabilities), -1, np.int64)
    known[probabilities < options.release] = 0
    known[probabilities >= options.threshold] = 1
    last = np.maximum.accumulate(np.where(known >= 0, np.arange(len(known)), -1))
    return np.where(last >= 0, known[last], int(speaking))


def speech_runs(
    probabilities: Probabilities, options: VadOptions, *, speaking: bool = False
) -> list[tuple[int, int]]:
    """Return the stretches of speech as (first frame, frame after the last), short dips closed, short sounds left out.

    `speaking` says whether the frame before the first was speech.
    """
    speech = is_speech(probabilities, options, speaking=speaking)
    edges = np.flatnonzero(np.diff(speech, prepend=0, append=0)).tolist()
    closed: list[tuple[int, int]] = []
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        if closed and (start - closed[-1][1]) * FRAME_SECONDS < options.min_silence:
            start = closed.pop()[0]
        closed.append((start, end))
    return [run for run in closed if (run[1] - run[0]) * FRAME_SECONDS >= options.min_speech]


def loudness(waveform: Tensor, sample_rate: int) -> float:
    """Return the RMS level of the loudest tenth of a second, in dB relative to full scale."""
    window = min(len(waveform), sample_rate // 10)
    blocks = waveform[: len(waveform) // window * window].float().reshape(-1, window)
    return float(10 * torch.log10(blocks.square().mean(dim=1).max() + 1e-20))
