"""asr.phonemes: words to the dictionary's pronunciations, and one clear line where it is missing."""

import sys

import pytest

from asr import phonemes
from asr.errors import ConfigError
from asr.phonemes import SIZE, SYMBOLS, UNKNOWN, encode


def spell(text: str) -> str:
    return " ".join("?" if i == UNKNOWN else SYMBOLS[i - 2] for i in encode(text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("hello world", "HH AH L OW W ER L D"),
        ("it's two", "IH T S T UW"),
        ("read", "R EH D"),  # the first of two pronunciations
        ("a qzx dog", "AH ? D AO G"),
    ],
)
def test_words_have_the_dictionarys_phonemes(text: str, expected: str) -> None:
    pytest.importorskip("pocketsphinx", reason="the pronouncing dictionary is not installed")
    assert spell(text) == expected


def test_all_ids_are_within_the_heads_size() -> None:
    pytest.importorskip("pocketsphinx", reason="the pronouncing dictionary is not installed")
    ids = {i for pronunciation in phonemes.dictionary().values() for i in pronunciation}
    assert ids == set(range(2, SIZE))


def test_a_missing_dictionary_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pocketsphinx", None)
    phonemes.dictionary.cache_clear()
    with pytest.raises(ConfigError, match=r"pip install pocketsphinx"):
        encode("hello")
