"""The benchmarks of word times, confidence and failures: they run, and their figures mean what they say."""

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from asr import checkpoint, manifest
from asr.confidence import load_calibration
from asr.manifest import Utterance
from recipes.benchmark import alignment, confidence, failures
from recipes.benchmark.sounds import SOUNDS, white
from tests.recognizers import tiny_trained


@pytest.fixture
def model(tmp_path: Path) -> str:
    checkpoint.save(tmp_path / "tiny.pt", tiny_trained(4, eos_bias=-4.0))
    return str(tmp_path / "tiny.pt")


@pytest.fixture
def utterances(tmp_path: Path) -> str:
    found = []
    for number in range(4):
        path = tmp_path / f"{number}.wav"
        soundfile.write(path, white(1.0, -20, number).numpy(), 16_000)
        found.append(Utterance(str(number), path, 1.0, "a b c d e", f"speaker {number // 2}"))
    manifest.write(tmp_path / "some.jsonl", found)
    return str(tmp_path / "some.jsonl")


def last_line(printed: str) -> dict[str, object]:
    (line,) = printed.splitlines()
    values: dict[str, object] = json.loads(line)
    return values


def test_figures_of_a_confidence_that_is_known() -> None:
    right = np.array([True, True, False, False])
    assert confidence.area(np.array([0.9, 0.8, 0.2, 0.1]), right) == 1
    assert confidence.area(np.array([0.1, 0.2, 0.8, 0.9]), right) == 0
    assert confidence.area(np.full(4, 0.5), right) == 0.5
    assert confidence.calibration_error(np.full(4, 0.5), right) == 0
    assert confidence.calibration_error(np.full(4, 0.9), right) == pytest.approx(0.4)
    assert confidence.entropy_gain(np.full(4, 0.5), right) == pytest.approx(0)
    assert confidence.entropy_gain(right.astype(float), right) == pytest.approx(1)
    assert confidence.right_words("a b c", ["a", "x", "c", "d"]).tolist() == [
        True,
        False,
        True,
        False,
    ]


@pytest.mark.parametrize("seconds", [26, 60, 7])
def test_many_utterances_end_where_none_fits_any_more(seconds: int) -> None:
    chosen = failures.many([torch.zeros(seconds * failures.RATE)] * 3, random.Random(1))
    assert len(chosen) == {26: 1, 60: 0, 7: 5}[seconds]


def test_failures_are_counted_before_and_after(
    model: str, utterances: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [model, utterances, "--greedy", "--count", "1", "--plain", "2"]
    assert failures.main(arguments) == 0
    printed = capsys.readouterr()
    values = last_line(printed.out)
    results = values["results"]
    assert isinstance(results, list)
    kinds = [row["kind"] for row in results]
    assert kinds[-1] == "plain"
    assert {f"{name} only" for name in SOUNDS} < set(kinds)
    assert results[-1]["before"]["words"] == 10
    assert len(printed.err.splitlines()) == len(kinds) + 1


def test_a_calibration_is_written_that_can_be_read(
    model: str,
    utterances: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    answers = cycle([True, False])

    def some_right(reference: str, words: Sequence[str]) -> np.ndarray:
        return np.array([next(answers) for _ in words], dtype=bool)

    monkeypatch.setattr(confidence, "right_words", some_right)  # an untrained model has none
    output, plot = tmp_path / "calibration.json", tmp_path / "plot.png"
    arguments = [model, utterances, utterances, "--greedy", "--sounds", "1"]
    assert confidence.main([*arguments, "--output", str(output), "--plot", str(plot)]) == 0
    values = last_line(capsys.readouterr().out)
    assert values["cross_validated"] is True
    assert load_calibration(output).heard is not None
    assert plot.read_bytes().startswith(b"\x89PNG")
    bundled = checkpoint.bundled().with_name("english-calibration.json")
    kept = [*arguments, "--heard", str(bundled), "--output", str(output)]
    first = load_calibration(output)
    assert confidence.main(kept) == 0
    again, theirs = load_calibration(output), load_calibration(bundled)
    assert again.heard == theirs.heard != first.heard
    assert again.right != theirs.right
    assert confidence.main([*arguments, "--heard", str(tmp_path / "none.json")]) == 2
    assert "none.json: cannot read calibration" in capsys.readouterr().err
    path = tmp_path / "speakers.jsonl"
    for speaker, reason in (
        ("one", "speakers.jsonl: of one speaker"),
        (None, "2 words, none or all of them right"),  # each utterance stands for a speaker then
    ):
        manifest.write(path, [replace(u, speaker=speaker) for u in manifest.read(utterances)])
        assert confidence.main([model, str(path), str(path), "--greedy", "--sounds", "1"]) == 2
        assert reason in capsys.readouterr().err


def test_figures_of_word_times_are_in_milliseconds() -> None:
    found = alignment.figures([0.1, -0.1, 0.3])
    assert (found["median_ms"], found["bias_ms"], found["count"]) == (100, 100, 3)
    assert alignment.counterparts(["a", "b", "c"], ["a", "x", "c"]) == {
        0: (0, True),
        1: (1, False),
        2: (2, True),
    }


def test_sounds_have_the_length_and_level_that_was_asked_for() -> None:
    for make in SOUNDS.values():
        waveform = make(1.3, -30.0, 1)
        assert len(waveform) == 1.3 * 16_000
        assert 20 * torch.log10(waveform.square().mean().sqrt()) == pytest.approx(-30, abs=0.01)
        assert torch.equal(waveform, make(1.3, -30.0, 1))


def test_a_missing_model_is_one_clear_error(
    utterances: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = str(tmp_path / "missing.pt")
    assert failures.main([missing, utterances]) == 2
    assert confidence.main([missing, utterances, utterances]) == 2
    assert alignment.main([utterances, "--model", missing]) == 2
    assert capsys.readouterr().err.count("error: ") == 3
