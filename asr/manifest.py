"""Manifests: JSON lines, one utterance a line, in; `Utterance` values out, and back.

The keys are NeMo's (audio_filepath, duration, text), with speaker and id added. `text` is the corpus's own
text: the normaliser runs where text is encoded for training or compared for scoring, so raw text is never lost.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asr.errors import ManifestError
from asr.files import atomic_write


@dataclass(frozen=True)
class Utterance:
    """One recording with its transcript; `duration` in seconds, `speaker` None where it is unknown."""

    id: str
    audio: Path
    duration: float
    text: str
    speaker: str | None = None


def read(path: str | Path) -> list[Utterance]:
    """Read a manifest; relative audio paths are taken from the manifest's folder.

    Where a line has no id, the audio's path without its extension is the id: two folders may hold files of one name.

    Raises ManifestError naming the file, and the line where one is wrong.
    """
    return [utterance for _, utterance in numbered(path)]


def numbered(path: str | Path) -> list[tuple[int, Utterance]]:
    """Read a manifest as `read` does, each utterance with the number of its line."""
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ManifestError(f"{path}: cannot read manifest: {reason}") from error
    return [(n, _parse(line, path, n)) for n, line in enumerate(lines, 1) if line.strip()]


def write(path: str | Path, utterances: Iterable[Utterance]) -> None:
    """Write a manifest, whole or not at all, with absolute audio paths."""
    with atomic_write(path) as file:
        for utterance in utterances:
            file.write(json.dumps(_to_dict(utterance), ensure_ascii=False) + "\n")


def _parse(line: str, path: Path, number: int) -> Utterance:
    try:
        entry = json.loads(line)
        audio = Path(entry["audio_filepath"])
        if entry["text"] is None:
            raise ValueError('text is null; an empty text is ""')
        return Utterance(
            id=str(audio.with_suffix("") if entry.get("id") is None else entry["id"]),
            audio=audio if audio.is_absolute() else path.parent / audio,
            duration=float(entry["duration"]),
            text=str(entry["text"]),
            speaker=None if entry.get("speaker") is None else str(entry["speaker"]),
        )
    except json.JSONDecodeError as error:
        raise ManifestError(f"{path}:{number}: not a JSON object: {error.msg}") from error
    except KeyError as error:
        keys = "audio_filepath, duration and text"
        raise ManifestError(f"{path}:{number}: no key {error}; a line needs {keys}") from error
    except (TypeError, ValueError, AttributeError) as error:
        raise ManifestError(f"{path}:{number}: {error}") from error


def _to_dict(utterance: Utterance) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "audio_filepath": str(utterance.audio.absolute()),
        "duration": round(utterance.duration, 4),
        "text": utterance.text,
        "id": utterance.id,
    }
    if utterance.speaker is not None:
        entry["speaker"] = utterance.speaker
    return entry
