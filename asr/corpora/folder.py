"""A folder of recordings, each with its transcript in a .txt file of the same stem, in; one split out."""

from collections.abc import Iterator
from pathlib import Path

from asr.corpora.common import (
    ALL,
    AUDIO_EXTENSIONS,
    AudioFinder,
    Entry,
    Prepared,
    Problem,
    measure,
    read_lines,
    require_folder,
)
from asr.errors import CorpusError
from asr.files import below


def prepare(root: Path) -> Prepared:
    """Read `root` and its subfolders, linked ones too.

    The id is the path below `root` without extension, the speaker unknown.
    A transcript that is not UTF-8 is a problem of that recording, not of the folder.
    """
    require_folder(root, "folder")
    return measure({ALL: _entries(root)})


def _entries(root: Path) -> Iterator[Entry | Problem]:
    finder = AudioFinder()
    unlisted: list[OSError] = []
    files = [path for path in below(root, unlisted) if path.is_file()]
    for error in unlisted:
        place = Path(error.filename)
        yield Problem(place.name, place, f"cannot be listed: {error.strerror}")
    stems = {path.with_suffix("") for path in files if path.suffix.lower() in AUDIO_EXTENSIONS}
    texts = {path.with_suffix(""): path for path in files if path.suffix.lower() == ".txt"}
    for stem in sorted(stems | texts.keys()):
        id = stem.relative_to(root).as_posix()
        audio = finder.stems(stem.parent).get(stem.name)
        try:
            text = " ".join(read_lines(texts[stem])) if stem in texts else None
        except CorpusError as error:
            yield Problem(id, texts[stem], str(error).removeprefix(f"{texts[stem]}: "))
        else:
            yield Entry(id, audio, text and text.strip(), None, stem)
