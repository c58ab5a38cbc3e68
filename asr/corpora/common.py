"""What every corpus needs: entries (audio, text, speaker) in, measured utterances and named problems out.

A corpus file only knows its own layout; finding audio under any extension, reading durations, holding data out and
reporting what cannot be used are here, once.
"""

import csv
import hashlib
import io
import math
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from asr.audio import info
from asr.errors import AudioError, CorpusError
from asr.files import is_terminal
from asr.manifest import Utterance
from asr.text import normalise

# Of several files with one stem the first extension wins: lossless before lossy before film and phone containers.
AUDIO_EXTENSIONS = (
    *(".flac", ".wav", ".aiff", ".aif", ".au", ".w64", ".caf", ".sph"),
    *(".opus", ".ogg", ".oga", ".mp3"),
    *(".m4a", ".aac", ".mp4", ".mka", ".mkv", ".webm", ".mov", ".3gp", ".amr", ".wma"),
)
T = TypeVar("T")
ALL = "all"  # the name of the only split of a corpus that comes without splits


@dataclass(frozen=True)
class Entry:
    """One utterance of a corpus before its audio was opened; `audio` None where no file was found."""

    id: str
    audio: Path | None
    text: str | None
    speaker: str | None = None
    expected: Path | None = None  # where the audio was looked for, without a known extension


@dataclass(frozen=True)
class Problem:
    """An utterance that cannot be used, and why."""

    id: str
    path: Path | None
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}" if self.path else f"{self.id}: {self.reason}"


@dataclass(frozen=True)
class Prepared:
    """The usable utterances of each split, sorted by id, and what could not be used."""

    splits: dict[str, list[Utterance]]
    problems: list[Problem] = field(default_factory=list)


class AudioFinder:
    """Finds a recording by its name without extension; every folder is listed once."""

    def __init__(self) -> None:
        self._folders: dict[Path, dict[str, Path]] = {}

    def find(self, path: Path) -> Path | None:
        """Return `path` where it exists, else the file beside it of the same stem and a known audio extension."""
        if path.is_file():
            return path
        known = path.suffix.lower() in AUDIO_EXTENSIONS
        return self.stems(path.parent).get(path.stem if known else path.name)

    def stems(self, folder: Path) -> dict[str, Path]:
        """Return the audio files in `folder` by stem; of several with one stem the first known extension wins."""
        if folder not in self._folders:
            files = [path for path in _listing(folder) if path.suffix.lower() in AUDIO_EXTENSIONS]
            files.sort(
                key=lambda path: (AUDIO_EXTENSIONS.index(path.suffix.lower()), path.name),
                reverse=True,
            )
            self._folders[folder] = {path.stem: path for path in files}
        return self._folders[folder]


def measure(splits: Mapping[str, Iterable[Entry | Problem]]) -> Prepared:
    """Open every entry's audio for its duration; entries without audio, text or sound become problems.

    What a corpus itself found to be a problem is passed on.
    """
    flat = [
        (split, entry)
        for split, entries in splits.items()
        for entry in sorted(entries, key=lambda e: e.id)
    ]
    prepared = Prepared({split: [] for split in splits})
    with ThreadPoolExecutor(8) as pool:
        results = pool.map(lambda item: _measure_one(item[1]), flat, chunksize=64)
        for (split, _), result in zip(flat, with_progress(results, len(flat)), strict=True):
            if isinstance(result, Problem):
                prepared.problems.append(result)
            else:
                prepared.splits[split].append(result)
    return prepared


def hold_out(
    utterances: list[Utterance], amount: float, seed: int
) -> tuple[list[Utterance], list[Utterance]]:
    """Split into (train, dev): `amount` utterances for dev if it is 1 or more, else that fraction of all.

    Whole speakers go to dev where more than one is known for all utterances, else whole sentences (as the
    normaliser writes them), so that nothing heard or read in dev is in train by that key. The choice depends on
    the seed and the key alone. Raises CorpusError where nothing would be left to train on.
    """
    share = amount if amount >= 1 else amount * len(utterances)
    target = round(share) if math.isfinite(share) else 0
    speakers = {utterance.speaker for utterance in utterances}
    by_speaker = None not in speakers and len(speakers) > 1
    groups: dict[str, list[Utterance]] = defaultdict(list)
    for utterance in utterances:
        groups[str(utterance.speaker) if by_speaker else normalise(utterance.text)].append(
            utterance
        )
    held: set[str] = set()
    count = 0
    for key in sorted(groups, key=lambda key: _digest(f"{seed}:{key}")):
        if count + len(groups[key]) <= target:
            held.add(key)
            count += len(groups[key])
    if not held:  # every group is larger than what was asked for
        held = {min(groups, key=lambda key: (len(groups[key]), key))} if groups else set()
    train = [u for key, group in groups.items() if key not in held for u in group]
    dev = [u for key in held for u in groups[key]]
    if not train or not dev or target < 1:
        unit = "speakers" if by_speaker else "sentences"
        raise CorpusError(
            f"holdout {amount:g}: cannot be taken from {len(utterances)} utterances of {len(groups)} {unit};"
            " allowed is a fraction below 1 or a number of utterances that leaves some to train on"
        )
    return sorted(train, key=_id), sorted(dev, key=_id)


def read_table(
    path: Path, delimiter: str, *, quoted: bool
) -> list[tuple[int, dict[str, str]] | Problem]:
    """Read the rows, each with its (last) line, of a table with a header, UTF-8; a row that does not fit is a problem.

    `quoted` False takes quotation marks as they stand. Raises CorpusError naming the file where it is missing, not
    UTF-8 or has no header.
    """
    csv.field_size_limit(2**31 - 1)
    file = io.StringIO(_read_text(path))
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    try:
        reader = csv.DictReader(file, delimiter=delimiter, quoting=quoting, restval="")
        rows = [_row(path, row, reader.line_num, delimiter) for row in reader]
    except csv.Error as error:
        raise CorpusError(f"{path}: not a readable table: {error}") from error
    if not reader.fieldnames:
        raise CorpusError(f"{path}: empty; a header line with column names is needed")
    return rows


def _row(
    path: Path, row: dict[Any, Any], number: int, delimiter: str
) -> tuple[int, dict[str, str]] | Problem:
    """A row that ends at line `number`, unless it has surplus fields or one that seems to hold other rows."""
    surplus = row.pop(None, [])
    values = [*row.values(), *surplus]
    if any(delimiter in line for value in values for line in value.split("\n")[1:]):
        first = number - sum(value.count("\n") for value in values)
        reason = f"lines {first} to {number}: one row, as if a quotation mark were not closed"
        return Problem(f"line {first}", path, reason)
    if surplus:
        fields = f"{len(row) + len(surplus)} fields where the header has {len(row)}"
        return Problem(f"line {number}", path, f"line {number}: {fields}")
    return number, row


def read_lines(path: Path) -> list[str]:
    """Read a UTF-8 text file's lines, with or without a byte-order mark; raises CorpusError naming the file."""
    return _read_text(path).removesuffix("\n").split("\n")


def column(row: Mapping[str, str], names: Iterable[str]) -> str | None:
    """Return the first named column that the row has, stripped, or None."""
    return next((row[name].strip() for name in names if row.get(name) is not None), None)


def with_progress(results: Iterable[T], total: int) -> Iterable[T]:
    """Pass on `results`, with a progress bar on standard error where that is a terminal."""
    if not is_terminal(sys.stderr):
        return results
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    return track(results, "Reading audio", total, console=console, transient=True)


def require_folder(root: Path, corpus: str) -> Path:
    """Return `root`; raises CorpusError where it is not a folder."""
    if not root.is_dir():
        raise CorpusError(f"{root}: no such folder, so no {corpus} corpus to prepare")
    return root


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise CorpusError(f"{path}: not UTF-8 text") from error
    except OSError as error:
        raise CorpusError(f"{path}: {error.strerror}") from error


def _measure_one(entry: Entry | Problem) -> Utterance | Problem:
    if isinstance(entry, Problem):
        return entry
    if entry.audio is None:
        return Problem(entry.id, entry.expected, "no audio file of this name")
    if entry.text is None:
        return Problem(entry.id, entry.audio, "no transcript")
    if not entry.text.strip():
        return Problem(entry.id, entry.audio, "empty transcript")
    try:
        duration = info(entry.audio).duration
    except AudioError as error:
        return Problem(entry.id, entry.audio, str(error).removeprefix(f"{entry.audio}: "))
    return Utterance(entry.id, entry.audio, duration, entry.text, entry.speaker)


def _listing(folder: Path) -> list[Path]:
    """Return the files of a folder, less the hidden ones, which archivers leave beside recordings."""
    if not folder.is_dir():
        return []
    return [path for path in folder.iterdir() if not path.name.startswith(".")]


def _id(utterance: Utterance) -> str:
    return utterance.id


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode(errors="backslashreplace")).digest()
