"""Text files in, sentences to be spoken out: readable aloud, varied in words, none that stands in held-out transcripts.

Two kinds of text: one utterance a line (LibriSpeech's transcripts, upper case, no punctuation) and books (Project
Gutenberg's plain text: paragraphs, wrapped). The order of what comes out depends on the texts and the seed alone, so a
longer run begins with what a shorter one made.
"""

import gzip
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from asr import manifest
from asr.errors import CorpusError
from asr.text import normalise

SPAN_WORDS = (
    8  # so many words in a row shared with a held-out transcript, and a sentence is not used
)
CHARACTERS = (25, 220)  # of a sentence; about 2 to 15 s
BLOCK, KEPT = (
    2000,
    0.3,
)  # of so many sentences in random order, the share with the most new words is kept
RAREST = (
    3  # words that come less often in all the text are mostly names, other languages and misprints
)

_PLAIN = str.maketrans(
    {"’": "'", "‘": "'", "“": "", "”": "", '"': "", "_": "", "—": ", ", "–": ", "}
)
_TITLES = re.compile(r"\b(Mr|Mrs|Dr)\.?(?= [A-Z])")
_TITLE_WORDS = {"Mr": "Mister", "Mrs": "Missus", "Dr": "Doctor"}
_END = re.compile(r"(?<=[a-z,][.!?])['\s]+(?=[A-Z'])")
_READABLE = re.compile(r"[A-Z][A-Za-z ,;:'-]*[a-z][.!?]")
_CAPITALS = re.compile(r"\b[A-Z]{2,}\b|\b[B-HJ-Z]\b")
_I = re.compile(r"\bi\b")


@dataclass(frozen=True)
class HeldOut:
    """What must not be spoken: whole transcripts, and every span of SPAN_WORDS words, as the normaliser writes them."""

    transcripts: frozenset[str] = field(default_factory=frozenset)
    spans: frozenset[str] = field(default_factory=frozenset)

    def __contains__(self, text: str) -> bool:
        """Whether a normalised sentence is one of the transcripts or shares a span with one."""
        return text in self.transcripts or any(span in self.spans for span in _spans(text))


def held_out(manifests: Iterable[str | Path]) -> HeldOut:
    """Read the transcripts of dev and test manifests; raises ManifestError, CorpusError where there is none."""
    texts = [normalise(u.text) for path in manifests for u in manifest.read(path)]
    if not texts:
        raise CorpusError(
            "--exclude: no transcript in the manifests given; name those of dev and test sets"
        )
    return HeldOut(frozenset(texts), frozenset(span for text in texts for span in _spans(text)))


def read_lines(path: str | Path, skip: Sequence[range] = ()) -> Iterator[str]:
    """The sentences of a file with one utterance a line, all capitals in sentence case; none of lines `skip`."""
    for line in _lines(path, skip):
        text = " ".join(line.translate(_PLAIN).split())
        if text.isupper():
            text = _I.sub("I", text.lower())
            text = text[:1].upper() + text[1:]
        if text:
            yield text if text[-1] in ".!?" else text + "."


def read_books(path: str | Path, skip: Sequence[range] = ()) -> Iterator[str]:
    """The sentences of a book of plain text; paragraphs are parted by empty lines; none of lines `skip`."""
    for paragraph in re.split(r"\n\s*\n", "\n".join(_lines(path, skip))):
        text = " ".join(paragraph.translate(_PLAIN).replace(" ,", ",").split())
        text = _TITLES.sub(lambda match: _TITLE_WORDS[match[1]], text)
        yield from (sentence.strip(" '") for sentence in _END.split(text))


def readable(sentence: str) -> bool:
    """Whether a synthesiser and the normaliser must read it alike: no digits, initials, abbreviations or headings."""
    low, high = CHARACTERS
    return (
        low <= len(sentence) <= high
        and _READABLE.fullmatch(sentence) is not None
        and _CAPITALS.search(sentence) is None
    )


def choose(sentences: Iterable[str], excluded: HeldOut, seed: int) -> tuple[list[str], int]:
    """The sentences to speak, in order, and the number that was dropped because held-out transcripts have them.

    In random order, block by block, the sentences are kept whose words were the rarest so far, by the mean of
    1 / (1 + times chosen): frequent words stay, but ever the same phrases do not.
    """
    by_text = {normalise(s): s for s in sentences if readable(s)}
    allowed = {text: s for text, s in sorted(by_text.items()) if text and text not in excluded}
    counts = Counter(word for text in allowed for word in text.split())
    texts = [t for t in allowed if all(counts[word] >= RAREST for word in t.split())]
    random.Random(seed).shuffle(texts)
    spoken: Counter[str] = Counter()
    chosen: list[str] = []
    for start in range(0, len(texts), BLOCK):
        block = texts[start : start + BLOCK]
        block.sort(key=lambda text: (-_novelty(text.split(), spoken), text))
        kept = block[: max(1, round(KEPT * len(block)))]
        random.Random(f"{seed} {start}").shuffle(kept)
        for text in kept:
            spoken.update(text.split())
            chosen.append(allowed[text])
    return chosen, len(by_text) - len(allowed)


def _novelty(words: Sequence[str], spoken: Counter[str]) -> float:
    return sum(1 / (1 + spoken[word]) for word in words) / len(words)


def _spans(text: str) -> Iterator[str]:
    words = text.split()
    for start in range(len(words) - SPAN_WORDS + 1):
        yield " ".join(words[start : start + SPAN_WORDS])


def _lines(path: str | Path, skip: Sequence[range]) -> list[str]:
    """The lines of a file; those to be skipped are empty, so that no paragraph goes on across them."""
    lines = _text(path).replace("\r", "").split("\n")
    for numbers in skip:
        for number in numbers:
            if number <= len(lines):
                lines[number - 1] = ""
    return lines


def _text(path: str | Path) -> str:
    opener = gzip.open if str(path).endswith(".gz") else open
    try:
        with opener(path, "rt", encoding="utf-8") as file:
            return str(file.read())
    except (OSError, EOFError, UnicodeDecodeError) as error:
        reason = "not UTF-8 text" if isinstance(error, UnicodeDecodeError) else str(error)
        raise CorpusError(f"{path}: cannot read text: {reason}") from error
