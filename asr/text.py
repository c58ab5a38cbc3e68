"""Any English text in, the alphabet's text out: the one normaliser, used for training and for scoring alike.

The spelling follows LibriSpeech's transcripts: a-z, apostrophes inside words, single spaces, numbers and common
titles written out ("mister", "missus", "doctor", "saint"), "one hundred and twenty" with its "and".
"""

import re
import unicodedata

ALPHABET = " 'abcdefghijklmnopqrstuvwxyz"

# Before decomposition: the acute accent and others would fall apart into a space and a mark.
_BEFORE = str.maketrans(
    dict.fromkeys("\u2018\u2019\u201b\u02bc\u02b9\u2032\u00b4\uff07", "'")
    | {"\u2212": "-", "\u2122": "", "\u2120": "", "\u00ba": "", "\u00aa": ""}
)
_LETTERS = str.maketrans(
    {
        "ß": "ss",
        "æ": "ae",
        "œ": "oe",
        "ø": "o",
        "ł": "l",
        "đ": "d",
        "ð": "d",
        "þ": "th",
        "ı": "i",
        "ŋ": "ng",
    }
)
_FRACTIONS = {
    "½": "a half",
    "¼": "a quarter",
    "¾": "three quarters",
    "⅓": "a third",
    "⅔": "two thirds",
}
_FRACTION = re.compile(r"(?<=[0-9])(\s?)([½¼¾⅓⅔])|([½¼¾⅓⅔])")

# The unambiguous ones of the list that LJ Speech publishes for its transcripts.
_ABBREVIATIONS = {
    "mr": "mister",
    "mrs": "missus",
    "dr": "doctor",
    "etc": "et cetera",
    "jr.": "junior",
    "sr.": "senior",
    "capt.": "captain",
    "col.": "colonel",
    "gen.": "general",
    "lt.": "lieutenant",
    "maj.": "major",
    "sgt.": "sergeant",
    "rev.": "reverend",
    "hon.": "honorable",
    "esq.": "esquire",
    "ltd.": "limited",
    "co.": "company",
    "ft.": "fort",
    "vs.": "versus",
}
_ABBREVIATION = re.compile(
    r"(?<![a-z0-9])(?<![a-z]')(?:(mrs|mr|dr|etc)(?![a-z]|'[a-z])\.?"
    r"|(?:jr|sr|capt|col|gen|lt|maj|sgt|rev|hon|esq|ltd|co|ft|vs)\.(?!\w)"
    r"|(st)\.(?=(\s+[a-z])?)|(no)\.(?=\s?[0-9]))"
)

_FEET = re.compile(r"(?<![0-9.,])(1)\s?ft\b\.?|(?<=[0-9])\s?ft\b\.?")

_DIGIT = re.compile(r"[0-9]")
_WHOLE = r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?![0-9])"
_MONEY = re.compile(
    rf"([$£€])\s?(?=\.?[0-9])({_WHOLE})?(?:\.([0-9]+))?(\s?(?:hundred|thousand|million|billion|trillion)\b)?"
)
_EUROS_AFTER = re.compile(rf"(?<![$£€])({_WHOLE}(?:\.[0-9]+)?)\s?€(?!\s?[0-9])")
_MINUS = re.compile(r"(?<![^\s(])-(?=[$£€]?\.?[0-9])")
_ORDINAL = re.compile(rf"({_WHOLE})(?:st|nd|rd|th)\b")
_PLURAL = re.compile(rf"({_WHOLE})'?s\b")
_DECIMAL = re.compile(rf"({_WHOLE})?(?<![.])\.([0-9]+)")
_INTEGER = re.compile(rf"({_WHOLE})(\s?%)?")
_UNITS = {
    "$": (("dollar", "dollars"), ("cent", "cents")),
    "£": (("pound", "pounds"), ("penny", "pence")),
    "€": (("euro", "euros"), ("cent", "cents")),
}

_OUTSIDE = re.compile(r"[^a-z']+")
_LOOSE_APOSTROPHE = re.compile(r"(?<![a-z])'|'(?![a-z])")

# Longer digit strings are numbers of things, not amounts: they are read digit by digit.
_MAX_DIGITS = 15


def normalise(text: str) -> str:
    """Return `text` in lower-case a-z, apostrophes inside words and single spaces, with numbers as words.

    Accented letters lose their accents; what has no place in the alphabet (other scripts, punctuation, symbols)
    separates words and is dropped. normalise(normalise(x)) equals normalise(x). Never raises.
    """
    if not text.isascii():
        text = _to_ascii(text)
    text = text.lower().replace("`", "'")
    text = _FEET.sub(lambda match: "1 foot" if match[1] else " feet", text)
    text = _ABBREVIATION.sub(_expand_abbreviation, text)
    if _DIGIT.search(text):
        text = _spell_numbers(text)
        text = _ABBREVIATION.sub(_expand_abbreviation, text)  # which stood at a digit
    text = text.replace("&", " and ").replace("%", " percent ")
    text = _OUTSIDE.sub(" ", text)
    if "'" in text:
        text = _LOOSE_APOSTROPHE.sub(" ", text)
    return " ".join(text.split())


def _to_ascii(text: str) -> str:
    text = _FRACTION.sub(_expand_fraction, text)
    text = unicodedata.normalize("NFKD", text.translate(_BEFORE)).lower().translate(_LETTERS)
    return "".join(
        char
        for char in text
        if char < "\x80" or unicodedata.category(char) not in ("Mn", "Me", "Cf")
    )


def _expand_fraction(match: re.Match[str]) -> str:
    if match[2]:
        return f" and {_FRACTIONS[match[2]]} "
    return f" {_FRACTIONS[match[3]]} "


def _expand_abbreviation(match: re.Match[str]) -> str:
    if match[1]:
        return _ABBREVIATIONS[match[1]]
    if match[2]:
        return "saint" if match[3] else "street"
    return "number" if match[4] else _ABBREVIATIONS[match[0]]


def _spell_numbers(text: str) -> str:
    text = _MINUS.sub(" minus ", text)
    text = _EUROS_AFTER.sub(r"€\1", text)
    text = _MONEY.sub(_spell_money, text)
    text = _ORDINAL.sub(_spell_ordinal, text)
    text = _PLURAL.sub(_spell_plural, text)
    text = _DECIMAL.sub(_spell_decimal, text)
    return _INTEGER.sub(_spell_integer, text)


def _spell_money(match: re.Match[str]) -> str:
    sign, whole, decimals, magnitude = match.groups()
    whole = whole or "0"
    (one, many), (minor_one, minor_many) = _UNITS[sign]
    if magnitude or (decimals and len(decimals) != 2):
        amount = _cardinal(whole) + (_point(decimals) if decimals else "")
        return f" {amount} {magnitude or ''} {many} "
    major, minor = int(whole.replace(",", "")[:_MAX_DIGITS]), int(decimals or 0)
    parts = []
    if major or not minor:
        parts.append(f"{_cardinal(whole)} {one if major == 1 else many}")
    if minor:
        parts.append(f"{_cardinal(str(minor))} {minor_one if minor == 1 else minor_many}")
    return f" {' and '.join(parts)} "


def _spell_ordinal(match: re.Match[str]) -> str:
    digits = match[1].replace(",", "")
    if len(digits) > _MAX_DIGITS:
        return f" {_cardinal(digits)} th "
    return f" {_num2words(int(digits), 'ordinal')} "


def _spell_plural(match: re.Match[str]) -> str:
    words = _year_or_cardinal(match[1])
    if words.endswith("y"):
        return f" {words[:-1]}ies "
    return f" {words}{'es' if words.endswith('x') else 's'} "


def _spell_decimal(match: re.Match[str]) -> str:
    return f" {_cardinal(match[1]) if match[1] else ''}{_point(match[2])} "


def _spell_integer(match: re.Match[str]) -> str:
    if match[2]:
        return f" {_cardinal(match[1])} percent "
    return f" {_year_or_cardinal(match[1])} "


def _point(decimals: str) -> str:
    return " point " + " ".join(_cardinal(digit) for digit in decimals)


def _year_or_cardinal(number: str) -> str:
    if len(number) == 4 and "1100" <= number <= "1999":
        return _num2words(int(number), "year")
    return _cardinal(number)


def _cardinal(number: str) -> str:
    digits = number.replace(",", "")
    if len(digits) == 1 or (digits[0] != "0" and len(digits) <= _MAX_DIGITS):
        return _num2words(int(digits), "cardinal")
    return " ".join("oh" if digit == "0" else _cardinal(digit) for digit in digits)


def _num2words(number: int, form: str) -> str:
    from num2words import num2words  # slow to import, and most transcripts have no digits

    return str(num2words(number, to=form)).replace("-", " ").replace(",", "")
