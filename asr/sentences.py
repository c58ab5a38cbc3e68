"""Text files and manifests in, normalised sentences out, each with its file and line: what language models learn from.

A text without blank lines has an utterance a line. One with blank lines is a book: its paragraphs are cut into
sentences, and those of more than MAX_WORDS words at their clauses, so that they are as long as utterances are.
"""

import gzip
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from asr import manifest
from asr.errors import ConfigError, CorpusError
from asr.text import normalise

MAX_WORDS = 35

_LINES = re.compile(r"(.+):([0-9]+)-([0-9]+)")
_PARAGRAPH = re.compile(r"(?:[^\n]*\S[^\n]*\n?)+")
_PICTURE = re.compile(r"\[Illustration[^\]]*\]")
_SENTENCE = re.compile(r".+?(?:[.!?]['\"\u2019\u201d)\]_]*(?=\s)|\Z)", re.DOTALL)
_ABBREVIATED = re.compile(
    r"(?:^|[\s(\"\u201c\u2014-])(?:[A-Z]|Mr|Mrs|Messrs|Dr|St|No|Col|Capt|Gen|Lt|Rev|Hon|Esq|vs|i\.e|e\.g)\.\Z"
)
_VISIBLE = re.compile(r"\S")
_CLAUSE = re.compile(r"(?<=[,;:.!?\u2014])\s+|\s*(?:--|\u2014)\s*")


class Sentence(NamedTuple):
    """One normalised sentence, not empty, and the line of the file on which it begins."""

    text: str
    path: str
    line: int


def read(paths: Iterable[str | Path], skip: Sequence[str] = ()) -> list[Sentence]:
    """All sentences of texts (.gz or not) and manifests (.jsonl, or what begins with a JSON object), in their order.

    `skip` leaves out the sentences that begin on some lines of a file: "books.txt.gz:1200-5600".

    Raises CorpusError naming the file that cannot be read, is not UTF-8 or has no words; ManifestError likewise;
    ConfigError for a `skip` that names none of the files, or lines of which none is there.
    """
    names = [str(path) for path in paths]
    skipped = line_ranges(skip, names)
    last: dict[str, int] = {}  # line of each file, by its name
    found: list[Sentence] = []
    for path in names:
        before, name = len(found), Path(path).name
        texts = _manifest_or_text(path)
        spoken = [line for text, line in texts if text.strip()]
        last[name] = max([last.get(name, 0), *spoken])
        without = skipped.get(name, [])
        for text, line in texts:
            if any(line in lines for lines in without):
                continue
            if normalised := normalise(text):
                found.append(Sentence(normalised, path, line))
        if len(found) == before:
            raise CorpusError(f"{path}: no words in it")
    for name, ranges in skipped.items():
        if beyond := [lines for lines in ranges if lines.start > last[name]]:
            raise ConfigError(
                f"skip {name}:{beyond[0].start}-{beyond[0].stop - 1}: its last text is on line {last[name]}"
            )
    return found


def read_words(path: str | Path) -> list[str]:
    """The normalised words of a word list or a pronunciation dictionary: each line begins with one.

    "word(2)", a dictionary's second pronunciation, is the word again. Raises CorpusError as `read` does.
    """
    first = (line.split()[0] for line in _text(str(path)).splitlines() if line.strip())
    normalised = (normalise(word.partition("(")[0]) for word in first)
    words = list(dict.fromkeys(word for word in normalised if word and " " not in word))
    if not words:
        raise CorpusError(f"{path}: no words in it")
    return words


def line_ranges(skip: Sequence[str], paths: Sequence[str]) -> dict[str, list[range]]:
    """The lines to leave out, by the name of the file: "books.txt:1200-5600". Raises ConfigError as `read` does."""
    names = {Path(path).name for path in paths}
    ranges: dict[str, list[range]] = {}
    for entry in skip:
        match = _LINES.fullmatch(entry)
        if match is None or not 1 <= int(match[2]) <= int(match[3]):
            raise ConfigError(f"skip {entry!r}: must be FILE:FIRST-LAST, as in books.txt:120-560")
        if match[1] not in names:
            raise ConfigError(f"skip {entry!r}: {match[1]} is not among {', '.join(sorted(names))}")
        ranges.setdefault(match[1], []).append(range(int(match[2]), int(match[3]) + 1))
    return ranges


def _manifest_or_text(path: str) -> list[tuple[str, int]]:
    """What is said or written in a file, piece by piece, with the lines on which they begin."""
    text = "" if path.endswith(".jsonl") else _text(path)
    if not path.endswith(".jsonl") and not _is_json_object(text.lstrip().partition("\n")[0]):
        return list(_pieces(text))
    if path.endswith(".gz"):
        raise CorpusError(f"{path}: a manifest; unpack it, manifests are read as they are")
    return [(utterance.text, number) for number, utterance in manifest.numbered(path)]


def _is_json_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _text(path: str) -> str:
    try:
        data = Path(path).read_bytes()
        text = gzip.decompress(data) if path.endswith(".gz") else data
        return text.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise CorpusError(f"{path}: not UTF-8 text") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise CorpusError(f"{path}: damaged, or not a gzip file") from error
    except OSError as error:
        raise CorpusError(f"{path}: cannot read text: {error.strerror or error}") from error


def _pieces(text: str) -> Iterator[tuple[str, int]]:
    if "\n\n" not in text.strip("\n"):
        yield from ((line, number) for number, line in enumerate(text.split("\n"), 1))
        return
    line, counted = 1, 0
    for paragraph in _PARAGRAPH.finditer(text):
        line += text.count("\n", counted, paragraph.start())
        counted = paragraph.start()
        for sentence, offset in _sentences(paragraph[0]):
            line += text.count("\n", counted, paragraph.start() + offset)
            counted = paragraph.start() + offset
            yield from ((piece, line) for piece in _short(sentence))


def _sentences(paragraph: str) -> Iterator[tuple[str, int]]:
    """The sentences of a paragraph and where they begin; an abbreviation or a following small letter ends none."""
    paragraph = _PICTURE.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), paragraph)
    begin = 0
    for match in _SENTENCE.finditer(paragraph):
        following = _VISIBLE.search(paragraph, match.end())
        if following and (following[0].islower() or _ABBREVIATED.search(match[0])):
            continue
        text = paragraph[begin : match.end()]
        yield text, begin + len(text) - len(text.lstrip())
        begin = match.end()


def _short(sentence: str) -> Iterator[str]:
    """A sentence in parts of at most MAX_WORDS words, cut at clauses where there are any."""
    if len(sentence.split()) <= MAX_WORDS:
        yield sentence
        return
    words: list[str] = []
    for clause in _CLAUSE.split(sentence):
        new = clause.split()
        if words and len(words) + len(new) > MAX_WORDS:
            yield " ".join(words)
            words = []
        words += new
        while len(words) > MAX_WORDS:
            yield " ".join(words[:MAX_WORDS])
            words = words[MAX_WORDS:]
    yield " ".join(words)
