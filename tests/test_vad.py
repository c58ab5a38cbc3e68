"""The detector of speech: the probabilities of silero-vad's own code, in blocks and alone; what counts as speech."""

import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from asr import audio
from asr.errors import ConfigError
from asr.vad import FRAME, Detector, VadOptions, detector, speech_runs

SAMPLE = Path(__file__).parents[1] / "data" / "samples" / "horse.opus"


@pytest.fixture(scope="module")
def speech() -> torch.Tensor:
    waveform = audio.read(SAMPLE)
    return torch.from_numpy(waveform[: len(waveform) // FRAME * FRAME])


def test_probabilities_equal_those_of_the_package(speech: torch.Tensor) -> None:
    found = find_spec("silero_vad")
    assert found is not None
    assert found.submodule_search_locations is not None
    path = Path(found.submodule_search_locations[0]) / "data" / "silero_vad.jit"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        theirs = torch.jit.load(path)
        with torch.inference_mode():
            expected = [float(theirs(frame[None], 16_000)) for frame in speech.split(FRAME)]
    ours, _ = detector().listen(speech, Detector.start())
    np.testing.assert_allclose(ours, expected, atol=1e-4)
    assert ours.max() > 0.99
    assert ours[:5].max() < 0.3


@pytest.mark.parametrize("size", [1, 511, 512, 3_000])
def test_blocks_change_no_probability(speech: torch.Tensor, size: int) -> None:
    speech = speech[: 40 * FRAME] if size > 1 else speech[: 2 * FRAME]
    whole, _ = detector().listen(speech, Detector.start())
    state, parts = Detector.start(), []
    for block in speech.split(size):
        part, state = detector().listen(block, state)
        parts.append(part)
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-5)


def test_loading_the_detector_leaves_the_number_of_threads_alone() -> None:
    before = torch.get_num_threads()
    detector.cache_clear()
    torch.set_num_threads(before + 1)
    try:
        detector()
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)


def runs(text: str, **options: float) -> list[tuple[int, int]]:
    """Of probabilities written as digits, tenths."""
    probabilities = np.array([int(digit) / 10 for digit in text], np.float32)
    defaults = {"min_speech": 0.0, "min_silence": 0.0}
    return speech_runs(probabilities, VadOptions(**(defaults | options)))


def test_speech_begins_at_the_threshold_and_lasts_to_the_release() -> None:
    assert runs("") == []
    assert runs("0444") == []
    assert runs("04644530") == [(2, 6)]
    assert runs("9909") == [(0, 2), (3, 4)]


def test_short_dips_are_closed_before_short_sounds_are_left_out() -> None:
    assert runs("0090090000900", min_silence=0.09) == [(2, 6), (10, 11)]
    assert runs("0090090000900", min_silence=0.09, min_speech=0.1) == [(2, 6)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": 1.5}, r"vad\.threshold 1\.5: must be from 0 to 1"),
        ({"min_speech": -1.0}, r"vad\.min_speech"),
        ({"max_seconds": 1.0}, r"vad\.max_seconds 1\.0: must be at least 5"),
        ({"threshold": 0.2}, r"vad\.release is 0\.35; it must be at most threshold"),
        ({"padding": 2.0}, r"vad\.padding is 2\.0; it must be at most max_pause"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        VadOptions(**options)


def test_quiet_speech_is_speech(speech: torch.Tensor) -> None:
    loud, _ = detector().listen(speech, Detector.start())
    quiet, _ = detector().listen(speech * 0.02, Detector.start())
    lengths = [
        sum(end - start for start, end in speech_runs(p, VadOptions())) for p in (loud, quiet)
    ]
    assert lengths[1] > 0.9 * lengths[0]


Make = Callable[..., np.ndarray]


def test_the_made_up_speech_of_the_tests_is_speech(make_waveform: Make) -> None:
    for pitch in (100.0, 150.0, 230.0):
        found, _ = detector().listen(torch.from_numpy(make_waveform(1.0, pitch)), Detector.start())
        assert speech_runs(found, VadOptions())
