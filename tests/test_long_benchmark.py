"""The benchmark of long recordings: what it builds, and that it ends in one JSON line."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from recognizers import tiny_trained

from asr import checkpoint, manifest
from recipes.benchmark import long


def test_a_recording_is_its_utterances_again_and_again(
    make_manifest: Callable[..., Path], tmp_path: Path
) -> None:
    utterances = manifest.read(make_manifest(["a", "b"]))
    texts = long.build(utterances, tmp_path / "long.wav", 1.5)
    assert texts == ["a", "b", "a"]
    assert soundfile.info(tmp_path / "long.wav").duration == pytest.approx(1.6)


def test_sounds_that_are_no_speech_are_neither_empty_nor_too_loud() -> None:
    sounds = long.no_speech(1.0)
    assert len(sounds) > 10
    for name, sound in sounds.items():
        assert len(sound) == 16_000
        loudest = np.abs(sound).max()
        assert loudest == pytest.approx(0.0 if name == "silence" else 0.7)


def test_the_last_line_is_json_that_says_what_was_measured(
    make_manifest: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        long,
        "in_new_process",
        lambda path, settings, repeats=1: long.measure(str(path), settings, repeats),
    )
    checkpoint.save(tmp_path / "tiny.pt", tiny_trained())
    path = make_manifest(["a", "b"])
    assert long.main([str(path), "--model", str(tmp_path / "tiny.pt"), "--minutes", "0.02"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert (values["benchmark"], values["batch_seconds"]) == ("long", 120.0)
    assert [r["seconds"] for r in values["results"]] == pytest.approx([0.6, 1.6])
    assert all(r["cpu_seconds"] > 0 for r in values["results"])
    assert values["wer_one_by_one"] >= 0
    longer = ["--minutes", "0.1"]  # than the manifest, whose utterances come again
    heard = []
    monkeypatch.setattr(long, "errors", lambda said, *_: heard.extend(said) or {})
    assert long.main([str(path), "--model", str(tmp_path / "tiny.pt"), *longer]) == 0
    assert len(heard) > 2
    assert [u.id for u in heard[:3]] == [heard[0].id, heard[1].id, heard[0].id]


def test_a_manifest_that_is_not_there_is_one_clear_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert long.main([str(tmp_path / "no.jsonl")]) == 2
    assert capsys.readouterr().err.startswith(f"error: {tmp_path / 'no.jsonl'}: ")
