"""VCTK: txt/SPEAKER/*.txt and wav48/SPEAKER/* (or wav48_silence_trimmed, two microphones) in, one split out."""

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

_AUDIO_FOLDERS = ("wav48_silence_trimmed", "wav48", "wav16", "wav")
# Version 0.92 has both; two speakers lack the second. Version 0.80 has names without a microphone.
_MICROPHONES = ("_mic2", "_mic1", "")


def prepare(root: Path) -> Prepared:
    """Read VCTK 0.80 or 0.92, of two microphones the second; raises CorpusError where a folder is missing."""
    require_folder(root, "VCTK")
    audio = next((root / name for name in _AUDIO_FOLDERS if (root / name).is_dir()), None)
    if audio is None or not (root / "txt").is_dir():
        raise CorpusError(
            f"{root}: not VCTK's layout; expected txt/ and one of {', '.join(_AUDIO_FOLDERS)}"
        )
    return measure({ALL: _entries(root / "txt", audio)})


def _entries(texts: Path, audio: Path) -> Iterator[Entry]:
    finder = AudioFinder()
    speakers = {
        path.name for folder in (texts, audio) for path in folder.iterdir() if path.is_dir()
    }
    for speaker in sorted(speakers):
        seen = set()
        for path in sorted((texts / speaker).glob("*.txt")):
            seen.add(path.stem)
            places = [audio / speaker / f"{path.stem}{microphone}" for microphone in _MICROPHONES]
            found = next((file for place in places if (file := finder.find(place))), None)
            yield Entry(path.stem, found, " ".join(read_lines(path)).strip(), speaker, places[-1])
        for stem, file in finder.stems(audio / speaker).items():
            id = stem.removesuffix("_mic1").removesuffix("_mic2")
            if id not in seen:
                seen.add(id)
                yield Entry(id, file, None, speaker)
