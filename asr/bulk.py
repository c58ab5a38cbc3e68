"""Many recordings in; a transcript or an error for each out, saved in every format, pictures too.

What is finished is left alone, one bad file does not hurt the others, and every file written is whole.
"""

import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from asr import audio
from asr.errors import AsrError, AudioError, ConfigError
from asr.files import is_terminal
from asr.inputs import Source, find, is_finished, output_stems
from asr.recognizer import BATCH_SECONDS, OnProgress, Recognizer
from asr.transcript import Transcript

Result = Transcript | AsrError
SIDES = ("left", "right")
SAME_SECONDS = 0.5
"""Recordings whose lengths differ by more are not the same one; headers state lengths that roughly."""


@dataclass(frozen=True)
class Plan:
    """What is to be done: `sources` with the stems of their outputs, none where nothing is written.

    `problems` are inputs that are known to be unusable, `skipped` the sources that were finished before; `outdated`
    are those of `sources` that were too, but by another model or with other settings.
    """

    sources: tuple[Source, ...]
    stems: tuple[Path, ...] = ()
    problems: tuple[AsrError, ...] = ()
    skipped: tuple[Source, ...] = ()
    outdated: tuple[Source, ...] = ()


@dataclass
class Tally:
    """What was done: counts, seconds of audio, and what the transcripts say of themselves."""

    done: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0.0
    words: int = 0
    confidences: list[tuple[float, int]] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)

    def add(self, result: Result) -> None:
        """Count a result."""
        if isinstance(result, AsrError):
            self.failed += 1
            return
        self.done += 1
        self.seconds += result.duration
        count = len(result.text.split())
        self.words += count
        if result.confidence is not None:
            self.confidences.append((result.confidence, count))
        self.failures.update(
            failure.kind for failure in result.failures if failure.kind != "silence"
        )

    @property
    def confidence(self) -> float | None:
        """The mean over all words, None where there are none."""
        count = sum(n for _, n in self.confidences)
        return sum(value * n for value, n in self.confidences) / count if count else None


def plan(
    names: Iterable[str],
    scratch: Path,
    *,
    channel: str = "mix",
    output_dir: Path | None = None,
    endings: Sequence[str] = (),
    overwrite: bool = False,
    recognizer: Callable[[], Recognizer],
) -> Plan:
    """Find the recordings that `names` stand for, and tell which of their outputs are still to be made.

    Names are as in `asr.inputs.find`; the standard input is copied to the folder `scratch`. With channel "split" a
    recording of several channels is as many sources. A source whose outputs, one for each of `endings`, all exist and
    are newer than it is skipped unless `overwrite`, or unless a JSON among them says that it was made otherwise than
    `recognizer` would; that one is asked for only to compare them. A JSON of another recording, which has the same
    file name, is a problem: it is not written over unless `overwrite`.
    """
    sources, problems = _found(names, scratch, channel)
    if output_dir is None:
        return Plan(tuple(sources), problems=tuple(problems))
    stems = output_stems(sources, output_dir)
    todo: list[tuple[Source, Path]] = []
    skipped: list[Source] = []
    outdated: list[Source] = []
    for source, stem in zip(sources, stems, strict=True):
        outputs = [_with_ending(stem, ending) for ending in endings]
        said = _read(_with_ending(stem, "json")) if "json" in endings and not overwrite else {}
        finished = is_finished(source, outputs)
        if _is_of_another(said, source, finished):
            problems.append(_namesake(said, source, stem))
        elif overwrite or not finished:
            todo.append((source, stem))
        elif "json" in endings and not _is_by(said, recognizer()):
            todo.append((source, stem))
            outdated.append(source)
        else:
            skipped.append(source)
    return Plan(
        tuple(source for source, _ in todo),
        tuple(stem for _, stem in todo),
        tuple(problems),
        tuple(skipped),
        tuple(outdated),
    )


def _found(
    names: Iterable[str], scratch: Path, channel: str
) -> tuple[list[Source], list[AsrError]]:
    """The sources that `names` stand for, and what is known to be unusable."""
    _check_channel(channel)
    sources: list[Source] = []
    problems: list[AsrError] = []
    for found in find(names):
        if isinstance(found, AsrError):
            problems.append(found)
            continue
        try:
            source = _from_stdin(found, scratch) if found.is_stdin else found
            sources.extend(_channels(source, channel))
        except AudioError as error:
            problems.append(_named(error, found, source.path))
    return sources, problems


def run(
    recognizer: Recognizer,
    sources: Sequence[Source],
    scratch: Path,
    *,
    batch_seconds: float = BATCH_SECONDS,
    attention: bool = False,
    on_progress: OnProgress | None = None,
) -> Iterator[tuple[int, Result]]:
    """Yield (index into `sources`, result) as results are ready, pieces of all recordings decoded together.

    `scratch` is a folder for a temporary file, `attention` keeps that of every segment; `on_progress` is as
    in `Recognizer.transcribe_each`, with the index into `sources`.
    """
    given: list[int] = []  # the source of each recording that the recognizer has been given
    failed: list[tuple[int, AsrError]] = []
    rate = recognizer.trained.features.sample_rate
    files = _files(sources, scratch, rate, given, failed)
    told = None if on_progress is None else lambda number, done: on_progress(given[number], done)
    for number, result in recognizer.transcribe_each(
        files, batch_seconds=batch_seconds, attention=attention, on_progress=told
    ):
        yield from failed
        failed.clear()
        source = sources[given[number]]
        if isinstance(result, AsrError):
            yield given[number], _named(result, source, _channel_file(source, scratch))
        else:
            name = "stdin" if source.is_stdin else source.name
            yield given[number], replace(result, audio=name, channel=source.label or None)
    yield from failed


def drawn(
    results: Iterable[tuple[int, Result]], plan: Plan, recognizer: Recognizer
) -> Iterator[tuple[int, Result]]:
    """Write a picture of each transcript as its stem with .png, whole or not at all, and pass the results on.

    One that cannot be written, or whose recording is too short to draw, is passed on as an error.
    """
    from asr.report import transcript_plot

    for index, result in results:
        drawn = result
        if isinstance(result, Transcript):
            path, source = _with_ending(plan.stems[index], "png"), plan.sources[index]
            try:
                transcript_plot(source.path, result, path, recognizer, channel=source.channel)
            except AsrError as error:
                drawn = _named(error, source, source.path)
            except OSError as error:
                drawn = AsrError(f"{path}: cannot be written: {error.strerror or error}")
        yield index, drawn


def _files(
    sources: Sequence[Source],
    scratch: Path,
    rate: int,
    given: list[int],
    failed: list[tuple[int, AsrError]],
) -> Iterator[Path]:
    """Yield the file to read for each source, its own or one of its channel alone that is there while it is read."""
    for index, source in enumerate(sources):
        file = _channel_file(source, scratch)
        try:
            if source.channel != "mix":
                audio.save_channel(source.path, file, channel=source.channel, sample_rate=rate)
        except AsrError as error:
            failed.append((index, _named(error, source, source.path)))
            continue
        given.append(index)
        yield file
        if source.channel != "mix":
            file.unlink(missing_ok=True)


def _channel_file(source: Source, scratch: Path) -> Path:
    return source.path if source.channel == "mix" else scratch / "channel.wav"


def _check_channel(channel: str) -> None:
    if channel not in ("mix", "split", *SIDES) and not (channel.isascii() and channel.isdigit()):
        raise ConfigError(
            f"channel {channel!r} is not known; use mix, left, right, split or a number from 0"
        )


def _channels(source: Source, channel: str) -> list[Source]:
    """The sources to transcribe of one recording: itself, one channel of it, or each of several."""
    if channel == "mix":
        return [source]
    if channel in SIDES:
        return [replace(source, channel=SIDES.index(channel), label=channel)]
    if channel != "split":
        return [replace(source, channel=int(channel), label=f"channel{channel}")]
    count = audio.channels(source.path)
    if count == 1:
        return [source]
    labels = SIDES if count == 2 else [f"channel{number}" for number in range(count)]
    return [replace(source, channel=number, label=label) for number, label in enumerate(labels)]


def _read(path: Path) -> dict[str, Any]:
    """A JSON output; empty where there is none that can be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _is_by(said: dict[str, Any], recognizer: Recognizer) -> bool:
    """Whether a JSON output names the model and the settings of a recognizer."""
    return (said.get("model"), said.get("settings")) == (recognizer.name, recognizer.settings)


def _is_of_another(said: dict[str, Any], source: Source, finished: bool) -> bool:
    """Whether a JSON output names a file that is there and another; or one that is not, of another length.

    Relative names are looked up where the job runs now. A name alone may be another spelling, and a relative one the
    same in another folder; a length alone may be that of a recording that was made anew after the output.
    """
    named, seconds = said.get("audio"), said.get("duration")
    if source.is_stdin or not isinstance(seconds, int | float):
        return False
    if named == source.name:
        if os.path.isabs(source.name) or not finished:
            return False
    elif isinstance(named, str) and os.path.isfile(named) and source.path.is_file():
        return not os.path.samefile(named, source.path)
    try:
        stated = audio.stated_seconds(source.path)
    except AudioError:  # told when it is read
        return False
    return stated is not None and abs(stated - seconds) > SAME_SECONDS


def _namesake(said: dict[str, Any], source: Source, stem: Path) -> AsrError:
    return AsrError(
        f"{source}: {_with_ending(stem, 'json')} is of another recording, {said.get('audio')}: use another "
        "--output-dir, or --overwrite"
    )


def _from_stdin(source: Source, scratch: Path) -> Source:
    if sys.stdin is None or is_terminal(sys.stdin):
        raise ConfigError("-: the standard input is a terminal or closed; pipe a recording into it")
    copy = scratch / "stdin"
    with copy.open("wb") as file:
        shutil.copyfileobj(sys.stdin.buffer, file)
    return replace(source, path=copy)


def _named(error: AsrError, source: Source, path: Path) -> AsrError:
    """The same error with the name that the user gave instead of a temporary file's."""
    return type(error)(str(error).replace(str(path), str(source), 1))


def _with_ending(stem: Path, ending: str) -> Path:
    return stem.with_name(f"{stem.name}.{ending}")
