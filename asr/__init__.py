"""A Listen-Attend-Spell speech recognizer: `asr.load().transcribe("talk.wav").text`.

Public names only. They are loaded when first used, so that `import asr` costs nothing and does nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asr.recognizer import Recognizer, load, transcribe
    from asr.transcript import Segment, Transcript, Word

__all__ = ["Recognizer", "Segment", "Transcript", "Word", "load", "transcribe"]

_HOMES = {
    "Recognizer": "asr.recognizer",
    "Segment": "asr.transcript",
    "Transcript": "asr.transcript",
    "Word": "asr.transcript",
    "load": "asr.recognizer",
    "transcribe": "asr.recognizer",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'asr' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
