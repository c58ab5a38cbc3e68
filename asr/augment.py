"""Training data made harder: waveforms (S,) at other speeds, in noise, rooms and levels; features with masks in them.

Speed, noise, reverberation and gain change the waveform and are applied once, where features are computed and cached;
SpecAugment changes the features of every batch anew. All of it is a function of its arguments and a torch.Generator.
"""

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

from asr.errors import ConfigError
from asr.features import FeatureOptions

Range = tuple[float, ...]  # lowest and highest
DECAY = 6.908  # -log(10 ** -3): amplitude falls by 60 dB


@dataclass(frozen=True)
class AugmentOptions:
    """What is done to training data only; the defaults are SpecAugment and three speeds."""

    time_masks: int = 5  # SpecAugment: stretches of time hidden in an utterance; 0 for none
    time_mask_fraction: float = 0.05  # the longest one as a share of the utterance's frames
    freq_masks: int = 2  # SpecAugment: groups of neighbouring mel bands hidden; 0 for none
    freq_mask_bins: int = 27  # the most bands in one group
    freq_warp: float = 0.0  # an utterance's frequencies are raised or lowered by up to this share
    speeds: tuple[float, ...] = (1.0, 0.9, 1.1)  # one an utterance and epoch; pitch changes too
    noise_probability: float = 0.0  # share of (utterance, speed) pairs that get white or pink noise
    noise_snr_db: Range = (10.0, 30.0)  # signal to noise ratio is drawn from here, in dB
    reverb_probability: float = 0.0  # share that is heard as in a room
    reverb_seconds: Range = (0.2, 0.6)  # the room's time to fall by 60 dB is drawn from here
    gain_db: Range = (0.0, 0.0)  # a change of level is drawn from here, in dB

    def __post_init__(self) -> None:
        """Refuse values out of range; raises ConfigError naming the option and what is allowed."""
        for name in (
            "time_mask_fraction",
            "freq_warp",
            "noise_probability",
            "reverb_probability",
        ):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} = {getattr(self, name)}: must be from 0 to 1")
        for name in ("time_masks", "freq_masks", "freq_mask_bins"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} = {getattr(self, name)}: must be 0 or more")
        for name in ("noise_snr_db", "reverb_seconds", "gain_db"):
            value = getattr(self, name)
            if len(value) != 2 or value[0] > value[1]:
                raise ConfigError(f"{name} = {value}: must be two numbers, the lower one first")
        if self.reverb_seconds[0] <= 0:
            raise ConfigError(f"reverb_seconds = {self.reverb_seconds}: must be above 0")
        if not self.speeds or not all(0.5 <= speed <= 2 for speed in self.speeds):
            raise ConfigError(f"speeds = {self.speeds}: must be one or more numbers from 0.5 to 2")

    def waveform_key(self) -> str:
        """The options that `waveform_variants` depends on, as text: equal for equal results."""
        room = (self.reverb_probability, self.reverb_seconds) if self.reverb_probability else None
        noise = (self.noise_probability, self.noise_snr_db) if self.noise_probability else None
        return f"speeds={self.speeds} noise={noise} reverb={room} gain_db={self.gain_db}"


def spec_augment(
    features: Tensor,
    lengths: Tensor,
    options: AugmentOptions,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Features (B, T, M) with some stretches of time and some mel bands set to 0, which is the mean after normalising.

    `lengths` (B,) are the valid frames of each utterance. Every utterance has its own masks; a time mask is 0 up to
    `time_mask_fraction` of the utterance's frames long and lies within them, a frequency mask 0 up to `freq_mask_bins`
    bands wide; each width is drawn evenly. Padding is returned as it was, and so is the input tensor itself.
    `generator` is one of the CPU, None for the global one. Source: SpecAugment (Park et al. 2019, section 2, without
    time warping), sizes in proportion to length (Park et al. 2020, "adaptive size").
    """
    batch, frames, mels = features.shape
    lengths = lengths.to("cpu", torch.float32)
    longest = (options.time_mask_fraction * lengths.double()).floor().float()
    widest = torch.full((batch,), float(min(options.freq_mask_bins, mels)))
    valid = torch.arange(frames) < lengths[:, None]
    times = _spans(options.time_masks, longest, lengths, frames, generator) & valid
    bands = _spans(options.freq_masks, widest, torch.full((batch,), float(mels)), mels, generator)
    times, bands, valid = (mask.to(features.device) for mask in (times, bands, valid))
    hidden = times[:, :, None] | (bands[:, None, :] & valid[:, :, None])
    return features.masked_fill(hidden, 0.0)


def warp_frequencies(
    features: Tensor,
    width: float,
    options: FeatureOptions,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Features (B, T, M) as of speakers with a longer or shorter vocal tract: what was at f Hz is at f / a.

    Each utterance has its own factor a, drawn evenly from 1 - `width` to 1 + `width`; bands are interpolated between
    their neighbours, and past the highest band it is repeated. `options` say where on the mel scale the bands are.
    Source: vocal tract length perturbation (Jaitly & Hinton 2013), on the bands and without its bend near the top.
    """
    if width == 0:
        return features
    factors = 1 + width * (2 * torch.rand(len(features), generator=generator) - 1)
    return warped(features, factors, options)


def warped(features: Tensor, factors: Tensor, options: FeatureOptions) -> Tensor:
    """Features (B, T, M) with frequencies warped by factors (B,), or by one (1,) for all; see `warp_frequencies`."""
    mels = features.shape[2]
    low, high = _mel(torch.tensor([options.low_hz, options.high_hz])).tolist()
    spacing = (high - low) / (mels + 1)
    centres = low + spacing * torch.arange(1, mels + 1)
    hertz = 700 * (10 ** (centres / 2595) - 1)
    source = ((_mel(hertz * factors[:, None]) - low) / spacing - 1).clamp(0, mels - 1)
    distance = (source[:, :, None] - torch.arange(mels)).abs()
    weights = (1 - distance).clamp(min=0)  # (B, M, M), each row sums to 1
    return features @ weights.transpose(1, 2).to(features)


def _mel(hertz: Tensor) -> Tensor:
    """HTK's mel scale, as the features'."""
    return 2595 * torch.log10(1 + hertz / 700)


def _spans(
    count: int, longest: Tensor, size: Tensor, axis: int, generator: torch.Generator | None
) -> Tensor:
    """True (B, axis) inside `count` spans a row, each 0 to `longest` (B,) long and within the first `size` (B,)."""
    draws = torch.rand(2, len(size), count, generator=generator)
    length = (draws[0] * (longest[:, None] + 1)).floor()
    start = (draws[1] * (size[:, None] - length + 1)).floor()
    at = torch.arange(axis)
    return ((at >= start[..., None]) & (at < (start + length)[..., None])).any(dim=1)


def waveform_variants(
    waveform: Tensor, options: AugmentOptions, sample_rate: int, utterance_id: str
) -> list[Tensor]:
    """The waveform (S,) at each of `options.speeds`, with the noise, room and gain drawn for it.

    What is drawn depends on the utterance's id and the speed alone, so that cached features can be made again.
    """
    variants = []
    for speed in options.speeds:
        name = f"{utterance_id} {speed}".encode(errors="backslashreplace")
        digest = hashlib.sha256(name).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
        variants.append(_disturb(change_speed(waveform, speed), options, sample_rate, generator))
    return variants


def _disturb(
    waveform: Tensor, options: AugmentOptions, sample_rate: int, generator: torch.Generator
) -> Tensor:
    room, noisy, pink, seconds, snr_db, gain_db = torch.rand(6, generator=generator).tolist()
    if room < options.reverb_probability:
        decay = _between(options.reverb_seconds, seconds)
        waveform = reverberate(waveform, generator, seconds=decay, sample_rate=sample_rate)
    if noisy < options.noise_probability:
        snr = _between(options.noise_snr_db, snr_db)
        waveform = add_noise(waveform, snr, generator, pink=pink < 0.5)
    return change_gain(waveform, _between(options.gain_db, gain_db))


def _between(limits: Range, share: float) -> float:
    return limits[0] + share * (limits[1] - limits[0])


def change_speed(waveform: Tensor, factor: float) -> Tensor:
    """A waveform (S,) played `factor` times as fast, (S / factor,) rounded; pitch and formants rise by the same factor.

    By resampling (soxr), as a tape played faster. Source: Ko et al. 2015, "Audio augmentation for speech recognition".
    """
    if factor == 1:
        return waveform
    import soxr

    return torch.from_numpy(soxr.resample(waveform.numpy(), factor, 1.0))


def change_gain(waveform: Tensor, gain_db: float) -> Tensor:
    """A waveform (S,) louder by `gain_db` decibels; not clipped."""
    return waveform if gain_db == 0 else waveform * 10 ** (gain_db / 20)


def add_noise(
    waveform: Tensor,
    snr_db: float,
    generator: torch.Generator | None = None,
    *,
    pink: bool = False,
) -> Tensor:
    """A waveform (S,) with noise at exactly `snr_db` decibels of signal to noise power, both over the whole waveform.

    The noise is Gaussian, white or `pink` (equal power an octave). Where the waveform is silent no such ratio exists
    and it is returned as it is.
    """
    noise = _coloured(len(waveform), pink, generator)
    signal_power, noise_power = _power(waveform), _power(noise)
    if signal_power == 0 or noise_power == 0:
        return waveform
    wanted = signal_power / 10 ** (snr_db / 10)
    return waveform + noise * (wanted / noise_power) ** 0.5


def reverberate(
    waveform: Tensor,
    generator: torch.Generator | None = None,
    *,
    seconds: float = 0.4,
    direct_db: float = 5.0,
    sample_rate: int = 16_000,
) -> Tensor:
    """A waveform (S,) as heard in a made-up room, of the same length and power, not delayed.

    The room's impulse response is the direct sound and a tail of Gaussian noise that falls by 60 dB in `seconds`;
    `direct_db` is the ratio of their energies in decibels. Source: Polack's model, e.g. Habets 2007, section 2.2.
    """
    samples = len(waveform)
    time = torch.arange(1, round(seconds * sample_rate) + 1) / sample_rate
    tail = torch.randn(len(time), generator=generator) * torch.exp(-DECAY * time / seconds)
    tail *= (10 ** (-direct_db / 10) / tail.square().sum()).sqrt()
    response = torch.cat([torch.ones(1), tail])
    size = 1 << (samples + len(response)).bit_length()  # no wrap-around, and a quick size
    spectrum = torch.fft.rfft(waveform, size) * torch.fft.rfft(response, size)
    heard = torch.fft.irfft(spectrum, size)[:samples]
    power = _power(heard)
    return heard if power == 0 else heard * (_power(waveform) / power) ** 0.5


def _coloured(samples: int, pink: bool, generator: torch.Generator | None) -> Tensor:
    white = torch.randn(samples, generator=generator)
    if not pink or samples < 2:
        return white
    spectrum = torch.fft.rfft(white)
    falling = torch.arange(len(spectrum)).clamp(min=1).rsqrt()  # amplitude 1/sqrt(f): power 1/f
    return torch.fft.irfft(spectrum * falling, samples)


def _power(waveform: Tensor) -> float:
    return float(waveform.double().square().mean()) if len(waveform) else 0.0
