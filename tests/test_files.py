"""asr.files: whole files or none, whatever kind of file the name stands for; walks over folders."""

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO

import pytest

from asr.files import atomic_write, below


def _write(path: Path, text: str) -> None:
    with atomic_write(path) as file:
        file.write(text)


def test_a_link_stays_and_its_target_is_written(tmp_path: Path) -> None:
    target, link = tmp_path / "there" / "a.txt", tmp_path / "link.txt"
    link.symlink_to(target)
    for text in ("new", "newer"):
        _write(link, text)
        assert link.is_symlink()
        assert target.read_text() == text


def _fail_over(file: IO[str]) -> None:
    file.write("half")
    raise RuntimeError


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_a_pipe_stays_and_is_written_to(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    heard: list[str] = []
    reader = threading.Thread(target=lambda: heard.append(pipe.read_text()), daemon=True)
    reader.start()
    _write(pipe, "hello")
    reader.join(10)
    assert heard == ["hello"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


@pytest.mark.skipif(not os.path.exists("/dev/stdout"), reason="no /dev/stdout on this system")
def test_a_link_to_an_unnamed_pipe_is_written_to() -> None:
    code = "from asr.files import atomic_write\nwith atomic_write('/dev/stdout') as f: f.write('hello')"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "hello"


def test_what_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    _write(path, "old")
    with pytest.raises(RuntimeError), atomic_write(path) as file:
        _fail_over(file)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_walk_has_each_file_once_and_tells_what_it_cannot_list(tmp_path: Path) -> None:
    for name in ("b.txt", "a/c.txt", ".hidden/d.txt", "a/.e.txt"):
        _write(tmp_path / name, "")
    (tmp_path / "a" / "round").symlink_to(tmp_path)
    problems: list[OSError] = []
    assert [p.relative_to(tmp_path).as_posix() for p in below(tmp_path, problems)] == [
        "b.txt",
        "a/c.txt",
    ]
    assert problems == []
    assert list(below(tmp_path / "gone", problems)) == []
    assert len(problems) == 1
