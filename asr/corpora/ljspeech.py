"""LJ Speech: metadata.csv (id|text|normalised text) and wavs/ in, one split of one speaker out."""

from collections.abc import Iterator
from pathlib import Path

from asr.corpora.common import (
    ALL,
    AudioFinder,
    Entry,
    Prepared,
    measure,
    read_lines,
    require_folder,
)
from asr.errors import CorpusError


def prepare(root: Path) -> Prepared:
    """Read LJ Speech's normalised texts (numbers are already words); raises CorpusError naming a malformed line."""
    require_folder(root, "LJ Speech")
    return measure({ALL: _entries(root)})


def _entries(root: Path) -> Iterator[Entry]:
    finder, seen = AudioFinder(), set()
    metadata = root / "metadata.csv"
    for number, line in enumerate(read_lines(metadata), 1):
        if not line.strip():
            continue
        fields = line.split("|")
        if len(fields) not in (2, 3):
            raise CorpusError(
                f"{metadata}:{number}: {len(fields)} fields; expected id|text or id|text|normalised text"
            )
        seen.add(fields[0])
        audio = root / "wavs" / fields[0]
        yield Entry(fields[0], finder.find(audio), fields[-1].strip(), "LJ", audio)
    for stem, audio in finder.stems(root / "wavs").items():
        if stem not in seen:
            yield Entry(stem, audio, None, "LJ")
