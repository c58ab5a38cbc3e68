"""English text in, phonemes out: labels of an auxiliary loss that helps the encoder to begin hearing.

The pronunciations are CMUdict's (http://www.speech.cs.cmu.edu/cgi-bin/cmudict, BSD) as the package pocketsphinx ships
them. Only training needs them, and only with model.phonemes.
"""

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


def encode(text: str) -> tuple[int, ...]:
    """Normalised text to phoneme ids: of every word its first pronunciation, without stress, or UNKNOWN.

    Raises ConfigError where the dictionary is not installed.
    """
    dictionary = _dictionary()
    return tuple(p for word in text.split() for p in dictionary.get(word, (UNKNOWN,)))


@cache
def _dictionary() -> dict[str, tuple[int, ...]]:
    try:
        import pocketsphinx
    except ImportError as error:
        raise ConfigError(
            "model.phonemes needs the pronunciations of the package pocketsphinx: pip install pocketsphinx"
        ) from error
    path = Path(pocketsphinx.get_model_path("en-us/cmudict-en-us.dict"))
    ids = {symbol: i for i, symbol in enumerate(SYMBOLS, 2)}
    lines = (line.split() for line in path.read_text(encoding="utf-8").splitlines())
    return {word: tuple(ids[symbol] for symbol in symbols) for word, *symbols in lines}
