"""A CSV file (or TSV) with a header, one recording a line, in; one split out."""

from collections.abc import Iterator
from pathlib import Path, PurePath

from asr.corpora.common import (
    ALL,
    AudioFinder,
    Entry,
    Prepared,
    Problem,
    column,
    measure,
    read_lines,
    read_table,
)
from asr.errors import CorpusError

AUDIO_COLUMNS = ("audio", "path", "audio_filepath", "file", "filename", "wav")
TEXT_COLUMNS = ("text", "sentence", "transcript", "transcription")
SPEAKER_COLUMNS = ("speaker", "speaker_id", "client_id")
_DELIMITERS = ",\t;|"


def prepare(root: Path) -> Prepared:
    """Read the table `root`; relative audio paths are taken from its folder, the delimiter from its header.

    Columns by name: audio (or path, audio_filepath, file, filename, wav), text (or sentence, transcript,
    transcription) and, if there, speaker and id; without an id it is the audio's path without its extension. Raises
    CorpusError where a column is missing.
    """
    return measure({ALL: _entries(root)})


def _entries(table: Path) -> Iterator[Entry | Problem]:
    header = read_lines(table)[0]
    delimiter = max(_DELIMITERS, key=header.count)
    finder = AudioFinder()
    for found in read_table(table, delimiter, quoted=True):
        if isinstance(found, Problem):
            yield found
            continue
        number, row = found
        path, text = column(row, AUDIO_COLUMNS), column(row, TEXT_COLUMNS)
        if path is None or text is None:
            raise CorpusError(
                f"{table}:{number}: one column of {', '.join(AUDIO_COLUMNS)} and one of {', '.join(TEXT_COLUMNS)}"
                f" are needed; found {', '.join(row)}"
            )
        if not path:
            yield Problem(f"line {number}", table, f"line {number}: no audio path")
            continue
        audio = table.parent / path
        id = column(row, ["id"]) or PurePath(path).with_suffix("").as_posix()
        yield Entry(id, finder.find(audio), text, column(row, SPEAKER_COLUMNS) or None, audio)
