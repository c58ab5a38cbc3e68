"""A Listen-Attend-Spell speech recognizer: `asr.load().transcribe("talk.wav").text`.

Public names only. They are loaded when first used, so that `import asr` costs nothing and does nothing.

>>> import asr
>>> recognizer = asr.load()
>>> transcript = recognizer.transcribe("data/samples/horse.opus")
>>> round(transcript.duration, 1), len(transcript.segments)
(3.5, 1)
>>> for result in recognizer.transcribe_batch(["data/samples/fire.opus", "missing.wav"]):
...     print(type(result).__name__)
Transcript
AudioError
>>> for segment in recognizer.stream("data/samples/fire.opus"):  # of hours, in flat memory
...     print(type(segment.words[0]).__name__)
Word
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asr.decoding import DecodingOptions, HotWords, Ranking, Search
    from asr.errors import AsrError
    from asr.recognizer import Recognizer, load, transcribe
    from asr.transcript import Failure, Segment, Transcript, Word
    from asr.vad import VadOptions

__all__ = [
    "AsrError",
    "DecodingOptions",
    "Failure",
    "HotWords",
    "Ranking",
    "Recognizer",
    "Search",
    "Segment",
    "Transcript",
    "VadOptions",
    "Word",
    "load",
    "transcribe",
]

_HOMES = {
    "AsrError": "asr.errors",
    "DecodingOptions": "asr.decoding",
    "Failure": "asr.transcript",
    "HotWords": "asr.decoding",
    "Ranking": "asr.decoding",
    "Recognizer": "asr.recognizer",
    "Search": "asr.decoding",
    "Segment": "asr.transcript",
    "Transcript": "asr.transcript",
    "VadOptions": "asr.vad",
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
