"""Attention pictures: drawn from what was transcribed, without touching matplotlib's global state."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.image import imread

from asr.errors import AudioError
from asr.report import MAX_CHARACTERS, SPACE, _labels, attention_plot
from asr.transcript import Attention


def _diagonal(tokens: str, steps: int) -> Attention:
    weights = torch.zeros(len(tokens), steps)
    for row in range(len(tokens)):
        weights[row, row * steps // len(tokens)] = 1
    return Attention(weights, tuple(tokens), 0.04)


def _dark(image: np.ndarray) -> np.ndarray:
    """Where a picture is (nearly) black, as rows and columns."""
    return np.argwhere(image[:, :, :3].max(axis=2) < 0.1)


def test_the_picture_is_a_png_whose_attention_lies_where_the_weights_are(tmp_path: Path) -> None:
    waveform = torch.randn(16_000) * 0.1
    path = tmp_path / "new" / "a.png"
    attention_plot(waveform, _diagonal("hello there", 25), path, title="a.wav: hello there")
    image = imread(path)
    height, width = image.shape[:2]
    assert min(height, width) > 400

    attention_plot(waveform, _diagonal("hello there", 25), tmp_path / "b.png")
    reverse = Attention(_diagonal("hello there", 25).weights.flip(1), tuple("hello there"), 0.04)
    attention_plot(waveform, reverse, tmp_path / "c.png")
    falling, rising = (
        _dark(imread(tmp_path / name)[height // 2 : -80, 80 : int(width * 0.85)])
        for name in ("b.png", "c.png")
    )
    assert np.corrcoef(falling.T)[0, 1] > 0.5 > -0.5 > np.corrcoef(rising.T)[0, 1]


def test_matplotlibs_global_state_is_left_alone(tmp_path: Path) -> None:
    attention_plot(torch.randn(8_000), _diagonal("ab", 12), tmp_path / "a.png")
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or pyplot.get_fignums() == []


def test_a_recording_without_text_has_a_picture_too(tmp_path: Path) -> None:
    attention_plot(torch.zeros(8_000), Attention(torch.zeros(0, 0), (), 0.04), tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1_000


def test_a_waveform_too_short_to_draw_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="100 samples: too short"):
        attention_plot(torch.zeros(100), _diagonal("ab", 12), tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()


def test_short_texts_are_labelled_by_characters_and_long_ones_by_words() -> None:
    assert _labels(tuple("a b")) == ([0, 1, 2], ["a", SPACE, "b"])
    long = "one two " * (MAX_CHARACTERS // 8) + " three"
    rows, labels = _labels(tuple(long))
    assert len(labels) == len(rows) == 2 * (MAX_CHARACTERS // 8) + 1
    for row, label in zip(rows, labels, strict=True):
        assert long[row:].startswith(label)
