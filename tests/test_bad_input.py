"""Bad input: one clear line each, nothing half written, and the good files of the same run done."""

import os
import subprocess
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
from fuzz import FORMATS, MUTATIONS, bad_files, encoded, good_files, mutated
from hypothesis import given, settings
from hypothesis import strategies as st
from recognizers import tiny_trained
from typer.testing import CliRunner, Result

from asr import audio, checkpoint
from asr.cli import app
from asr.cli.base import printable
from asr.errors import AudioError
from asr.recognizer import Recognizer
from asr.transcript import Segment, Transcript

ROOT = Path(__file__).resolve().parents[1]
SAMPLES = ROOT / "data" / "samples"
NOBODY = 65_534


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.pt"
    checkpoint.save(path, tiny_trained())
    return path


def _transcribe(*arguments: str | Path) -> Result:
    result = CliRunner().invoke(app, ["transcribe", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def _errors(result: Result) -> list[str]:
    return [line for line in result.stderr.splitlines() if line.startswith("error: ")]


def test_each_bad_file_is_one_clear_line_and_the_good_ones_are_done(
    model: Path, make_waveform: Callable[..., np.ndarray], tmp_path: Path
) -> None:
    expected = bad_files(tmp_path / "in" / "bad", make_waveform(1.0))
    good = good_files(tmp_path / "in" / "good", make_waveform(1.0))
    out = tmp_path / "out"
    result = _transcribe(
        tmp_path / "in", "--model", model, "--output-dir", out, "--format", "txt,json"
    )
    assert result.exit_code == 1
    errors = _errors(result)
    said = {path: [e for e in errors if f"{printable(str(path))}:" in e] for path in expected}
    wrong = {
        path.name: lines
        for path, lines in said.items()
        if len(lines) != 1 or expected[path] not in lines[0]
    }
    assert wrong == {}
    assert len(errors) == len(expected)
    assert all(len(line) < 250 for line in errors)
    written = {path.name for path in out.rglob("*") if path.is_file()}
    assert len(written) == 2 * len(good)
    assert not any(name.endswith(".tmp") for name in written)
    assert f"{len(good)} of {len(good) + len(expected)}" in result.stderr.splitlines()[-1]


def test_a_job_of_bad_files_alone_ends_with_status_1(model: Path, tmp_path: Path) -> None:
    (tmp_path / "a.wav").touch()
    result = _transcribe(tmp_path / "a.wav", "--model", model)
    assert (result.exit_code, result.stdout) == (1, "")
    assert _errors(result) == [f"error: {tmp_path / 'a.wav'}: empty file (0 bytes)"]


REAL = {path.stem: path.read_bytes() for path in sorted(SAMPLES.glob("*.opus"))[:2]}
SPEECH = audio.read(next(iter(sorted(SAMPLES.glob("*.opus")))))[8_000:16_000]
SEEDS = REAL | {suffix: encoded(SPEECH, suffix) for suffix in FORMATS}
changes = st.lists(
    st.tuples(st.sampled_from(sorted(MUTATIONS)), st.floats(0, 0.9999), st.integers(0, 255)),
    min_size=1,
    max_size=5,
)


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    return Recognizer(tiny_trained())


@settings(deadline=None, max_examples=120)
@given(seed=st.sampled_from(sorted(SEEDS)), changes=changes, suffix=st.sampled_from(["wav", "mp3"]))
def test_a_mutated_real_file_is_an_audio_error_or_a_result(
    recognizer: Recognizer, seed: str, changes: list[tuple[str, float, int]], suffix: str
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"mutated.{suffix}"
        path.write_bytes(mutated(SEEDS[seed], changes))
        _or_audio_error(lambda: audio.info(path), path)
        waveform = _or_audio_error(lambda: audio.read(path), path)
        transcript = _or_audio_error(lambda: recognizer.transcribe(path), path)
        assert (waveform is None) == (transcript is None)
        assert waveform is None or np.isfinite(waveform).all()


T = TypeVar("T")


def _or_audio_error(read: Callable[[], T], path: Path) -> T | None:
    """What `read` returns, None where it says in one line what is wrong with the file."""
    try:
        return read()
    except AudioError as error:
        message = str(error)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return None


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter; those of pytest are the user's alone."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


def _as_nobody(*arguments: str | Path) -> tuple[int, str]:
    """Exit status and stderr of `asr transcribe` as a user without rights; root may read and write everything.

    A fork, since such a user may not be allowed to start this Python.
    """
    if os.geteuid() != 0:
        result = _transcribe(*arguments)
        return result.exit_code, result.stderr
    reader, writer = os.pipe()
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        result = _transcribe(*arguments)
        os.write(writer, result.stderr.encode())
        os._exit(result.exit_code)
    os.close(writer)
    with open(reader, encoding="utf-8") as stream:
        stderr = stream.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no such permissions on this system")
def test_what_may_not_be_read_or_written_is_one_clear_line(
    make_audio: Callable[..., Path], open_folder: Path
) -> None:
    model = open_folder / "model.pt"
    checkpoint.save(model, tiny_trained())
    for name in ("in/fine.wav", "in/secret.wav", "in/closed/hidden.wav"):
        path = open_folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(make_audio("a.wav").read_bytes())
    _transcribe(open_folder / "in/fine.wav", "--model", model)  # all is imported before the fork
    (open_folder / "out").mkdir()
    (open_folder / "out").chmod(0o777)
    (open_folder / "in/secret.wav").chmod(0)
    (open_folder / "in/closed").chmod(0)
    (open_folder / "shut").mkdir(mode=0o500)
    status, stderr = _as_nobody(
        open_folder / "in", "--model", model, "--output-dir", open_folder / "out"
    )
    assert status == 1, stderr
    assert [line for line in stderr.splitlines() if line.startswith("error: ")] == [
        f"error: {open_folder}/in/closed: cannot be listed: Permission denied",
        f"error: {open_folder}/in/secret.wav: cannot be read: permission denied",
    ]
    assert [path.name for path in (open_folder / "out").iterdir()] == ["fine.txt"]
    fine = open_folder / "in" / "fine.wav"
    status, stderr = _as_nobody(fine, "--model", model, "--output-dir", open_folder / "shut")
    (open_folder / "in/closed").chmod(0o755)
    assert (status, stderr) == (
        2,
        f"error: --output-dir {open_folder}/shut: cannot be written to\n",
    )


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command here")
    if done.returncode != 0:
        pytest.skip(f"a small file system cannot be mounted: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_one_clear_line_for_each_file_and_leaves_whole_files(
    model: Path, make_audio: Callable[..., Path], tmp_path: Path, small_disk: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    lengths = {"a.wav": 1_000, "big.wav": 200_000, "c.wav": 1_000}
    for name in lengths:
        make_audio(f"in/{name}")

    def texts(self: Recognizer, audios: Iterator[Path], **_: object) -> Iterator[object]:
        for number, path in enumerate(audios):
            yield number, Transcript("", (Segment(0, 1, "a" * lengths[path.name]),))

    monkeypatch.setattr(Recognizer, "transcribe_each", texts)
    result = _transcribe(tmp_path / "in", "--model", model, "--output-dir", small_disk)
    assert result.exit_code == 1
    full = small_disk / "big.txt"
    assert _errors(result) == [f"error: {full}: cannot be written: No space left on device"]
    assert sorted(path.name for path in small_disk.iterdir()) == ["a.txt", "c.txt"]
