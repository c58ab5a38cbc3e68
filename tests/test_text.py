"""The normaliser: what each rule does, and that it holds for any text."""

import subprocess
import sys

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from asr.text import ALPHABET, normalise

CASES = {
    "Hello,  World!\n": "hello world",
    "It’s the dogs’ ‘bone’, isn´t it, isn`t it?": "it's the dogs bone isn't it isn't it",
    "'tis rock 'n' roll''s o'clock": "tis rock n roll s o'clock",
    "well-known—truly": "well known truly",
    "Café naïve Ærø ﬁne Straße Łódź": "cafe naive aero fine strasse lodz",
    "Mr. Dick, Mrs. Hale and Dr Who": "mister dick missus hale and doctor who",
    "St. Paul lives on Main St.": "saint paul lives on main street",
    "mrs etc. drum smart cost. MR0": "missus et cetera drum smart cost mister zero",
    "Oh no. No. 7": "oh no number seven",
    "Smith & Sons, Q&A": "smith and sons q and a",
    "in 1855 and 1805, in 1900": "in eighteen fifty five and eighteen oh five in nineteen hundred",
    "1,855 men, 629 women": "one thousand eight hundred and fifty five men six hundred and twenty nine women",
    "the 21st, the 3RD and the 1,000th": "the twenty first the third and the one thousandth",
    "the 1950s and 1990's, 20s": "the nineteen fifties and nineteen nineties twenties",
    "3.14 or .5 or 1855.5": "three point one four or point five or"
    " one thousand eight hundred and fifty five point five",
    "He came on the 1st. It was the 21st.": "he came on the first it was the twenty first",
    "6ft. tall, 12 ft or 1 ft. Ft. Worth": "six feet tall twelve feet or one foot fort worth",
    "-$5, $.50, 5€, $5-10": "minus five dollars fifty cents five euros five dollars ten",
    "$5.20, £1, $0.99": "five dollars and twenty cents one pound ninety nine cents",
    "$5 million and £2.5 billion": "five million dollars and two point five billion pounds",
    "50% or 1855 %": "fifty percent or one thousand eight hundred and fifty five percent",
    "-5 degrees, F-16, 10-12": "minus five degrees f sixteen ten twelve",
    "agent 007 at 10:05": "agent oh oh seven at ten oh five",
    "MP3 in 2015": "mp three in two thousand and fifteen",
    "5½ or ½": "five and a half or a half",
    "wait… \u201cstop\u201d\u00a0now\u200b\u00ad.": "wait stop now",
    "Москва 你好": "",
    "": "",
}


@pytest.mark.parametrize(("text", "expected"), CASES.items())
def test_each_rule(text: str, expected: str) -> None:
    assert normalise(text) == expected


def test_long_digit_strings_are_read_digit_by_digit() -> None:
    for sign, count in (("", 400), ("$", 5000)):
        words = normalise(sign + "9" * count).split()
        assert words == ["nine"] * count + (["dollars"] if sign else [])


_NUMBERS = st.text(alphabet="0123456789$£€%&,.'-:/ ½strdnhmo", max_size=30)


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(max_size=60), _NUMBERS))
@example("0MR")
def test_normalising_twice_is_normalising_once(text: str) -> None:
    once = normalise(text)
    assert normalise(once) == once
    assert set(once) <= set(ALPHABET)
    assert once == " ".join(once.split())
    assert all(word[0] != "'" and word[-1] != "'" for word in once.split())


def test_plain_text_does_not_import_num2words() -> None:
    code = "import sys; from asr.text import normalise; normalise('Plain text.'); sys.exit('num2words' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
