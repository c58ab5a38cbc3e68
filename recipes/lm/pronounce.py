"""Words of a language model and of word lists in, how they sound out: the pronouncing dictionary of a search.

Pronunciations are CMUdict's, as the package pocketsphinx ships it; those of words that it lacks are by the
letter-to-sound rules of flite (Debian's package flite), whose lexicon is CMUdict too. The form of the file is that of
asr.phonemes.
"""

import argparse
import gzip
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from asr import phonemes
from asr.errors import AsrError, ConfigError
from asr.files import atomic_write
from asr.ngram import NgramModel
from asr.text import normalise

REDUCED = {"ax": "AH", "axr": "ER", "dx": "T"}
"""flite's symbols that CMUdict does not have."""

VOWEL = re.compile("[aeiouy]")
NOT_SAID = re.compile(
    r".* .*|(?=[ivxlcdm]{2})m*(cm|cd|d?c{0,3})(xc|xl|l?x{0,3})(ix|iv|v?i{0,3})('s)?"
)

Pronunciation = tuple[str, ...]


def pronunciations(words: Sequence[str]) -> dict[str, Pronunciation]:
    """The phonemes of words; words without a sound, as a lone apostrophe, are left out."""
    known = phonemes.dictionary()
    names = dict(enumerate(phonemes.SYMBOLS, 2))
    found = {word: tuple(names[p] for p in known[word]) for word in words if word in known}
    rest = sorted(set(words) - set(found))
    found |= zip(rest, by_rule(rest), strict=True)
    return {word: found[word] for word in sorted(found) if found[word]}


def by_rule(words: Sequence[str]) -> list[Pronunciation]:
    """The phonemes of words by flite. Raises ConfigError where it is not installed, or says something else."""
    utterances = "".join(f"{word}\n\n" for word in words)  # flite answers with a line for each
    command = ["flite", "-f", "/dev/stdin", "-ps", "none"]
    try:
        spoken = subprocess.run(
            command, input=utterances, capture_output=True, text=True, check=True
        )
    except FileNotFoundError as error:
        raise ConfigError("flite is not installed: apt-get install flite") from error
    except subprocess.CalledProcessError as error:
        raise ConfigError(f"flite failed: {error.stderr.strip()}") from error
    lines = spoken.stdout.splitlines()
    if len(lines) != len(words):
        raise ConfigError(f"flite spoke {len(lines)} of {len(words)} words")
    return [_symbols(line.split()) for line in lines]


def _symbols(segments: Iterable[str]) -> Pronunciation:
    found = tuple(REDUCED.get(s, s.upper()) for s in segments if s != "pau")
    if unknown := set(found) - set(phonemes.SYMBOLS):
        raise ConfigError(f"flite: {', '.join(sorted(unknown))}: no phonemes of CMUdict")
    return found


def listed(path: Path) -> set[str]:
    """The words of a list, one a line, normalised; without most abbreviations, which nobody says as they are written.

    Left out is what has capitals beyond the first letter or no vowel, and Roman numerals.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: a word list must be UTF-8 text") from error
    words = {normalise(line) for line in lines if line[1:].islower()}
    return {word for word in words if VOWEL.search(word) and not NOT_SAID.fullmatch(word)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="Example: python -m recipes.lm.pronounce runs/lm/words.ngram --words /usr/share/dict/words "
        "--output runs/lm/pronunciations.gz",
    )
    parser.add_argument("ngram", type=Path, help="n-gram model whose words are pronounced")
    parser.add_argument(
        "--words", type=Path, action="append", default=[], help="list of more words, one a line"
    )
    parser.add_argument("--output", type=Path, required=True, help="dictionary to write, gzip")
    options = parser.parse_args(arguments)
    try:
        words = {w for w in NgramModel.load(options.ngram).unigrams() if not w.startswith("<")}
        found = pronunciations(sorted(words.union(*map(listed, options.words))))
        lines = "".join(f"{word} {' '.join(symbols)}\n" for word, symbols in found.items())
        with atomic_write(options.output, "wb") as file:
            file.write(gzip.compress(lines.encode(), mtime=0))
    except (AsrError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{options.output}: {len(found)} words")
    return 0


if __name__ == "__main__":
    sys.exit(main())
