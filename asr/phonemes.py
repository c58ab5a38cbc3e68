"""English text in, phonemes out: what a CTC head over phonemes learns, and what the words of a search sound like.

The pronunciations that training needs are CMUdict's (http://www.speech.cs.cmu.edu/cgi-bin/cmudict, BSD) as the package
pocketsphinx ships them. A search has a dictionary of its own, in the same form.
"""

import gzip
import zlib
from functools import cache
from pathlib import Path

from asr.errors import ConfigError

BLANK = 0  # of CTC
UNKNOWN = 1  # a word that the dictionary does not have
SYMBOLS = (
    *("AA", "AE", "AH", "AO", "AW", "AY", "B", "CH", "D", "DH", "EH", "ER", "EY", "F", "G", "HH", "IH", "IY", "JH"),
    *("K", "L", "M", "N", "NG", "OW", "OY", "P", "R", "S", "SH", "T", "TH", "UH", "UW", "V", "W", "Y", "Z", "ZH"),
)  # fmt: skip
SIZE = 2 + len(SYMBOLS)
GZIP = b"\x1f\x8b"
COMMENT = ";;;"


def encode(text: str) -> tuple[int, ...]:
    """Normalised text to phoneme ids: of every word its first pronunciation, without stress, or UNKNOWN.

    Raises ConfigError where the dictionary is not installed.
    """
    known = dictionary()
    return tuple(p for word in text.split() for p in known.get(word, (UNKNOWN,)))


def load(path: str | Path) -> dict[str, tuple[int, ...]]:
    """Read a pronouncing dictionary, gzip or plain: a word and its phonemes a line, as CMUdict has them.

    Stress is left out. The first of a word's pronunciations counts; those that CMUdict numbers, as read(2), do not.
    Raises ConfigError naming the file, and the line where it is one.
    """
    try:
        content = Path(path).read_bytes()
        text = (gzip.decompress(content) if content.startswith(GZIP) else content).decode(
            "utf-8-sig"
        )
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or "neither gzip nor UTF-8 text"
        raise ConfigError(f"{path}: cannot read pronunciations: {reason}") from error
    ids = {symbol + stress: i for i, symbol in enumerate(SYMBOLS, 2) for stress in ("", *"012")}
    found: dict[str, tuple[int, ...]] = {}
    for number, line in enumerate(text.splitlines(), 1):
        word, *symbols = line.partition(" #")[0].split() or [COMMENT]
        if word.startswith(COMMENT) or word.endswith(")"):
            continue
        try:
            spoken = tuple(map(ids.__getitem__, symbols))
        except KeyError as error:
            raise ConfigError(
                f"{path}:{number}: {error} is no phoneme of CMUdict: allowed are {', '.join(SYMBOLS)}"
            ) from error
        if not spoken:
            raise ConfigError(f"{path}:{number}: {word!r} has no phonemes")
        found.setdefault(word.lower(), spoken)
    return found


@cache
def dictionary() -> dict[str, tuple[int, ...]]:
    """CMUdict. Raises ConfigError where the package that ships it is not installed."""
    return load(cmudict())


def cmudict() -> Path:
    """CMUdict's file, as the package pocketsphinx ships it. Raises ConfigError where that is not installed."""
    try:
        import pocketsphinx
    except ImportError as error:
        raise ConfigError(
            "CMUdict's pronunciations are in the package pocketsphinx: pip install pocketsphinx"
        ) from error
    return Path(pocketsphinx.get_model_path("en-us/cmudict-en-us.dict"))
