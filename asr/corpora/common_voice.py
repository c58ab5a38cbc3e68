"""Common Voice: a release folder or one of its TSV files (path, sentence) and clips/ in, one split a TSV out."""

from collections.abc import Iterator
from pathlib import Path

from asr.corpora.common import (
    ALL,
    AudioFinder,
    Entry,
    Prepared,
    Problem,
    column,
    measure,
    read_table,
)
from asr.errors import CorpusError

OFFICIAL = ("train", "dev", "test")


def prepare(root: Path) -> Prepared:
    """Read a Common Voice folder or TSV; client_id becomes the speaker where there is one.

    A folder with train.tsv gives the official splits that it has; one with validated.tsv, or a TSV, one split.
    Raises CorpusError where neither is there or a column is missing.
    """
    if root.is_file():
        return measure({ALL: _entries(root)})
    tables = {
        split: root / f"{split}.tsv" for split in OFFICIAL if (root / f"{split}.tsv").is_file()
    }
    if not tables:
        tables = {ALL: root / "validated.tsv"}
    if not all(table.is_file() for table in tables.values()):
        raise CorpusError(
            f"{root}: no train.tsv or validated.tsv; give the folder that holds one, or a TSV file"
        )
    return measure({split: _entries(table) for split, table in tables.items()})


def _entries(table: Path) -> Iterator[Entry | Problem]:
    clips = table.parent / "clips"
    folder = clips if clips.is_dir() else table.parent
    finder = AudioFinder()
    for found in read_table(table, "\t", quoted=False):
        if isinstance(found, Problem):
            yield found
            continue
        number, row = found
        path, sentence = column(row, ["path"]), column(row, ["sentence"])
        if path is None or sentence is None:
            raise CorpusError(
                f"{table}:{number}: columns path and sentence are needed; found {', '.join(row)}"
            )
        if not path:
            yield Problem(f"line {number}", table, f"line {number}: no audio path")
            continue
        audio = folder / path
        yield Entry(
            audio.stem, finder.find(audio), sentence, column(row, ["client_id"]) or None, audio
        )
