"""asr.tokenizer: characters to ids and back, the same in every process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr import text
from asr.errors import AsrError
from asr.text import ALPHABET
from asr.tokenizer import Tokenizer

ROOT = Path(__file__).resolve().parents[1]
SPECIAL = [Tokenizer.blank, Tokenizer.pad, Tokenizer.sos, Tokenizer.eos]


@given(st.text(ALPHABET))
def test_decode_of_encode_is_the_text(words: str) -> None:
    tokenizer = Tokenizer()
    assert tokenizer.decode(tokenizer.encode(words)) == words


@given(st.sets(st.characters(), min_size=1), st.data())
def test_decode_of_encode_is_the_text_for_any_alphabet(
    alphabet: set[str], data: st.DataObject
) -> None:
    tokenizer = Tokenizer("".join(sorted(alphabet)))
    words = data.draw(st.text(st.sampled_from(sorted(alphabet))))
    ids = tokenizer.encode(words)
    assert tokenizer.decode(ids) == words
    assert all(tokenizer.first_character <= i < tokenizer.size for i in ids)
    assert Tokenizer.from_dict(tokenizer.to_dict()).encode(words) == ids


@given(st.text())
def test_whatever_the_normaliser_gives_can_be_encoded(raw: str) -> None:
    normalised = text.normalise(raw)
    assert Tokenizer().decode(Tokenizer().encode(normalised)) == normalised


def test_token_ids_are_the_same_in_every_process() -> None:
    program = (
        "import json; from asr.tokenizer import Tokenizer as T; t = T();"
        "print(json.dumps([t.blank, t.pad, t.sos, t.eos, t.size, t.encode(t.alphabet)]))"
    )
    results = []
    for seed in ("0", "1", "4242"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", program]
        output = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=True, timeout=60
        )
        results.append(json.loads(output.stdout))
    assert results[0] == results[1] == results[2]
    assert results[0] == [0, 1, 2, 3, 32, list(range(4, 32))]


def test_the_four_special_ids_differ_and_are_no_characters() -> None:
    assert len(set(SPECIAL)) == 4
    assert not set(SPECIAL) & set(Tokenizer().encode(ALPHABET))
    assert Tokenizer().size == 4 + len(ALPHABET) == 4 + len(set(Tokenizer().encode(ALPHABET)))


def test_special_ids_are_skipped_when_decoding() -> None:
    tokenizer = Tokenizer("ab")
    assert tokenizer.decode([2, 4, 0, 5, 1, 4, 3]) == "aba"
    assert tokenizer.decode([]) == ""


@pytest.mark.parametrize("character", ["é", "A", "1", "\n"])
def test_a_character_outside_the_alphabet_is_named(character: str) -> None:
    with pytest.raises(AsrError) as error:
        Tokenizer().encode(f"caf{character}")
    assert repr(character) in str(error.value)
    assert repr(ALPHABET) in str(error.value)


@pytest.mark.parametrize("alphabet", ["", "aba"])
def test_an_alphabet_that_is_empty_or_repeats_is_refused(alphabet: str) -> None:
    with pytest.raises(AsrError, match=f"alphabet {alphabet!r}"):
        Tokenizer(alphabet)


def test_a_kind_of_tokenizer_that_is_not_known_is_refused_by_name() -> None:
    with pytest.raises(AsrError, match=r"'bpe'.*characters"):
        Tokenizer.from_dict({"kind": "bpe", "alphabet": "ab"})
