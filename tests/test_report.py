"""Attention pictures: drawn from what was transcribed, without touching matplotlib's global state."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from recognizers import tiny_trained

from asr.errors import AudioError
from asr.recognizer import Recognizer
from asr.report import (
    MAX_CHARACTERS,
    SPACE,
    _apart,
    _labels,
    _word_rows,
    attention_plot,
    transcript_attention,
    transcript_plot,
)
from asr.transcript import Attention, Failure, Segment, Transcript, Word


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


def test_a_name_that_looks_like_mathematics_is_drawn_as_it_is(tmp_path: Path) -> None:
    waveform, attention = torch.zeros(16_000), _diagonal("ab", 25)
    attention_plot(waveform, attention, tmp_path / "a.png", title="$100% of A$AP_-_Ke$ha$.wav")
    assert imread(tmp_path / "a.png").size


def test_matplotlibs_global_state_is_left_alone(tmp_path: Path) -> None:
    attention_plot(torch.randn(8_000), _diagonal("ab", 12), tmp_path / "a.png")
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or pyplot.get_fignums() == []


def test_a_recording_without_text_has_a_picture_too(tmp_path: Path) -> None:
    attention_plot(torch.zeros(8_000), Attention(torch.zeros(0, 0), (), 0.04), tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1_000


@pytest.mark.filterwarnings("error")
def test_a_word_and_a_title_of_any_length_leave_room_for_the_picture(tmp_path: Path) -> None:
    weights = torch.rand(200, 50).softmax(1)
    attention = Attention(weights, tuple("e" * 200), 0.08)
    attention_plot(torch.randn(64_000), attention, tmp_path / "x.png", title="e e " * 1000)
    assert (tmp_path / "x.png").exists()


@pytest.mark.parametrize("samples", [0, 100])
def test_a_waveform_too_short_to_draw_is_refused(tmp_path: Path, samples: int) -> None:
    with pytest.raises(AudioError, match=f"{samples} samples: too short"):
        attention_plot(torch.zeros(samples), _diagonal("ab", 12), tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()


def test_the_attention_of_segments_is_joined_in_time_and_cut() -> None:
    first = _diagonal("ab", 10)
    second = Attention(first.weights, first.tokens, first.frame_seconds, start=0.8)
    segments = (
        Segment(0, 0.4, "ab", attention=first),
        Segment(0.8, 1.2, "ab", attention=second),
    )
    found = transcript_attention(Transcript("ab ab", segments, 1.2), 1.2)
    assert found is not None
    assert (found.tokens, found.weights.shape) == (tuple("ab ab"), (5, 30))
    assert found.weights.nonzero().tolist() == [[0, 0], [1, 5], [3, 20], [4, 25]]
    cut = transcript_attention(Transcript("ab ab", segments, 1.2), 0.9)
    assert cut is not None
    assert "".join(cut.tokens) == "ab a"
    assert transcript_attention(Transcript("ab"), 1.0) is None


def test_segments_whose_steps_last_longer_are_joined_in_the_same_time() -> None:
    first = _diagonal("ab", 10)
    second = Attention(first.weights, first.tokens, 2 * first.frame_seconds, start=0.8)
    segments = (
        Segment(0, 0.4, "ab", attention=first),
        Segment(0.8, 1.6, "ab", attention=second),
    )
    found = transcript_attention(Transcript("ab ab", segments, 1.6), 1.6)
    assert found is not None
    assert (found.frame_seconds, found.weights.shape) == (first.frame_seconds, (5, 40))
    assert found.weights.nonzero().tolist() == [[0, 0], [1, 5], [3, 20], [3, 21], [4, 30], [4, 31]]


def test_a_long_recordings_picture_shows_its_beginning(
    monkeypatch: pytest.MonkeyPatch, make_audio: Callable[..., Path]
) -> None:
    calls = []

    def drawn(waveform: torch.Tensor, attention: Attention, path: str, **options: object) -> None:
        calls.append((waveform, attention, path, options))

    monkeypatch.setattr("asr.report.attention_plot", drawn)
    early, late = Failure("loop", 0.1, 0.3), Failure("skip", 31.0, 31.5)
    segments = (
        Segment(0, 1, "a", (Word("a", 0.1, 0.3),), failures=(early,)),
        Segment(31, 32, "b", (Word("b", 31.0, 31.5),), failures=(late,)),
    )
    transcript = Transcript("a b", segments, duration=32.0, channel="left")
    path = make_audio("long.wav", 32.0)
    transcript_plot(path, transcript, "long.png", Recognizer(tiny_trained()), channel=0)
    ((waveform, _, to, options),) = calls
    assert (len(waveform), to) == (30 * 16_000, "long.png")
    assert [word.text for word in options["words"]] == ["a"]
    assert options["failures"] == [early]
    assert options["title"] == "long.wav, the first 30 of 32 s, left"


def test_what_is_drawn_again_has_its_attention_though_there_are_pauses(
    monkeypatch: pytest.MonkeyPatch, make_audio: Callable[..., Path]
) -> None:
    asked = []

    class Asked(Recognizer):
        def transcribe(self, audio: Any, **options: Any) -> Transcript:
            asked.append(options["attention"])
            parts = (Segment(0, 1, "ab", attention=_diagonal("ab", 20)),) * 2
            return Transcript("ab ab", parts, duration=2.0)

    drawn: list[Attention] = []
    monkeypatch.setattr("asr.report.attention_plot", lambda w, found, *a, **o: drawn.append(found))
    transcript = Transcript("ab ab", (Segment(0, 1, "ab"),) * 2, duration=2.0)
    transcript_plot(make_audio("two.wav", 2.0), transcript, "x.png", Asked(tiny_trained()))
    assert asked == [True]
    assert "".join(drawn[0].tokens) == "ab ab"


def test_failures_are_red(tmp_path: Path) -> None:
    attention = _diagonal("ab", 25)
    failures = [Failure("loop", 0.2, 0.6, mended=True)]
    attention_plot(torch.zeros(16_000), attention, tmp_path / "a.png", failures=failures)
    image = imread(tmp_path / "a.png")
    lower = image[image.shape[0] // 2 :]
    assert ((lower[:, :, 0] - lower[:, :, 1]) > 0.1).mean() > 0.1


def test_labels_that_would_touch_are_left_out() -> None:
    assert _apart([0, 1, 4, 5, 9], 3) == [0, 2, 4]
    assert _word_rows([Word("long", 0, 1), Word("word", 0.5, 1), Word("x", 9, 10)], 0.1) == [
        0,
        1,
        0,
    ]


def test_short_texts_are_labelled_by_characters_and_long_ones_by_words() -> None:
    assert _labels(tuple("a b")) == ([0, 1, 2], ["a", SPACE, "b"])
    long = "one two " * (MAX_CHARACTERS // 8) + " three"
    rows, labels = _labels(tuple(long))
    assert len(labels) == len(rows) == 2 * (MAX_CHARACTERS // 8) + 1
    for row, label in zip(rows, labels, strict=True):
        assert long[row:].startswith(label)


def test_a_title_that_is_not_utf8_is_drawn(tmp_path: Path) -> None:
    title = os.fsdecode(b"caf\xe9.wav")
    attention_plot(torch.zeros(8_000), _diagonal("ab", 12), tmp_path / "a.png", title=title)
    assert (tmp_path / "a.png").exists()
