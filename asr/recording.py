"""What can be transcribed, a file or an array, in; its waveform at a model's rate out, in blocks and checked."""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from asr import audio
from asr.audio import Waveform
from asr.errors import AudioError
from asr.pieces import Piece, cut
from asr.vad import VadOptions

BLOCK_SECONDS = 30.0

WHOLE_SECONDS = 60.0
"""The longest recording that is decoded as one piece where that is asked for."""

AudioInput = str | Path | NDArray[np.generic] | torch.Tensor
"""What can be transcribed: a path, or a mono waveform (S,), floats in [-1, 1] or 16 or 32 bit integers."""


class Reader:
    """Reads one recording once, as pieces; `duration` is what has been read so far, in seconds."""

    def __init__(self, item: AudioInput, *, sample_rate: int, rate: int) -> None:
        """`sample_rate` is that of an array, `rate` the model's, in hertz."""
        self.name = str(item) if isinstance(item, str | Path) else None
        self.rate = rate
        self.duration = 0.0
        self._item = item
        self._sample_rate = sample_rate

    def pieces(self, options: VadOptions, *, whole: bool = False) -> Iterator[Piece]:
        """Yield the pieces of speech, or with `whole` all of a recording of up to WHOLE_SECONDS as one piece.

        Raises AudioError, naming the file and the reason, after the pieces before the damage.
        """
        blocks = self._blocks()
        if whole:
            held: list[Waveform] = []
            for block in blocks:
                held.append(block)
                if self.duration > WHOLE_SECONDS:
                    break
            else:
                yield Piece(np.concatenate(held), 0.0, self.duration, (0.0, self.duration))
                return
            blocks = chain(held, blocks)
        yield from cut(blocks, sample_rate=self.rate, options=options)

    def _blocks(self) -> Iterator[Waveform]:
        samples = 0
        for block in self._file() if self.name is not None else self._array():
            samples += len(block)
            self.duration = samples / self.rate
            yield block

    def _file(self) -> Iterator[Waveform]:
        path = Path(self.name or "")
        for _, block in audio.blocks(path, seconds=BLOCK_SECONDS, sample_rate=self.rate):
            yield block

    def _array(self) -> Iterator[Waveform]:
        if self._sample_rate < 1:
            raise AudioError(
                f"sample_rate is {self._sample_rate}; it must be in hertz, 16000 for instance"
            )
        waveform = audio.resample(_as_floats(self._item), self._sample_rate, self.rate)
        if not len(waveform):
            raise AudioError(f"waveform at {self._sample_rate} Hz: too short")
        size = round(BLOCK_SECONDS * self.rate)
        for start in range(0, len(waveform), size):
            yield waveform[start : start + size]


def _as_floats(item: object) -> Waveform:
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
