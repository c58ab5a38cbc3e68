"""asr.features: the log-mel that every model is fed, against librosa, in pieces, padded and normalised."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.features import LOG_FLOOR, FeatureOptions, LogMel, normalise

RATE = 16_000


def speechlike(seconds: float = 2.0, rate: int = RATE, seed: int = 0) -> torch.Tensor:
    """A gliding voiced sound with noise and pauses: harmonics, quiet and loud places, as in speech."""
    generator = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    phase = 2 * np.pi * np.cumsum(120 + 40 * np.sin(2 * np.pi * 0.7 * time)) / rate
    voice = sum(np.sin(k * phase) / k for k in range(1, 30))
    loudness = np.clip(np.sin(2 * np.pi * 1.5 * time), 0, None) ** 2
    hiss = generator.standard_normal(len(time))
    return torch.from_numpy((0.2 * loudness * voice + 0.003 * hiss).astype(np.float32))


def librosa_log_mel(waveform: torch.Tensor, options: FeatureOptions) -> np.ndarray:
    librosa = pytest.importorskip("librosa")
    power = librosa.feature.melspectrogram(
        y=waveform.numpy(),
        sr=options.sample_rate,
        n_fft=options.fft_samples,
        win_length=options.window_samples,
        hop_length=options.hop_samples,
        fmin=options.low_hz,
        fmax=options.high_hz,
        n_mels=options.n_mels,
        htk=True,
        norm=None,
        center=False,
    )
    return np.log(np.maximum(power, LOG_FLOOR)).T


@pytest.mark.filterwarnings("ignore")  # of librosa's own imports
@pytest.mark.parametrize(
    "options",
    [
        FeatureOptions(),
        FeatureOptions(n_mels=40, window_ms=32, hop_ms=16),
        FeatureOptions(sample_rate=8_000, n_mels=40, high_hz=4_000),
    ],
    ids=["default", "coarse", "telephone"],
)
def test_log_mel_equals_librosas_within_a_thousandth(options: FeatureOptions) -> None:
    waveform = speechlike(rate=options.sample_rate)
    ours = LogMel(options)(waveform).numpy()
    theirs = librosa_log_mel(waveform, options)
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, atol=1e-3)


@settings(max_examples=15, deadline=None)
@given(cuts=st.lists(st.integers(0, RATE), max_size=6))
def test_incremental_features_equal_offline_ones(cuts: list[int]) -> None:
    log_mel, waveform = LogMel(), speechlike(1.0)
    edges = [0, *sorted(cuts), len(waveform)]
    carry, pieces = torch.zeros(0), []
    for start, end in pairwise(edges):
        features, carry = log_mel.stream(waveform[start:end], carry)
        pieces.append(features)
    torch.testing.assert_close(torch.cat(pieces), log_mel(waveform), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("samples", [0, 1, 400, 511, 512, 513, 671, 672, 16_000, 16_001])
def test_frame_count_is_the_documented_formula(samples: int) -> None:
    log_mel = LogMel()
    expected = 0 if samples < 512 else 1 + (samples - 512) // 160
    assert log_mel(torch.zeros(samples)).shape == (expected, 80)
    assert log_mel.frames(samples) == expected


def test_a_batch_equals_each_waveform_alone() -> None:
    log_mel = LogMel()
    waveforms = torch.stack([speechlike(seed=0), 0.1 * speechlike(seed=1)])
    batch = log_mel(waveforms)
    for alone, together in zip(waveforms, batch, strict=True):
        torch.testing.assert_close(log_mel(alone), together, atol=1e-4, rtol=1e-4)


def test_padding_a_waveform_changes_none_of_its_own_frames() -> None:
    log_mel, waveform = LogMel(), speechlike(1.0)
    padded = log_mel(torch.cat([waveform, torch.zeros(5_000)]))
    own = log_mel.frames(len(waveform))
    torch.testing.assert_close(padded[:own], log_mel(waveform), atol=1e-4, rtol=1e-4)


def test_silence_is_finite_and_at_the_floor() -> None:
    features = LogMel()(torch.zeros(RATE))
    assert features.max() == pytest.approx(np.log(LOG_FLOOR), abs=1e-4)
    assert normalise(features).abs().max() < 0.1


def test_a_louder_band_is_where_the_tone_is() -> None:
    tone = 0.5 * torch.sin(2 * torch.pi * 1_000 * torch.arange(RATE) / RATE)
    mels = 2595 * np.log10(1 + np.array([20, 1_000, 8_000]) / 700)
    band = round((mels[1] - mels[0]) / (mels[2] - mels[0]) * 81) - 1
    assert abs(int(LogMel()(tone).mean(0).argmax()) - band) <= 1


def test_normalised_features_have_zero_mean_and_unit_variance_per_band() -> None:
    features = normalise(LogMel()(speechlike()))
    torch.testing.assert_close(features.mean(0), torch.zeros(80), atol=1e-4, rtol=0)
    torch.testing.assert_close(features.std(0, correction=0), torch.ones(80), atol=1e-3, rtol=0)


def test_normalised_features_do_not_depend_on_loudness() -> None:
    waveform, log_mel = speechlike(), LogMel()
    quiet, loud = normalise(log_mel(0.2 * waveform)), normalise(log_mel(waveform))
    torch.testing.assert_close(quiet, loud, atol=1e-2, rtol=1e-2)


def test_normalising_few_frames_stays_finite() -> None:
    assert normalise(torch.zeros(0, 80)).shape == (0, 80)
    assert torch.equal(normalise(torch.randn(1, 80)), torch.zeros(1, 80))
    assert torch.isfinite(normalise(torch.full((5, 80), -18.4))).all()


def test_extract_normalises_only_if_the_options_say_so() -> None:
    waveform = speechlike()
    raw = LogMel(FeatureOptions(normalise=False)).extract(waveform)
    assert torch.equal(raw, LogMel()(waveform))
    assert torch.equal(LogMel().extract(waveform), normalise(raw))
