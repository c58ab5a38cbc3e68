"""Log-mel features: a waveform (S,) in, frames (T, M) out, one every 10 ms, the same offline and in pieces."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from asr._torchaudio import load_torchaudio
from asr.errors import ConfigError
from asr.options import check_range

LOG_FLOOR = 1e-8  # power below which a mel band counts as silent: log-mel never goes under log(1e-8) = -18.4
STD_FLOOR = 1e-3


@dataclass(frozen=True)
class FeatureOptions:
    """What the frontend computes; stored in every checkpoint, so a model always gets the features it was trained on."""

    sample_rate: int = 16_000  # Hz; audio is resampled to it
    n_mels: int = 80  # mel bands (HTK scale)
    window_ms: float = 25.0  # Hann window
    hop_ms: float = 10.0  # time between frames
    low_hz: float = 20.0
    high_hz: float = 8_000.0
    normalise: bool = True  # zero mean and unit variance per band over the utterance

    def __post_init__(self) -> None:
        check_range(self, "features", ("sample_rate", "n_mels"), 1)
        if self.hop_samples < 1 or self.window_samples < 2:
            raise ConfigError(
                f"features.hop_ms {self.hop_ms}, window_ms {self.window_ms}: too short for {self.sample_rate} Hz"
            )
        if not 0 <= self.low_hz < self.high_hz <= self.sample_rate / 2:
            raise ConfigError(
                f"features.low_hz {self.low_hz}, high_hz {self.high_hz}: low_hz must be below high_hz, "
                f"and that at most half the sample rate, {self.sample_rate / 2:g}"
            )

    @property
    def hop_samples(self) -> int:
        """Samples between the starts of two frames."""
        return round(self.sample_rate * self.hop_ms / 1000)

    @property
    def window_samples(self) -> int:
        """Samples under the window."""
        return round(self.sample_rate * self.window_ms / 1000)

    @property
    def fft_samples(self) -> int:
        """The next power of two at or above the window."""
        return 1 << (self.window_samples - 1).bit_length()


class LogMel(nn.Module):
    """Log-mel filterbank energies by torchaudio; equals librosa.feature.melspectrogram(htk=True, norm=None)."""

    def __init__(self, options: FeatureOptions | None = None) -> None:
        super().__init__()
        self.options = options = options or FeatureOptions()
        self.mel = load_torchaudio().transforms.MelSpectrogram(
            sample_rate=options.sample_rate,
            n_fft=options.fft_samples,
            win_length=options.window_samples,
            hop_length=options.hop_samples,
            f_min=options.low_hz,
            f_max=options.high_hz,
            n_mels=options.n_mels,
            power=2.0,
            center=False,
        )

    def frames(self, samples: int) -> int:
        """How many frames `samples` give: 1 + (samples - fft_samples) // hop_samples, or 0 if shorter than one."""
        return max(0, 1 + (samples - self.options.fft_samples) // self.options.hop_samples)

    def forward(self, waveform: Tensor) -> Tensor:
        """Waveform (..., S) in [-1, 1] to natural-log mel power (..., T, M), not normalised.

        Frame t covers samples t * hop to t * hop + fft_samples, nothing is padded at the ends.
        """
        if waveform.shape[-1] < self.options.fft_samples:
            return waveform.new_zeros(*waveform.shape[:-1], 0, self.options.n_mels)
        power: Tensor = self.mel(waveform)
        return power.clamp(min=LOG_FLOOR).log().transpose(-1, -2)

    def stream(self, block: Tensor, carry: Tensor) -> tuple[Tensor, Tensor]:
        """Features of the next block (S,) of a stream, and the samples to carry over to the block after it.

        Begin with an empty carry, `torch.zeros(0)`. The pieces joined equal `forward` of the whole waveform.
        """
        waveform = torch.cat([carry, block])
        features = self(waveform)
        return features, waveform[features.shape[0] * self.options.hop_samples :]

    def extract(self, waveform: Tensor) -> Tensor:
        """What a model is fed: waveform (S,) to features (T, M), normalised if the options say so."""
        features: Tensor = self(waveform)
        return normalise(features) if self.options.normalise else features


def normalise(features: Tensor) -> Tensor:
    """Features (T, M) with zero mean and unit variance in every band over the utterance; (0, M) stays empty."""
    if features.shape[0] == 0:
        return features
    std, mean = torch.std_mean(features, dim=0, correction=0)
    return (features - mean) / std.clamp(min=STD_FLOOR)
