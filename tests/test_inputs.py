"""What names stand for: files, folders, globs, manifests; and the names of their outputs."""

import json
import ntpath
import os
from dataclasses import replace
from pathlib import Path, PurePath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr.errors import AsrError, ManifestError
from asr.inputs import STDIN, Source, find, is_finished, output_stems


def _touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def _found(*names: str | Path) -> list[str]:
    return [str(found) for found in find(map(str, names))]


def _file(name: str) -> Source:
    return Source(Path(name), name, PurePath(PurePath(name).name))


def test_a_folder_gives_its_recordings_with_all_below_in_order(tmp_path: Path) -> None:
    _touch(tmp_path, "b.wav", "a/c.MP3", "a/d/e.opus", "notes.txt", ".hidden.wav", ".git/f.wav")
    sources = list(find([str(tmp_path)]))
    assert [str(source.place) for source in sources] == ["b.wav", "a/c.MP3", "a/d/e.opus"]
    assert [source.path for source in sources] == [tmp_path / source.place for source in sources]


def test_linked_folders_are_searched_and_loops_end(tmp_path: Path) -> None:
    _touch(tmp_path, "in/a.wav", "elsewhere/b.wav")
    (tmp_path / "in" / "back").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "there").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in" / "there-too").symlink_to(tmp_path / "elsewhere")
    assert _found(tmp_path / "in") == [
        str(tmp_path / "in" / "a.wav"),
        str(tmp_path / "in" / "there" / "b.wav"),
    ]


def test_a_glob_gives_what_it_matches_and_a_file_of_that_name_is_itself(tmp_path: Path) -> None:
    _touch(tmp_path, "1.wav", "2.wav", "x/3.wav", "x/y/4.flac", "[1].wav")
    assert _found(tmp_path / "?.wav") == [str(tmp_path / "1.wav"), str(tmp_path / "2.wav")]
    assert _found(tmp_path / "**" / "*.flac") == [str(tmp_path / "x/y/4.flac")]
    assert _found(tmp_path / "[1].wav") == [str(tmp_path / "[1].wav")]
    assert len(_found(tmp_path / "x*")) == 2


def test_each_file_is_there_once_however_often_it_is_named(tmp_path: Path) -> None:
    _touch(tmp_path, "a.wav", "b.wav")
    names = (tmp_path / "b.wav", tmp_path, tmp_path / "*.wav", tmp_path / "x" / ".." / "a.wav")
    assert _found(*names) == [str(tmp_path / "b.wav"), str(tmp_path / "a.wav")]


def test_a_manifest_gives_its_recordings_and_needs_nothing_but_their_paths(tmp_path: Path) -> None:
    manifest = tmp_path / "some.jsonl"
    lines = [{"audio_filepath": "x/a.wav"}, {"audio_filepath": "/far/b.wav", "text": "hello"}]
    manifest.write_text("".join(json.dumps(line) + "\n\n" for line in lines))
    assert _found(manifest) == [str(tmp_path / "x" / "a.wav"), "/far/b.wav"]


@pytest.mark.parametrize(
    "line",
    ["{", "[1]", '{"audio": "a.wav"}', '{"audio_filepath": 3}', "3"]
    + [json.dumps({"audio_filepath": name}) for name in ("", "/", "a\0b.wav")],
)
def test_a_wrong_line_of_a_manifest_is_named_and_the_others_count(
    tmp_path: Path, line: str
) -> None:
    good = '{"audio_filepath": "%s.wav"}'
    (tmp_path / "some.jsonl").write_text("\n".join([good % "a", line, good % "b"]))
    first, error, last = find([str(tmp_path / "some.jsonl")])
    assert [str(first), str(last)] == [str(tmp_path / "a.wav"), str(tmp_path / "b.wav")]
    assert isinstance(error, ManifestError)
    assert f'{tmp_path / "some.jsonl"}:2: not a JSON object with "audio_filepath"' in str(error)


def test_an_empty_manifest_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "empty.jsonl"
    path.write_text("\n")
    (error,) = find([str(path)])
    assert str(error) == f"{path}: no recordings in this manifest"


def test_what_stands_for_nothing_is_an_error_that_names_it(tmp_path: Path) -> None:
    _touch(tmp_path, "empty/readme.txt")
    (tmp_path / "binary.jsonl").write_bytes(b"\xff\xfe")
    names = ["empty", "*.wav", "no.jsonl", "binary.jsonl"]
    errors = list(find([str(tmp_path / name) for name in names]))
    assert all(isinstance(error, AsrError) for error in errors)
    for name, error, reason in zip(
        names,
        errors,
        ["no recordings in this folder", "matches none", "No such file", "not UTF-8"],
        strict=True,
    ):
        assert str(tmp_path / name) in str(error)
        assert reason in str(error)


def test_an_empty_name_is_not_the_folder_one_stands_in() -> None:
    (error,) = find([""])
    assert isinstance(error, AsrError)
    assert "an empty name" in str(error)


def test_a_missing_file_is_a_source_whose_error_comes_when_it_is_read(tmp_path: Path) -> None:
    for name in ("no.wav", f"{'long' * 99}.wav"):
        assert _found(tmp_path / name) == [str(tmp_path / name)]


def test_an_output_is_named_after_its_input() -> None:
    sources = [_file("a/x.wav"), _file("b/y.tar.flac"), Source(Path(STDIN), STDIN, Path("stdin"))]
    assert output_stems(sources, "out") == [Path("out/x"), Path("out/y.tar"), Path("out/stdin")]


def test_outputs_of_a_folder_keep_its_subfolders(tmp_path: Path) -> None:
    _touch(tmp_path, "in/mon/a.wav", "in/tue/a.wav", "in/tue/a.flac")
    stems = output_stems([s for s in find([str(tmp_path / "in")]) if isinstance(s, Source)], "out")
    assert stems == [Path("out/mon/a"), Path("out/tue/a.flac"), Path("out/tue/a.wav")]


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        (["a/x.wav", "b/x.flac", "y.wav"], ["x.wav", "x.flac", "y"]),
        (["a/x.wav", "a/X.flac"], ["x.wav", "X.flac"]),
        (["a/x.wav", "b/x.wav"], ["a/x.wav", "b/x.wav"]),
        (["a/x.wav", "a/b/x.wav"], ["x.wav", "b/x.wav"]),
        (["x.wav", "b/x.flac", "x.wav.mp3"], ["x.wav", "x.flac", "x.wav.mp3"]),
    ],
)
def test_inputs_that_share_a_name_keep_what_tells_them_apart(
    inputs: list[str], expected: list[str]
) -> None:
    stems = output_stems([_file(name) for name in inputs], "out")
    assert stems == [Path("out") / name for name in expected]


def test_inputs_on_two_drives_of_windows_are_told_apart_by_the_drive(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sources = [_file(name) for name in (r"C:\talks\x.wav", r"D:\talks\x.wav")]
    sources = [replace(source, place=PurePath("x.wav")) for source in sources]
    with monkeypatch.context() as windows:
        windows.setattr(os, "path", ntpath)
        stems = output_stems(sources, "out")
    assert [str(stem).replace("\\", "/") for stem in stems] == [
        "out/C/talks/x.wav",
        "out/D/talks/x.wav",
    ]


@given(
    st.sets(st.from_regex(r"\A([ab]/){0,2}[xX](\.wav|\.left)?(\.flac)?\Z"), min_size=1, max_size=8),
    st.booleans(),
)
def test_no_two_inputs_share_an_output(inputs: set[str], split: bool) -> None:
    sources = [_file(name) for name in sorted(inputs)]
    if split:
        sources = [
            Source(s.path, s.name, s.place, n, label)
            for s in sources
            for n, label in enumerate(("left", "right"))
        ]
    assert len(set(output_stems(sources, "out"))) == len(sources)


def test_finished_is_what_has_all_outputs_newer_than_it(tmp_path: Path) -> None:
    _touch(tmp_path, "a.wav", "a.txt", "a.srt")
    source = _file(str(tmp_path / "a.wav"))
    outputs = [tmp_path / "a.txt", tmp_path / "a.srt"]
    os.utime(source.path, (1000, 1000))
    assert is_finished(source, outputs)
    assert not is_finished(source, [*outputs, tmp_path / "a.json"])
    os.utime(outputs[1], (1000, 1000))
    assert not is_finished(source, outputs)
    (tmp_path / "folder").mkdir()
    assert not is_finished(source, [tmp_path / "folder"])
    assert not is_finished(_file(str(tmp_path / "no.wav")), outputs)
