"""The bar of a job over many recordings: it moves with the audio, within long files too."""

import os
from collections.abc import Callable
from pathlib import Path, PurePath

import pytest

from asr.bulk import Plan
from asr.cli.progress import Follower
from asr.errors import AsrError
from asr.inputs import Source
from asr.transcript import Transcript

Make = Callable[..., Path]


@pytest.fixture(autouse=True)
def _terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")


def _follower(*paths: Path) -> Follower:
    return Follower(Plan(tuple(Source(path, str(path), PurePath(path.name)) for path in paths)))


def _completed(follower: Follower) -> float:
    return follower.bar.tasks[0].completed


def test_the_bar_moves_with_the_seconds_dealt_with_inside_a_file(make_audio: Make) -> None:
    long, short = make_audio("long.wav", 8.0), make_audio("short.wav", 2.0)
    sizes = [path.stat().st_size for path in (long, short)]
    follower = _follower(long, short)
    assert follower.bar.tasks[0].total == sum(sizes)
    follower.move(0, 2.0)
    assert _completed(follower) == pytest.approx(sizes[0] / 4)
    follower.move(0, 6.0)
    follower.move(1, 1.0)
    assert _completed(follower) == pytest.approx(0.75 * sizes[0] + 0.5 * sizes[1])
    results = follower.follow([(1, AsrError("bad")), (0, Transcript("", duration=8.0))])
    next(results)
    assert _completed(follower) == pytest.approx(0.75 * sizes[0] + sizes[1])
    list(results)
    assert _completed(follower) == sum(sizes)
    assert follower.bar.tasks[0].fields["files"] == "2/2"


def test_the_speed_counts_the_audio_of_files_that_are_not_done(
    make_audio: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    follower = _follower(make_audio("long.wav", 8.0))
    monkeypatch.setattr("time.perf_counter", lambda: follower.started + 2)
    follower.move(0, 6.0)
    assert follower.bar.tasks[0].fields["speed"] == "3 × real time"


def test_a_file_whose_length_is_not_stated_counts_when_it_is_done(tmp_path: Path) -> None:
    path = tmp_path / "odd.wav"
    path.write_bytes(os.urandom(100))
    follower = _follower(path)
    follower.move(0, 6.0)
    assert _completed(follower) == 0
    list(follower.follow([(0, Transcript("", duration=8.0))]))
    assert _completed(follower) == 100


def test_inputs_that_cannot_be_used_are_no_files_of_the_bar(make_audio: Make) -> None:
    path = make_audio("a.wav", 1.0)
    source = Source(path, str(path), PurePath("a.wav"))
    follower = Follower(Plan((source,), problems=(AsrError("no-*.mp3: none"),)))
    list(follower.follow([(0, Transcript("", duration=1.0))]))
    assert follower.bar.tasks[0].fields["files"] == "1/1"
    assert follower.tally.failed == 1


def test_without_a_terminal_no_header_is_read(
    monkeypatch: pytest.MonkeyPatch, make_audio: Make
) -> None:
    monkeypatch.delenv("FORCE_COLOR")
    monkeypatch.setattr("asr.audio.stated_seconds", pytest.fail)
    _follower(make_audio()).move(0, 0.1)
