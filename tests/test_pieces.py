"""Recordings as pieces: where they are cut, what is left out, and that nothing is lost or doubled."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from asr import pieces as module
from asr.pieces import Piece, _next_cut, batches, cut
from asr.vad import FRAME, FRAME_SECONDS, VadOptions, speech_runs

RATE = 16_000
Make = Callable[..., np.ndarray]


def silence(seconds: float) -> np.ndarray:
    return np.zeros(round(seconds * RATE), np.float32)


def spans(pieces: list[Piece]) -> list[tuple[float, float]]:
    return [(round(p.start, 3), round(p.end, 3)) for p in pieces]


@pytest.fixture(scope="module")
def talk() -> np.ndarray:
    """74 s: the samples of the repository, some with long pauses between them, some without any."""
    folder = Path(__file__).parents[1] / "data" / "samples"
    said = [soundfile.read(path, dtype="float32")[0] for path in sorted(folder.glob("*.opus"))]
    quiet = silence(2.0)
    return np.concatenate([quiet, said[0], quiet, *said[1:], *said[:4], quiet, said[2], quiet])


def test_pieces_do_not_depend_on_the_blocks(talk: np.ndarray) -> None:
    expected = list(cut([talk], sample_rate=RATE))
    assert len(expected) > 4
    for size in (RATE // 2 + 1, 7 * RATE):
        blocks = [talk[start : start + size] for start in range(0, len(talk), size)]
        found = list(cut(blocks, sample_rate=RATE))
        assert [(p.start, p.end, p.speech) for p in found] == [
            (p.start, p.end, p.speech) for p in expected
        ]
        assert all(
            np.array_equal(a.waveform, b.waveform) for a, b in zip(found, expected, strict=True)
        )


def test_pieces_hold_all_speech_once_at_its_place(talk: np.ndarray) -> None:
    options = VadOptions()
    pieces = list(cut([talk], sample_rate=RATE))
    for piece in pieces:
        start = round(piece.start * RATE)
        assert np.array_equal(piece.waveform, talk[start : start + len(piece.waveform)])
        assert piece.seconds <= options.max_seconds
        assert piece.start <= piece.speech[0] < piece.speech[1] <= piece.end
    for one, other in pairwise(pieces):
        assert one.end <= other.start
        assert np.abs(talk[round(one.end * RATE) : round(other.start * RATE)]).max(initial=0) < 0.01
    left = sum(piece.seconds for piece in pieces)
    assert left > len(talk) / RATE - 2 * 4 * (2.0 - options.padding)


def test_a_short_recording_is_one_piece(make_waveform: Make) -> None:
    waveform = np.concatenate([silence(0.15), make_waveform(3.0), silence(0.15)])
    (piece,) = cut([waveform], sample_rate=RATE)
    assert np.array_equal(piece.waveform, waveform)
    assert piece.speech == pytest.approx((0.15, 3.15), abs=0.15)


def test_a_long_pause_is_left_out_but_for_the_padding(make_waveform: Make) -> None:
    voice = make_waveform(1.0)
    waveform = np.concatenate([silence(3), voice, silence(4), voice, silence(3)])
    options = VadOptions(padding=0.5, max_pause=1.0)
    assert spans(list(cut([waveform], sample_rate=RATE, options=options))) == [
        (pytest.approx(2.5, abs=0.15), pytest.approx(4.5, abs=0.15)),
        (pytest.approx(7.5, abs=0.15), pytest.approx(9.5, abs=0.15)),
    ]


def test_other_rates_have_the_same_pieces(make_waveform: Make) -> None:
    def of(rate: int) -> list[tuple[float, float]]:
        quiet = np.zeros(2 * rate, np.float32)
        parts = [quiet, make_waveform(1.0, 120.0, rate), quiet, make_waveform(2.0, 150.0, rate)]
        blocks = np.split(np.concatenate(parts), [1_000, 30_000])
        return spans(list(cut(blocks, sample_rate=rate)))

    assert len(of(16_000)) == 2
    for rate in (8_000, 22_050, 44_100):
        for one, other in zip(of(rate), of(16_000), strict=True):
            assert one == pytest.approx(other, abs=0.1)


def music(rng: np.random.Generator) -> np.ndarray:
    """Ten seconds of chords with drums."""
    time = np.arange(RATE) / RATE
    bars = []
    for bar in range(10):
        roots = np.array([[220, 277.2, 329.6], [293.7, 370, 440]][bar % 2])
        tones = np.sin(2 * np.pi * np.outer(np.outer(roots, range(1, 6)), time)) * np.exp(-2 * time)
        beat = np.sin(2 * np.pi * 60 * time) * np.exp(-15 * (time % 0.5))
        hat = rng.standard_normal(RATE) * np.exp(-40 * ((time + 0.25) % 0.5))
        bars.append(0.03 * tones.sum(0) + 0.2 * beat + 0.1 * hat)
    return np.concatenate(bars)


def test_there_is_no_piece_in_silence_noise_music_or_tones() -> None:
    rng = np.random.default_rng(0)
    white = rng.standard_normal(10 * RATE)
    pink = np.fft.irfft(np.fft.rfft(white) / np.sqrt(np.maximum(np.arange(5 * RATE + 1), 1)))
    time = np.arange(10 * RATE) / RATE
    tones = 0.2 * np.sin(2 * np.pi * 440 * time) + 0.2 * np.sin(2 * np.pi * 1_209 * time)
    for sound in (0 * white, 0.1 * white, pink / np.abs(pink).max(), music(rng), tones):
        for level in (1.0, 0.03):
            assert list(cut([(level * sound).astype(np.float32)], sample_rate=RATE)) == []


def test_empty_and_tiny_recordings_have_no_pieces() -> None:
    for samples in (0, 1, 100, 600):
        assert list(cut([np.full(samples, 0.1, np.float32)], sample_rate=RATE)) == []


def frames(*parts: tuple[float, float]) -> np.ndarray:
    """Probabilities of these (seconds, probability)."""
    return np.concatenate([np.full(round(s / FRAME_SECONDS), p, np.float32) for s, p in parts])


def first(probabilities: np.ndarray, *, final: bool = True) -> tuple[float, float] | None:
    options = VadOptions(max_pause=1.2, padding=0.6)
    found = _next_cut(speech_runs(probabilities, options), probabilities, options, final=final)
    return None if found is None else (found.start * FRAME_SECONDS, found.end * FRAME_SECONDS)


def test_speech_that_is_too_long_is_cut_at_its_longest_pause() -> None:
    speech = frames((6, 0.9), (0.3, 0.1), (4, 0.9), (0.6, 0.1), (4, 0.9), (0.4, 0.1), (12, 0.9))
    assert first(speech) == pytest.approx((0, 10.6), abs=0.04)


def test_speech_without_a_pause_is_cut_where_it_is_least_like_speech() -> None:
    assert first(frames((11, 0.99), (0.2, 0.8), (14, 0.99))) == pytest.approx((0, 11.1), abs=0.1)


def test_a_cut_leaves_enough_for_the_next_piece() -> None:
    speech = frames((15, 0.99), (0.2, 0.9), (4.5, 0.99), (0.2, 0.1), (0.8, 0.99), (3, 0.0))
    assert first(speech) == pytest.approx((0, 15.1), abs=0.1)


def test_nothing_is_decided_that_later_frames_could_change() -> None:
    speech = frames((8, 0.9), (1.0, 0.1))
    assert first(speech, final=False) is None
    assert first(speech) == pytest.approx((0, 8.6), abs=0.04)
    assert first(frames((8, 0.9), (1.5, 0.1)), final=False) == pytest.approx((0, 8.6), abs=0.04)
    assert first(frames((22, 0.9)), final=False) is None


class Told:
    """A detector that is told the probability of every frame."""

    def __init__(self, probabilities: np.ndarray) -> None:
        self.probabilities = probabilities

    def start(self) -> int:
        return 0

    def listen(self, block: torch.Tensor, state: int) -> tuple[np.ndarray, int]:
        after = state + len(block) // FRAME
        return self.probabilities[state:after], after


def test_what_counts_as_speech_still_does_after_a_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames above `release` are speech because speech went before, though a cut lies between."""
    probabilities = frames((11, 0.9), (2, 0.42), (14, 0.9), (3, 0.0))
    monkeypatch.setattr(module, "detector", lambda: Told(probabilities))
    waveform = np.zeros(len(probabilities) * FRAME, np.float32)
    for blocks in ([waveform], np.array_split(waveform, 30)):
        one, other = cut(
            [block[: len(block) // FRAME * FRAME] for block in blocks], sample_rate=RATE
        )
        assert 10.9 < one.end < 13.1
        assert other.start == one.end
        assert other.speech == pytest.approx((one.end, 27.0), abs=0.1)


def test_a_short_sound_in_a_pause_is_the_same_wherever_a_block_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A blip of three frames, and the dip of three after it that speech closes."""
    lengths = ((20, 0.0), (100, 0.9), (12, 0.0), (3, 0.9), (3, 0.0), (80, 0.9), (60, 0.0))
    probabilities = np.concatenate([np.full(n, p, np.float32) for n, p in lengths])
    monkeypatch.setattr(module, "detector", lambda: Told(probabilities))
    waveform = np.zeros(len(probabilities) * FRAME, np.float32)
    whole = spans(list(cut([waveform], sample_rate=RATE)))
    assert len(whole) == 1
    for frame in range(118, 150):
        blocks = [waveform[: frame * FRAME], waveform[frame * FRAME :]]
        assert spans(list(cut(blocks, sample_rate=RATE))) == whole, frame


def test_batches_hold_pieces_of_like_length() -> None:
    pieces = [Piece(silence(s), 0.0, s, (0.0, s)) for s in (1, 5, 2, 4, 3)]
    assert list(batches(pieces, 9.0)) == [[1], [3, 4], [2, 0]]
    assert list(batches(pieces, 0.5)) == [[1], [3], [4], [2], [0]]
    assert list(batches([], 9.0)) == []
