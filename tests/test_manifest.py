"""Manifests: what is written is read back, and a wrong line is named."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr import manifest
from asr.errors import ManifestError
from asr.manifest import Utterance


def test_written_utterances_are_read_back(tmp_path: Path) -> None:
    utterances = [
        Utterance("1", tmp_path / "a.wav", 1.25, "Ça va? 你好", "s"),
        Utterance("2", tmp_path / "b.wav", 0.5, ""),
    ]
    manifest.write(tmp_path / "m.jsonl", utterances)
    assert manifest.read(tmp_path / "m.jsonl") == utterances


def test_the_keys_are_nemos(tmp_path: Path) -> None:
    manifest.write(tmp_path / "m.jsonl", [Utterance("1", Path("a.wav"), 1.0, "a")])
    entry = json.loads((tmp_path / "m.jsonl").read_text())
    assert entry == {
        "audio_filepath": str(Path("a.wav").absolute()),
        "duration": 1.0,
        "text": "a",
        "id": "1",
    }


def test_relative_audio_is_taken_from_the_manifests_folder(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text(
        '{"audio_filepath": "x/a.wav", "duration": 1, "text": "a"}\n\n'
    )
    (utterance,) = manifest.read(tmp_path / "m.jsonl")
    assert utterance.audio == tmp_path / "x" / "a.wav"
    assert utterance.speaker is None


def test_without_an_id_files_of_one_name_in_two_folders_stay_apart(tmp_path: Path) -> None:
    lines = [{"audio_filepath": f"{folder}/1.wav", "duration": 1, "text": "a"} for folder in "xy"]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert [utterance.id for utterance in manifest.read(tmp_path / "m.jsonl")] == ["x/1", "y/1"]


def test_a_file_name_that_is_not_utf8_survives(tmp_path: Path) -> None:
    audio = tmp_path / os.fsdecode(b"t\xff.wav")
    manifest.write(tmp_path / "m.jsonl", [Utterance("1", audio, 1.0, "a")])
    assert manifest.read(tmp_path / "m.jsonl")[0].audio == audio


@given(st.text())
def test_any_text_survives(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    manifest.write(path, [Utterance("1", Path("/a.wav"), 1.0, text)])
    assert [utterance.text for utterance in manifest.read(path)] == [text]


@pytest.mark.parametrize("char", ["\u2028", "\u2029", "\x85", "\r", "\x0b", "\x1c"])
def test_line_separators_inside_texts_do_not_break_lines(tmp_path: Path, char: str) -> None:
    manifest.write(tmp_path / "m.jsonl", [Utterance("1", Path("/a.wav"), 1.0, f"a{char}b")])
    assert manifest.read(tmp_path / "m.jsonl")[0].text == f"a{char}b"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "m.jsonl:2: not a JSON object"),
        ("[1]", "m.jsonl:2: "),
        ('{"duration": 1, "text": "a"}', "m.jsonl:2: no key 'audio_filepath'"),
        ('{"audio_filepath": "a", "duration": "long", "text": "a"}', "m.jsonl:2: "),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    good = '{"audio_filepath": "a.wav", "duration": 1, "text": "a"}'
    (tmp_path / "m.jsonl").write_text(f"{good}\n{line}\n")
    with pytest.raises(ManifestError, match=message):
        manifest.read(tmp_path / "m.jsonl")


def test_a_missing_or_binary_manifest_is_named(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"gone\.jsonl"):
        manifest.read(tmp_path / "gone.jsonl")
    (tmp_path / "m.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ManifestError, match=r"m\.jsonl.*UTF-8"):
        manifest.read(tmp_path / "m.jsonl")


def test_a_failed_write_leaves_the_old_manifest(tmp_path: Path) -> None:
    old = [Utterance("1", tmp_path / "a.wav", 1.0, "a")]
    manifest.write(tmp_path / "m.jsonl", old)

    def broken() -> object:
        yield old[0]
        raise RuntimeError

    with pytest.raises(RuntimeError):
        manifest.write(tmp_path / "m.jsonl", broken())
    assert manifest.read(tmp_path / "m.jsonl") == old
    assert [path.name for path in tmp_path.iterdir()] == ["m.jsonl"]


def test_null_is_no_id_and_no_text(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text('{"audio_filepath": "d/a.wav", "duration": 1, "text": "hi", "id": null}\n')
    assert manifest.read(path)[0].id == "d/a"
    path.write_text('{"audio_filepath": "a.wav", "duration": 1, "text": null}\n')
    with pytest.raises(ManifestError, match=r"m\.jsonl:1: text is null"):
        manifest.read(path)
