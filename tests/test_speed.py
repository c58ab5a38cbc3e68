"""The benchmark of recognition: it measures what it says, on the recordings it says, and ends in one JSON line."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from asr import checkpoint
from recipes.benchmark import speed, systems
from recipes.benchmark.systems import Plan, joined, measure, word_error_rate
from tests.recognizers import tiny_trained

SAMPLES = str(speed.SAMPLES)


@pytest.fixture
def model(tmp_path: Path) -> str:
    checkpoint.save(tmp_path / "tiny.pt", tiny_trained(eos_bias=99))
    return str(tmp_path / "tiny.pt")


def test_the_last_line_is_json_that_says_what_was_measured(
    model: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speed, "in_new_process", measure)
    monkeypatch.setattr(speed, "ALWAYS", (("torch", "float32"),))
    monkeypatch.setattr(speed, "OTHERS", {})
    assert speed.main(["--model", model, "--quick", "--batch", "3"]) == 0
    printed = capsys.readouterr()
    (line,) = printed.out.splitlines()
    values = json.loads(line)
    assert (values["benchmark"], values["limit"], values["quick"]) == ("speed", 5, True)
    assert values["torch"]
    assert [result["search"] for result in values["results"]] == ["greedy", "beam8", "full"]
    for result in values["results"]:
        assert result["audio_seconds"] == pytest.approx(18.59, abs=0.1)  # the first five of eight
        assert [timing["batch"] for timing in result["timings"]] == [1, 3]
        assert all(timing["passes"] == 2 for timing in result["timings"])
        assert all(timing["cpu_rtf"] > 0 for timing in result["timings"])
        assert result["latency_seconds"] > 0
    assert len(printed.err.strip().splitlines()) == 2 + 6


def test_all_engines_and_precisions_can_be_measured(model: str) -> None:
    pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")
    plan = Plan("asr", SAMPLES, 2, 1, 0.0, passes=1, model=model)
    for engine, precision in (*speed.ALWAYS, *speed.ONCE):
        found = measure(Plan(**{**plan.__dict__, "engine": engine, "precision": precision}))
        assert (found.engine, found.precision, len(found.timings)) == (engine, precision, 1)
        assert found.wer is not None


def test_the_plans_hold_every_setting_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "installed", lambda system: True)
    plans = list(speed.plans(speed.parse(["--threads", "1", "2"])))
    assert len({plan for _, plan in plans}) == len(plans)
    ours = {(p.engine, p.precision, p.search, p.threads) for name, p in plans if name == "searches"}
    assert {(*setting, "full", 1) for setting in (*speed.ALWAYS, *speed.ONCE)} <= ours
    assert {(*setting, "greedy", 2) for setting in speed.ALWAYS} <= ours
    others = {(p.system, p.threads) for name, p in plans if name == "others"}
    assert others == {("whisper", 1), ("whisper", 2), ("pocketsphinx", 1)}
    assert [p.search for name, p in plans if name == "beams"] == [f"beam{n}" for n in speed.BEAMS]


def test_joined_recordings_are_real_audio_of_one_length() -> None:
    parts = [np.arange(1, 20_001, dtype=np.float32), np.arange(20_001, 40_001, dtype=np.float32)]
    found = joined(parts, 1.0)
    assert [len(part) for part in found] == [16_000, 16_000]
    assert found[1][0] == 16_001
    (long,) = joined(parts, 5.0)
    assert len(long) == 80_000
    assert long[40_000] == 1


def test_word_error_rate_is_of_normalised_texts() -> None:
    assert word_error_rate(["HE HAD TWO DOGS", "MISTER BROWN"], ["He had 2 dogs.", "Mister"]) == (
        pytest.approx(1 / 6, abs=1e-4)
    )


def test_what_is_not_installed_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(systems.PACKAGES, "whisper", ("no_such_package",))
    assert not systems.installed("whisper")
    assert systems.installed("asr")
    assert "faster_whisper" not in sys.modules


def test_a_bad_manifest_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert speed.main(["nowhere.jsonl", "--quick"]) == 2
    assert "error: nowhere.jsonl" in capsys.readouterr().err
