"""asr.phonemes: words to the dictionary's pronunciations, and one clear line where it is missing."""

import gzip
import shutil
import sys
from pathlib import Path

import pytest
from fakes import arpa

from asr import phonemes
from asr.errors import ConfigError
from asr.phonemes import SIZE, SYMBOLS, UNKNOWN, encode
from recipes.lm import pronounce


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


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_a_dictionary_is_read_as_cmudict_writes_it(tmp_path: Path, packed: bool) -> None:
    text = b";;; a comment\nREAD  R EH1 D\nread(2)  R IY1 D\n\nio IY OW # place, greek\nio AY OW\n"
    path = tmp_path / "words"
    path.write_bytes(gzip.compress(text) if packed else text)
    names = {
        word: " ".join(SYMBOLS[i - 2] for i in spoken)
        for word, spoken in phonemes.load(path).items()
    }
    assert names == {"read": "R EH D", "io": "IY OW"}


def test_a_byte_order_mark_is_part_of_no_word(tmp_path: Path) -> None:
    (tmp_path / "words").write_bytes(b"\xef\xbb\xbfread  R EH1 D\n")
    assert list(phonemes.load(tmp_path / "words")) == ["read"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, r"words: cannot read pronunciations: No such file"),
        (b"\x1f\x8bno", r"words: cannot read pronunciations: neither gzip nor UTF-8 text"),
        (b"\xff\xfe", r"words: cannot read pronunciations: neither gzip nor UTF-8 text"),
        (b"a AH\nb BE\n", r"words:2: 'BE' is no phoneme of CMUdict: allowed are AA, AE,"),
        (b"a AH\nbe\n", r"words:2: 'be' has no phonemes"),
    ],
)
def test_what_is_no_dictionary_is_named_with_its_line(
    tmp_path: Path, content: bytes | None, reason: str
) -> None:
    if content is not None:
        (tmp_path / "words").write_bytes(content)
    with pytest.raises(ConfigError, match=reason):
        phonemes.load(tmp_path / "words")


def test_words_that_cmudict_lacks_are_pronounced_by_rule(tmp_path: Path) -> None:
    pytest.importorskip("pocketsphinx", reason="the pronouncing dictionary is not installed")
    if shutil.which("flite") is None:
        pytest.skip("flite is not installed")
    found = pronounce.pronunciations(["horse", "scrooge", "shoolbred's"])
    assert found["horse"] == ("HH", "AO", "R", "S")
    assert found["scrooge"] == ("S", "K", "R", "UW", "JH")
    assert found["shoolbred's"][:3] == ("SH", "UW", "L")
    (tmp_path / "words.arpa").write_text(arpa("horse", "scrooge"), encoding="utf-8")
    output = tmp_path / "words.gz"
    assert pronounce.main([str(tmp_path / "words.arpa"), "--output", str(output)]) == 0
    assert set(phonemes.load(output)) == {"horse", "scrooge"}
    (tmp_path / "list").write_text(
        "Zürich\ngnomish\nNATO\nhrs\nxcvi\nclxii's\nI\nMr\nGnomish's\n", encoding="utf-8"
    )
    more = ["--words", str(tmp_path / "list"), "--output", str(output)]
    assert pronounce.main([str(tmp_path / "words.arpa"), *more]) == 0
    found = set(phonemes.load(output))
    assert found == {"horse", "scrooge", "zurich", "gnomish", "gnomish's", "mister"}


def test_a_word_list_that_cannot_be_read_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "words.arpa").write_text(arpa("horse"), encoding="utf-8")
    (tmp_path / "latin").write_bytes("Zürich\n".encode("latin-1"))
    for name, reason in (("latin", "latin: a word list must be UTF-8"), ("none", "none")):
        more = ["--words", str(tmp_path / name), "--output", str(tmp_path / "out.gz")]
        assert pronounce.main([str(tmp_path / "words.arpa"), *more]) == 1
        assert reason in capsys.readouterr().err
        assert not (tmp_path / "out.gz").exists()


def test_without_flite_the_recipe_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigError, match=r"flite is not installed: apt-get install flite"):
        pronounce.by_rule(["scrooge"])
