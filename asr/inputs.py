"""What a user names in; the recordings to transcribe out, each with a name that no other's output can have.

A name is a file, a folder, a glob, a manifest of JSON lines, or - for the standard input.
"""

import glob
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from asr._decoders import MEDIA_SUFFIXES
from asr.errors import AsrError, ManifestError
from asr.files import below

SUFFIXES = MEDIA_SUFFIXES | {
    ".aif", ".aifc", ".aiff", ".au", ".caf", ".flac", ".mp2", ".mp3", ".mpga", ".oga", ".ogg", ".opus", ".rf64",
    ".snd", ".spx", ".w64", ".wav", ".wave",
}  # fmt: skip
"""What the names of the files end in that are taken from a folder."""

STDIN = "-"


@dataclass(frozen=True)
class Source:
    """A recording: where it lies, how it is called in messages, and its place in a folder of outputs.

    `place` is relative, with the file's ending: from a folder it is the path below that folder. `channel` is as in
    `asr.audio.read`, `label` what tells the outputs of one file's channels apart, "left" for instance. The standard
    input has the path "-" until it has been copied to a file.
    """

    path: Path
    name: str
    place: PurePath
    channel: str | int = "mix"
    label: str = ""

    @property
    def is_stdin(self) -> bool:
        """Whether it is the standard input, copied or not."""
        return self.name == STDIN

    def __str__(self) -> str:
        name = "stdin" if self.is_stdin else self.name
        return f"{name} ({self.label})" if self.label else name


def find(names: Iterable[str]) -> Iterator[Source | AsrError]:
    """Yield the recordings that `names` stand for, each file once, and an error for each name that stands for none.

    Folders are searched with all below, linked folders too but none twice, for files whose ending is in SUFFIXES and
    whose name does not begin with a dot, in alphabetical order. A name with *, ? or [ that is no file is a glob, **
    for any number of folders. A manifest (.jsonl) needs audio_filepath in each line and nothing else;
    a line without is an error too.
    """
    seen = set()
    for name in names:
        for found in _find(name):
            if isinstance(found, Source):
                path = os.path.abspath(found.path)
                if path in seen:
                    continue
                seen.add(path)
            yield found


def output_stems(sources: Sequence[Source], folder: str | Path) -> list[Path]:
    """Return one path without ending in `folder` for each source, no two of which may be the same file.

    An output is named after its input: talk.wav gives talk, monday/talk.wav of a folder monday/talk. Sources that
    would share a name that way keep their endings (talk.wav, talk.flac), and where that is not enough they have the
    folders below the common parent of all (monday/talk.wav, tuesday/talk.wav), which may be drives (C/talk.wav,
    D/talk.wav). Capital letters make no difference between names, since some file systems see none.
    """
    files = [os.path.abspath(source.path) for source in sources if not source.is_stdin]
    parent = _common_parent(files)
    choices = [_names(source, parent) for source in sources]
    levels = [0] * len(sources)
    while True:
        names = [choice[level] for choice, level in zip(choices, levels, strict=True)]
        count = Counter(name.casefold() for name in names)
        clashing = [
            i
            for i, name in enumerate(names)
            if count[name.casefold()] > 1 and levels[i] < len(choices[i]) - 1
        ]
        if not clashing:
            return [Path(folder) / name for name in names]
        for i in clashing:
            levels[i] += 1


def is_finished(source: Source, outputs: Iterable[Path]) -> bool:
    """Whether all outputs exist and are newer than the recording; never so for the standard input."""
    try:
        changed = source.path.stat().st_mtime_ns
        return not source.is_stdin and all(
            path.is_file() and path.stat().st_mtime_ns > changed for path in outputs
        )
    except OSError:
        return False


def _find(name: str) -> Iterator[Source | AsrError]:
    path = Path(name)
    try:
        if not name:
            raise AsrError("'': an empty name; give a file, a folder, a pattern, a manifest or -")
        if name == STDIN:
            yield Source(path, STDIN, PurePath("stdin"))
        elif os.path.isdir(path):  # unlike path.is_dir(), False where it may not be asked
            yield from _in_folder(path)
        elif path.suffix.lower() == ".jsonl":
            yield from _in_manifest(path)
        elif glob.has_magic(name) and not os.path.lexists(path):
            yield from _in_glob(name)
        else:
            yield Source(path, str(path), PurePath(path.name))
    except AsrError as error:
        yield error


def _in_folder(folder: Path) -> Iterator[Source | AsrError]:
    problems: list[OSError] = []
    empty = True
    for path in below(folder, problems):
        if path.suffix.lower() in SUFFIXES:
            empty = False
            yield Source(path, str(path), path.relative_to(folder))
    for problem in problems:
        empty = False
        yield AsrError(f"{problem.filename}: cannot be listed: {problem.strerror}")
    if empty:
        yield AsrError(
            f"{folder}: no recordings in this folder (wav, flac, ogg, opus, mp3, m4a ...)"
        )


def _in_glob(pattern: str) -> Iterator[Source | AsrError]:
    matches = sorted(glob.glob(pattern, recursive=True))
    if not matches:
        yield AsrError(f"{pattern}: no such file, and as a pattern it matches none")
    for match in matches:
        path = Path(match)
        # ** matches folders as well as what is in them: the files speak for themselves
        if not os.path.isdir(path):
            yield Source(path, str(path), PurePath(path.name))
        elif "**" not in pattern:
            yield from _in_folder(path)


def _in_manifest(path: Path) -> Iterator[Source | AsrError]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ManifestError(f"{path}: cannot read manifest: {reason}") from error
    if not any(line.strip() for line in lines):
        raise ManifestError(f"{path}: no recordings in this manifest")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            audio = Path(json.loads(line)["audio_filepath"])
            if not audio.name or "\0" in str(audio):
                raise ValueError("no file's name")
        except (ValueError, TypeError, KeyError):
            yield ManifestError(f'{path}:{number}: not a JSON object with "audio_filepath", a path')
            continue
        audio = audio if audio.is_absolute() else path.parent / audio
        yield Source(audio, str(audio), PurePath(audio.name))


def _common_parent(files: Sequence[str]) -> str:
    """The deepest folder that all absolute paths are below; empty where there is none, as on two drives of Windows."""
    try:
        return os.path.commonpath([os.path.dirname(file) for file in files])
    except ValueError:  # no file, or several drives
        return ""


def _below(path: Path, parent: str) -> str:
    """A path as seen from a common parent; without one the whole path, its drive as the first folder."""
    if parent:
        return os.path.relpath(path, parent)
    drive, rest = os.path.splitdrive(os.path.abspath(path))
    return "/".join(filter(None, (drive.strip(":\\/"), rest.strip("\\/"))))


def _names(source: Source, parent: str) -> tuple[str, str, str]:
    place, label = source.place, f".{source.label}" if source.label else ""
    whole = place if source.is_stdin else _below(source.path, parent)
    return f"{place.with_suffix('')}{label}", f"{place}{label}", f"{whole}{label}"
