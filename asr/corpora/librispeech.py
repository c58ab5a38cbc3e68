"""LibriSpeech and mini-LibriSpeech: SUBSET/SPEAKER/CHAPTER/*.trans.txt with its audio in, one split a subset out."""

from collections.abc import Iterator
from pathlib import Path

from asr.corpora.common import AudioFinder, Entry, Prepared, measure, read_lines, require_folder
from asr.errors import CorpusError

SUBSETS = (
    *("train-clean-100", "train-clean-360", "train-other-500"),
    *("dev-clean", "dev-other", "test-clean", "test-other"),
    *("train-clean-5", "dev-clean-2"),
)


def prepare(root: Path) -> Prepared:
    """Read whichever subsets are under `root`, which is the folder LibriSpeech or the one that holds it.

    Raises CorpusError where there is none.
    """
    require_folder(root, "LibriSpeech")
    for folder in (root, root / "LibriSpeech"):
        subsets = [subset for subset in SUBSETS if (folder / subset).is_dir()]
        if subsets:
            return measure({subset: _entries(folder / subset) for subset in subsets})
    raise CorpusError(
        f"{root}: no LibriSpeech subset in it; expected one or more of {', '.join(SUBSETS)}"
    )


def _entries(subset: Path) -> Iterator[Entry]:
    finder = AudioFinder()
    for chapter in sorted(path for path in subset.glob("*/*") if path.is_dir()):
        speaker = chapter.parent.name
        seen = set()
        for transcripts in sorted(chapter.glob("*.trans.txt")):
            for line in read_lines(transcripts):
                if line.strip():
                    id, _, text = line.strip().partition(" ")
                    seen.add(id)
                    yield Entry(id, finder.find(chapter / id), text, speaker, chapter / id)
        for stem, audio in finder.stems(chapter).items():
            if stem not in seen:
                yield Entry(stem, audio, None, speaker)
