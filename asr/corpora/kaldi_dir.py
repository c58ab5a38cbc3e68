"""A Kaldi data directory: wav.scp, text and, if there, utt2spk in, one split out."""

from collections.abc import Iterator
from pathlib import Path

from asr.corpora.common import (
    ALL,
    AudioFinder,
    Entry,
    Prepared,
    Problem,
    measure,
    read_lines,
    require_folder,
)
from asr.errors import CorpusError


def prepare(root: Path) -> Prepared:
    """Read a Kaldi data directory; relative paths of wav.scp are taken from it or else from the working folder.

    Raises CorpusError naming the line for commands ("... |") and for a segments file: neither is supported.
    """
    require_folder(root, "Kaldi")
    if (root / "segments").exists():
        raise CorpusError(
            f"{root / 'segments'}: segments are not supported; cut the recordings into one file each"
        )
    return measure({ALL: _entries(root)})


def _entries(root: Path) -> Iterator[Entry | Problem]:
    finder = AudioFinder()
    audio, texts = _read_map(root / "wav.scp"), _read_map(root / "text")
    speakers = _read_map(root / "utt2spk") if (root / "utt2spk").exists() else {}
    for id, path in audio.items():
        if path.endswith("|"):
            raise CorpusError(
                f"{root / 'wav.scp'}: {id}: a command ({path}) is not supported, only file names"
            )
        here = root / path
        found = finder.find(here) or finder.find(Path(path))
        yield Entry(id, found, texts.get(id), speakers.get(id), here)
    for id in texts.keys() - audio.keys():
        yield Problem(id, root / "text", f"{id}: no recording of this name in wav.scp")


def _read_map(path: Path) -> dict[str, str]:
    fields = (line.split(None, 1) for line in read_lines(path) if line.strip())
    return {key: value[0].strip() if value else "" for key, *value in fields}
