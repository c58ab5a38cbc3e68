"""Confidence: features of words, the fit of the calibration, and its file."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from asr.alignment import forced_alignment, words_from_ctc
from asr.confidence import (
    FEATURES,
    Calibration,
    Logistic,
    chance_heard,
    confidences,
    edit_distance,
    fit,
    load_calibration,
    word_features,
)
from asr.decoding import Hypothesis
from asr.errors import ConfigError
from asr.files import content_name
from asr.tokenizer import Tokenizer

TOKENIZER = Tokenizer(" ab")
ONE = Logistic(("mean_log_prob",), (-1.0,), (0.5,), (1.0,), 0.0)


def column(values: list[float], name: str = "mean_log_prob") -> np.ndarray:
    rows = np.full((len(values), len(FEATURES)), math.nan)
    rows[:, FEATURES.index(name)] = values
    return rows


def example() -> tuple[Hypothesis, torch.Tensor]:
    """The text "ab b", of which CTC hears "ab a"."""
    tokens = tuple(TOKENIZER.encode("ab b"))
    labels = [*TOKENIZER.encode("ab "), 0, 0, *TOKENIZER.encode("a"), 0, 0]
    probabilities = torch.full((8, TOKENIZER.size), 0.02)
    probabilities[torch.arange(8), torch.tensor(labels)] = 0.88
    log_probs = (-0.1, -0.2, -0.3, -2.0, -0.4)
    attention = torch.tensor([[1.0, 0, 0, 0], [0.5, 0.5, 0, 0], [0, 1, 0, 0], [0.25] * 4])
    return Hypothesis(tokens, -3.0, log_probs, attention, True), probabilities.log()


def test_features_of_words_are_what_their_names_say() -> None:
    hypothesis, ctc = example()
    alignment = forced_alignment(ctc, hypothesis.tokens)
    assert alignment is not None
    words = words_from_ctc(hypothesis.tokens, alignment, TOKENIZER, 0.04, 0.32)
    rows = word_features(hypothesis, words, ctc, alignment)
    first, second = [dict(zip(FEATURES, row, strict=True)) for row in rows]
    assert first["mean_log_prob"] == pytest.approx(-0.2)
    assert second["mean_log_prob"] == first["neighbours"] == pytest.approx(-1.2)
    assert second["min_log_prob"] == -2.0
    assert first["attention_peak"] == 0.75
    assert second["attention_entropy"] == pytest.approx(math.log(4))
    assert (first["log_length"], second["log_length"]) == (math.log(2), 0)
    assert (first["ctc_agreement"], second["ctc_agreement"]) == (1, 0)
    assert first["ctc_margin"] == 0
    assert second["ctc_margin"] < -1
    assert first["ctc_log_prob"] == pytest.approx(math.log(0.88))
    assert first["ctc_evidence"] == pytest.approx((3 * 0.88 + 0.02) / 4)  # frames 0 to 3


def test_features_of_ctc_are_unknown_without_it() -> None:
    hypothesis, ctc = example()
    alignment = forced_alignment(ctc, hypothesis.tokens)
    assert alignment is not None
    words = words_from_ctc(hypothesis.tokens, alignment, TOKENIZER, 0.04, 0.32)
    rows = word_features(hypothesis, words, None, None)
    known = [name for name, value in zip(FEATURES, rows[0], strict=True) if not math.isnan(value)]
    assert not any(name.startswith("ctc") for name in known)
    assert len(known) == len(FEATURES) - 4
    assert len(word_features(hypothesis, [], ctc, alignment)) == 0


def test_without_a_calibration_confidence_is_the_mean_probability() -> None:
    assert confidences(column([-0.5, -2.0]), None) == pytest.approx(np.exp([-0.5, -2.0]))


def test_calibrated_confidence_rises_with_the_evidence_and_unknown_counts_as_the_mean() -> None:
    values = confidences(column([-5.0, -2.0, -1.0, -0.1]), Calibration(ONE))
    assert values == sorted(values)
    assert all(0 < v < 1 for v in values)
    assert values[2] == 0.5
    assert confidences(column([math.nan]), Calibration(ONE)) == [0.5]
    assert confidences(column([-1e9, 1e9]), Calibration(ONE)) == pytest.approx([0, 1], abs=1e-9)


def test_the_fit_finds_the_chances_that_made_the_data() -> None:
    random = np.random.default_rng(0)
    rows = random.normal(size=(20000, len(FEATURES)))
    logits = 0.5 + 2 * rows[:, 0] - 1 * rows[:, 3]
    right = random.random(len(rows)) < 1 / (1 + np.exp(-logits))
    calibration = fit(rows, right)
    weights = np.array(calibration.weights) / np.array(calibration.scale)
    assert weights[[0, 3]] == pytest.approx([2, -1], abs=0.1)
    assert np.abs(np.delete(weights, [0, 3])).max() < 0.1
    chance = calibration.probability(rows)
    assert chance.mean() == pytest.approx(right.mean(), abs=1e-3)
    sure = chance > 0.9
    assert right[sure].mean() == pytest.approx(chance[sure].mean(), abs=0.01)


def test_the_fit_bears_features_that_say_nothing_or_separate_the_words() -> None:
    rows = column([-1.0, -0.9, -0.1, 0.0])
    rows = np.where(np.isnan(rows), 1.0, rows)
    calibration = fit(rows, np.array([False, False, True, True]))
    low, *_, high = calibration.probability(rows)
    assert 0 < low < 0.5 < high < 1


def test_nothing_can_be_fitted_where_all_words_are_right() -> None:
    with pytest.raises(ConfigError, match="2 words"):
        fit(column([-1.0, -2.0]), np.array([True, True]))


def test_a_calibration_is_the_same_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    for calibration in (Calibration(ONE), Calibration(ONE, replace(ONE, bias=0.3))):
        calibration.save(path)
        assert load_calibration(path) == calibration
        assert load_calibration(path).name == content_name(path)


def test_whether_a_word_was_spoken_is_judged_with_its_neighbours() -> None:
    calibration = Calibration(ONE, Logistic(("mean_log_prob",), (-1.0,), (0.1,), (1.0,), 0.0))
    rows = column([0.0, 0.0, 0.0, -1.5, 0.0, 0.0, 0.0, -3.0, -3.0, -3.0, -3.0])
    chance = chance_heard(rows, calibration)
    assert chance is not None
    assert (chance > 0.5).tolist() == [True] * 6 + [False] * 5
    unheard = replace(calibration, heard=Logistic(("ctc_evidence",), (0.8,), (0.1,), (1.0,), 0.0))
    assert chance_heard(rows, unheard) == pytest.approx([0.5] * len(rows))  # as the mean
    assert chance_heard(rows, Calibration(ONE)) is None
    assert chance_heard(rows, None) is None
    nothing = chance_heard(rows[:0], calibration)
    assert nothing is not None
    assert len(nothing) == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not JSON"),
        ("[]", "not a calibration"),
        ('{"format": 2}', "format 2"),
        ('{"format": 1}', "heard"),
        ('{"format": 1, "heard": null, "right": {}}', "features"),
    ],
)
def test_a_file_that_is_no_calibration_is_one_clear_error(
    tmp_path: Path, content: str, message: str
) -> None:
    path = tmp_path / "calibration.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=message) as error:
        load_calibration(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": ("loudness",)}, "loudness"),
        ({"mean": ()}, "one number a feature"),
        ({"bias": math.nan}, "finite"),
        ({"scale": (0.0,)}, "scale"),
    ],
)
def test_wrong_values_of_a_calibration_are_named(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    path = tmp_path / "calibration.json"
    Calibration(replace(ONE, **change)).save(path)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=message):
        load_calibration(path)


def test_a_missing_calibration_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing\.json: cannot read calibration"):
        load_calibration(tmp_path / "missing.json")


def test_edit_distance() -> None:
    assert edit_distance([], []) == 0
    assert edit_distance([1, 2, 3], []) == edit_distance([], [1, 2, 3]) == 3
    assert edit_distance([1, 2, 3, 4], [2, 3, 5, 4]) == 2
