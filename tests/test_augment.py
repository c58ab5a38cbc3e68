"""asr.augment: each change of waveform or features does what it says, measured, and again the same from one seed."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from asr import augment
from asr.augment import AugmentOptions, spec_augment, warp_frequencies
from asr.errors import ConfigError
from asr.features import FeatureOptions

RATE = 16_000


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tone(hertz: float = 440.0, seconds: float = 1.0) -> Tensor:
    return 0.3 * torch.sin(2 * math.pi * hertz * torch.arange(round(seconds * RATE)) / RATE)


def peak_hertz(waveform: Tensor) -> float:
    return float(torch.fft.rfft(waveform).abs().argmax()) * RATE / len(waveform)


def power_db(waveform: Tensor) -> float:
    return 10 * math.log10(float(waveform.double().square().mean()))


def band_db(waveform: Tensor, low: float, high: float) -> float:
    spectrum = torch.fft.rfft(waveform).abs().square()
    hertz = torch.arange(len(spectrum)) * RATE / len(waveform)
    return 10 * math.log10(float(spectrum[(hertz >= low) & (hertz < high)].sum()))


def spans(hidden: Tensor) -> list[int]:
    """Lengths of the runs of True in a row."""
    return [len(run) for run in "".join("x" if h else " " for h in hidden).split()]


@settings(max_examples=50, deadline=None)
@example(lengths=[2], time_masks=1, freq_masks=0, fraction=math.nextafter(0.5, 0), bins=0, seed=1)
@given(
    lengths=st.lists(st.integers(1, 300), min_size=1, max_size=5),
    time_masks=st.integers(0, 6),
    freq_masks=st.integers(0, 3),
    fraction=st.floats(0, 0.5),
    bins=st.integers(0, 40),
    seed=st.integers(0, 10_000),
)
def test_masks_keep_to_the_valid_frames_and_the_stated_sizes(
    lengths: list[int], time_masks: int, freq_masks: int, fraction: float, bins: int, seed: int
) -> None:
    options = AugmentOptions(
        time_masks=time_masks,
        freq_masks=freq_masks,
        time_mask_fraction=fraction,
        freq_mask_bins=bins,
    )
    features = torch.full((len(lengths), max(lengths), 20), 7.0)
    masked = spec_augment(features, torch.tensor(lengths), options, seeded(seed))
    assert set(masked.unique().tolist()) <= {0.0, 7.0}
    for row, length in zip(masked, lengths, strict=True):
        assert (row[length:] == 7).all()
        hidden = row[:length] == 0
        times, bands = hidden.all(dim=1), hidden.all(dim=0)
        assert torch.equal(hidden, times[:, None] | bands[None, :])
        if not bands.all():  # else every frame is hidden by its bands
            assert int(times.sum()) <= time_masks * math.floor(fraction * length)
        if not times.all():
            assert int(bands.sum()) <= freq_masks * bins


def test_one_mask_of_time_is_one_stretch_in_proportion_to_the_length() -> None:
    options = AugmentOptions(time_masks=1, time_mask_fraction=0.1, freq_masks=0)
    lengths = torch.tensor([1000, 200] * 500)
    masked = spec_augment(torch.ones(1000, 1000, 1), lengths, options, seeded())
    sizes = [spans(row[:, 0] == 0) for row in masked]
    assert all(len(runs) <= 1 for runs in sizes)
    long, short = ([sum(runs) for runs in sizes[start::2]] for start in (0, 1))
    assert (min(long), max(long)) == (0, 100)
    assert (min(short), max(short)) == (0, 20)
    assert sum(long) / 500 == pytest.approx(50, rel=0.1)
    assert sum(short) / 500 == pytest.approx(10, rel=0.1)


def test_masks_fall_evenly_over_time_and_bands() -> None:
    options = AugmentOptions(time_masks=1, time_mask_fraction=0.2, freq_masks=1, freq_mask_bins=8)
    masked = spec_augment(torch.ones(4000, 50, 40), torch.full((4000,), 50), options, seeded())
    by_time = (masked == 0).all(dim=2).float().mean(dim=0)
    by_band = (masked == 0).all(dim=1).float().mean(dim=0)
    assert by_time[10:40].std() < 0.02
    assert by_time[10:40].mean() == pytest.approx(0.11, rel=0.2)
    assert by_band[8:32].std() < 0.02
    assert by_band[8:32].mean() == pytest.approx(0.11, rel=0.2)
    assert by_time[0] > 0
    assert by_band[39] > 0


def test_utterances_of_a_batch_have_their_own_masks() -> None:
    masked = spec_augment(torch.ones(8, 200, 80), torch.full((8,), 200), AugmentOptions(), seeded())
    assert len({tuple(row.flatten().tolist()) for row in masked}) == 8


def test_masking_repeats_from_a_seed_and_leaves_its_input_alone() -> None:
    features, lengths = torch.randn(3, 100, 80), torch.tensor([100, 60, 5])
    before = features.clone()
    one = spec_augment(features, lengths, AugmentOptions(), seeded(1))
    assert torch.equal(one, spec_augment(features, lengths, AugmentOptions(), seeded(1)))
    assert not torch.equal(one, spec_augment(features, lengths, AugmentOptions(), seeded(2)))
    assert torch.equal(features, before)


def test_no_masks_asked_for_changes_nothing() -> None:
    features = torch.randn(2, 50, 80)
    options = AugmentOptions(time_masks=0, freq_masks=0)
    assert torch.equal(spec_augment(features, torch.tensor([50, 20]), options), features)


@pytest.mark.parametrize("factor", [0.9, 1.0, 1.1])
def test_speed_changes_duration_and_pitch_by_its_factor(factor: float) -> None:
    faster = augment.change_speed(tone(440, seconds=2), factor)
    assert faster.dtype == torch.float32
    assert len(faster) == round(2 * RATE / factor)
    assert peak_hertz(faster) == pytest.approx(440 * factor, abs=1)
    assert power_db(faster[500:-500]) == pytest.approx(power_db(tone()), abs=0.1)


@pytest.mark.parametrize("snr_db", [-5.0, 0.0, 15.0])
@pytest.mark.parametrize("pink", [False, True])
def test_noise_is_at_exactly_the_snr_asked_for(snr_db: float, pink: bool) -> None:
    speech = tone()
    noisy = augment.add_noise(speech, snr_db, seeded(), pink=pink)
    assert noisy.shape == speech.shape
    assert power_db(speech) - power_db(noisy - speech) == pytest.approx(snr_db, abs=0.01)


def test_white_noise_is_flat_and_pink_falls_3_db_an_octave() -> None:
    speech = tone(seconds=4)
    for pink, step in ((False, 3.0), (True, 0.0)):  # power by octave: twice the band, or the same
        noise = augment.add_noise(speech, 0, seeded(), pink=pink) - speech
        octaves = [band_db(noise, hertz, 2 * hertz) for hertz in (250, 500, 1000, 2000, 4000)]
        steps = [after - before for before, after in pairwise(octaves)]
        assert steps == pytest.approx([step] * 4, abs=0.6)


def test_noise_where_no_ratio_exists_changes_nothing() -> None:
    assert torch.equal(augment.add_noise(torch.zeros(50), 10), torch.zeros(50))


@pytest.mark.parametrize("gain_db", [-20.0, 0.0, 6.0])
def test_gain_changes_the_level_by_that_many_decibels(gain_db: float) -> None:
    assert power_db(augment.change_gain(tone(), gain_db)) - power_db(tone()) == pytest.approx(
        gain_db
    )


@pytest.mark.parametrize("seconds", [0.2, 0.6])
def test_reverberation_decays_in_the_time_asked_for(seconds: float) -> None:
    click = torch.zeros(RATE)
    click[100] = 1.0
    heard = augment.reverberate(click, seeded(), seconds=seconds, direct_db=5.0)
    assert heard.shape == click.shape
    assert heard.abs().argmax() == 100
    assert heard[:100].abs().max() < 1e-4
    assert power_db(heard) == pytest.approx(power_db(click), abs=0.01)
    direct, tail = heard[100].square(), heard[101:].square()
    assert 10 * math.log10(float(direct / tail.sum())) == pytest.approx(5.0, abs=0.1)
    energy = tail.flip(0).cumsum(0).flip(0)  # Schroeder's backward integration
    fall_20 = int((energy < energy[0] / 100).nonzero()[0]) / RATE
    assert 3 * fall_20 == pytest.approx(seconds, rel=0.1)


def test_reverberated_silence_is_silence() -> None:
    assert torch.equal(augment.reverberate(torch.zeros(100), seeded()), torch.zeros(100))


def test_variants_come_at_every_speed_and_again_the_same() -> None:
    options = AugmentOptions(
        speeds=(1.0, 0.9), noise_probability=1.0, reverb_probability=0.5, gain_db=(-6.0, 6.0)
    )
    variants = augment.waveform_variants(tone(), options, RATE, "a")
    again = augment.waveform_variants(tone(), options, RATE, "a")
    assert [len(v) for v in variants] == [RATE, round(RATE / 0.9)]
    assert all(torch.equal(one, other) for one, other in zip(variants, again, strict=True))
    other = augment.waveform_variants(tone(), options, RATE, "b")
    assert not torch.equal(variants[0], other[0])


def test_variants_by_default_are_the_waveform_and_two_other_speeds() -> None:
    variants = augment.waveform_variants(tone(), AugmentOptions(), RATE, "a")
    assert torch.equal(variants[0], tone())
    assert [peak_hertz(v) for v in variants] == pytest.approx([440, 396, 484], abs=1)


def test_each_chance_is_met_by_that_share_of_utterances() -> None:
    options = AugmentOptions(speeds=(1.0,), noise_probability=0.3)
    speech = tone(seconds=0.02)
    changed = [
        not torch.equal(augment.waveform_variants(speech, options, RATE, str(i))[0], speech)
        for i in range(1000)
    ]
    assert sum(changed) / 1000 == pytest.approx(0.3, abs=0.05)


def test_drawn_snr_and_gain_stay_in_their_ranges() -> None:
    speech = tone(seconds=0.05)
    noisy = AugmentOptions(speeds=(1.0,), noise_probability=1.0, noise_snr_db=(5.0, 10.0))
    louder = AugmentOptions(speeds=(1.0,), gain_db=(-3.0, 3.0))
    snrs, gains = [], []
    for i in range(100):
        (with_noise,) = augment.waveform_variants(speech, noisy, RATE, str(i))
        snrs.append(power_db(speech) - power_db(with_noise - speech))
        gains.append(
            power_db(augment.waveform_variants(speech, louder, RATE, str(i))[0]) - power_db(speech)
        )
    for drawn, low, high in ((snrs, 5, 10), (gains, -3, 3)):
        assert low - 0.01 <= min(drawn) < low + 1
        assert high - 1 < max(drawn) <= high + 0.01


def test_waveform_key_changes_with_what_changes_a_waveform_only() -> None:
    key = AugmentOptions().waveform_key()
    assert (
        AugmentOptions(time_masks=9, freq_mask_bins=3, noise_snr_db=(0.0, 1.0)).waveform_key()
        == key
    )
    changed = (
        AugmentOptions(speeds=(1.0,)),
        AugmentOptions(noise_probability=0.1),
        AugmentOptions(reverb_probability=0.1),
        AugmentOptions(gain_db=(-1.0, 1.0)),
    )
    assert len({key, *(options.waveform_key() for options in changed)}) == 5


@pytest.mark.parametrize(
    "wrong",
    [
        {"time_mask_fraction": 1.5},
        {"noise_probability": -0.1},
        {"time_masks": -1},
        {"noise_snr_db": (20.0, 10.0)},
        {"gain_db": (1.0,)},
        {"reverb_seconds": (0.0, 1.0)},
        {"speeds": ()},
        {"speeds": (1.0, 9.0)},
    ],
)
def test_options_out_of_range_are_named(wrong: dict) -> None:
    (name,) = wrong
    with pytest.raises(ConfigError, match=f"^{name} = .*: must be"):
        AugmentOptions(**wrong)


def test_warped_frequencies_move_a_peak_as_its_factor_says() -> None:
    options = FeatureOptions()
    found = set()
    for band in (20, 60):
        features = torch.zeros(64, 3, options.n_mels)
        features[:, :, band] = 1.0
        generator = seeded(1)
        warped = warp_frequencies(features, 0.1, options, generator)
        assert torch.allclose(warped[:, 0], warped[:, 2])
        moved = warped[:, 0].argmax(1) - band
        assert moved.min() < 0 < moved.max()
        found.add(int(moved.abs().max()))
    # 10 % is log10(1.1) * 2595 = 107 mel of 35 a band far above 700 Hz, and less at 700 Hz
    assert found == {2, 3}


def test_a_constant_spectrum_is_not_changed_by_warping_and_no_width_changes_nothing() -> None:
    features = torch.randn(4, 5, 1).expand(4, 5, 80).contiguous()
    generator = torch.Generator().manual_seed(1)
    assert torch.allclose(
        warp_frequencies(features, 0.2, FeatureOptions(), generator), features, atol=1e-6
    )
    noise = torch.randn(2, 5, 80)
    assert warp_frequencies(noise, 0.0, FeatureOptions()) is noise
