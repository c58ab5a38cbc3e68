"""N-gram models to files and back: ARPA, which every tool reads, and a small binary that loads at once."""

import gzip
import math
import zipfile
import zlib
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from asr.errors import CheckpointError
from asr.files import atomic_write

FORMAT = 1
STEPS = 255  # of the 8-bit scale of a level's values
LOG_10 = math.log(10)
NEVER = -99.0  # ARPA's log10 of 0
MAX_HEAD = 1000  # lines; a file that is no ARPA file is not read to its end
IMPROBABLE = -100.0  # log10 of <unk> in a file that has none, as KenLM assumes


UNKNOWN, BEGIN, END = "<unk>", "<s>", "</s>"
TAGS = (UNKNOWN, BEGIN, END)  # the first ids of every vocabulary

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Level:
    """All n-grams of one length, sorted by context and then by word; values in nats."""

    words: Ints  # (n,) the last word of each
    parents: Ints  # (n,) its context: a row of the level before; of no meaning for single words
    log_probs: Floats  # (n,)
    backoffs: Floats  # (n,) added where a word does not follow this n-gram


@dataclass(frozen=True)
class Ngrams:
    """A whole model as arrays: how it is built, written and read."""

    words: tuple[str, ...]  # by id; the first are TAGS
    levels: tuple[Level, ...]  # the single words first, one of each id

    @property
    def order(self) -> int:
        """The length of the longest n-grams."""
        return len(self.levels)

    @property
    def counts(self) -> tuple[int, ...]:
        """The number of n-grams of each length."""
        return tuple(len(level.words) for level in self.levels)


def save(path: str | Path, ngrams: Ngrams) -> None:
    """Write a model, whole or not at all: ARPA if `path` ends in .arpa or .arpa.gz, else the binary."""
    name = str(path)
    if name.endswith(".arpa"):
        with atomic_write(path) as file:
            file.writelines(_arpa_lines(ngrams))
    elif name.endswith(".arpa.gz"):
        with atomic_write(path, "wb") as file, gzip.GzipFile("", "wb", 6, file, 0) as packed:
            packed.writelines(line.encode() for line in _arpa_lines(ngrams))
    else:
        with atomic_write(path, "wb") as file:
            np.savez_compressed(file, **_packed(ngrams))


DAMAGED = (
    *(EOFError, zlib.error, zipfile.BadZipFile, KeyError, ValueError, IndexError),
    *(NotImplementedError, RuntimeError),  # zip headers that name other methods, or a password
)
"""What reading a damaged file raises."""


def read(path: str | Path) -> Ngrams:
    """Read a model of either format, told apart by its first bytes.

    Raises CheckpointError naming the file, and for ARPA the line, and what is wrong with it.
    """
    try:
        with open(path, "rb") as file:
            begin = file.read(2)
            file.seek(0)
            if begin == b"PK":
                return _unpacked(file)
            if begin == b"\x1f\x8b":
                with gzip.open(file) as inner:
                    return _Arpa(path, inner).read()
            return _Arpa(path, file).read()
    except OSError as error:
        reason = error.strerror or "damaged"
        raise CheckpointError(f"{path}: cannot read language model: {reason}") from error
    except DAMAGED as error:
        raise CheckpointError(f"{path}: damaged, or not an n-gram model") from error


def _packed(ngrams: Ngrams) -> dict[str, Any]:
    """The binary's arrays: word ids, numbers of children, and values in 8 bits between a level's extremes."""
    size = np.uint16 if len(ngrams.words) <= 1 << 16 else np.uint32
    arrays: dict[str, Any] = {
        "format": np.array([FORMAT, ngrams.order]),
        "words": np.frombuffer("\n".join(ngrams.words).encode(), np.uint8),
    }
    for number, level in enumerate(ngrams.levels):
        scale, codes = _quantised(level.log_probs)
        arrays |= {f"scale{number}": scale, f"log_probs{number}": codes}
        if number:
            arrays[f"words{number}"] = level.words.astype(size)
        if number + 1 < ngrams.order:
            scale, codes = _quantised(level.backoffs)
            arrays |= {f"backoff_scale{number}": scale, f"backoffs{number}": codes}
            children = np.bincount(ngrams.levels[number + 1].parents, minlength=len(level.words))
            arrays[f"children{number}"] = children.astype(np.uint32)
    return arrays


def _unpacked(file: IO[bytes]) -> Ngrams:
    with np.load(file, allow_pickle=False) as arrays:
        version, order = (int(value) for value in arrays["format"])
        if version != FORMAT:
            raise ValueError(version)
        words = tuple(arrays["words"].tobytes().decode().split("\n"))
        levels = []
        children: Any = None
        for number in range(order):
            log_probs = _exact(arrays[f"scale{number}"], arrays[f"log_probs{number}"])
            ids = np.arange(len(words)) if not number else arrays[f"words{number}"].astype(int)
            parents = ids if children is None else np.repeat(np.arange(len(children)), children)
            backoffs = np.zeros(len(ids))
            if number + 1 < order:
                backoffs = _exact(arrays[f"backoff_scale{number}"], arrays[f"backoffs{number}"])
                children = arrays[f"children{number}"]
            if not len(ids) == len(parents) == len(log_probs) == len(backoffs):
                raise ValueError
            levels.append(Level(ids, parents, log_probs, backoffs))
    return Ngrams(words, tuple(levels))


def _quantised(values: Floats) -> tuple[Floats, Any]:
    """Values to their lowest, the width of a step, and 8-bit codes; 0 probability keeps a code of its own."""
    real = values[values > NEVER * LOG_10 / 2]
    low, high = (float(real.min()), float(real.max())) if len(real) else (0.0, 0.0)
    step = (high - low) / (STEPS - 1) or 1.0
    codes = np.where(values < low, 0, np.rint((values - low) / step) + 1)
    return np.array([low, step]), codes.astype(np.uint8)


def _exact(scale: Floats, codes: Any) -> Floats:
    low, step = scale
    table = low + step * (np.arange(STEPS + 1) - 1.0)
    table[0] = NEVER * LOG_10
    return np.asarray(table[codes])


def _arpa_lines(ngrams: Ngrams) -> Iterator[str]:
    yield "\\data\\\n"
    for length, count in enumerate(ngrams.counts, 1):
        yield f"ngram {length}={count}\n"
    texts: list[str] = []
    for length, level in enumerate(ngrams.levels, 1):
        yield f"\n\\{length}-grams:\n"
        ends = [ngrams.words[word] for word in level.words.tolist()]
        if length == 1:
            texts = ends
        else:
            texts = [
                f"{texts[parent]} {end}"
                for parent, end in zip(level.parents.tolist(), ends, strict=True)
            ]
        values = (level.log_probs / LOG_10).tolist(), (level.backoffs / LOG_10).tolist()
        for text, log_prob, backoff in zip(texts, *values, strict=True):
            tail = f"\t{backoff:.7g}" if length < ngrams.order else ""
            yield f"{max(log_prob, NEVER):.7g}\t{text}{tail}\n"
    yield "\n\\end\\\n"


class _Arpa:
    """An ARPA file that is being read."""

    def __init__(self, path: str | Path, file: Iterable[bytes]) -> None:
        self.path, self.number = path, 0
        self.pushed = ""  # a line that was read too early
        self.lines = self._lines(file)

    def read(self) -> Ngrams:
        counts = self._counts()
        words = {tag: number for number, tag in enumerate(TAGS)}
        levels: list[Level] = []
        for length, count in enumerate(counts, 1):
            ids, log_probs, backoffs = self._section(length, count, words)
            if length == 1:
                levels.append(self._single_words(ids[:, 0], log_probs, backoffs, len(words)))
            else:
                levels.append(self._level(ids, log_probs, backoffs, levels))
        if self._line() != "\\end\\":
            raise self._wrong("expected \\end\\, or there are more n-grams than the head says")
        return Ngrams(tuple(words), tuple(levels))

    def _counts(self) -> list[int]:
        while self._line() != "\\data\\":
            if self.number > MAX_HEAD:
                raise self._wrong(f"no \\data\\ in its first {MAX_HEAD} lines")
        counts: list[int] = []
        while (line := self._line()).startswith("ngram "):
            length, _, count = line.removeprefix("ngram ").partition("=")
            if int(length) != len(counts) + 1:
                raise self._wrong(f"expected the number of {len(counts) + 1}-grams")
            counts.append(int(count))
        self.pushed = line
        if not counts:
            raise self._wrong("the head tells no numbers of n-grams")
        return counts

    def _section(
        self, length: int, count: int, words: dict[str, int]
    ) -> tuple[Ints, Floats, Floats]:
        """The word ids (count, length) and values of a section; the first one's words get their ids."""
        if self._line() != f"\\{length}-grams:":
            raise self._wrong(
                f"expected \\{length}-grams:, or there are more n-grams than the head says"
            )
        ids, log_probs, backoffs = array("q"), array("d"), array("d")
        for _ in range(count):
            fields = self._line().replace("<UNK>", "<unk>").split()
            if not length + 1 <= len(fields) <= length + 2:
                raise self._wrong(f"not a log-probability, {length} words and a backoff")
            try:
                log_probs.append(float(fields[0]) * LOG_10)
                backoffs.append(
                    float(fields[length + 1]) * LOG_10 if len(fields) > length + 1 else 0.0
                )
                if length == 1:
                    ids.append(words.setdefault(fields[1], len(words)))
                else:
                    ids.extend([words[word] for word in fields[1 : length + 1]])
            except KeyError as error:
                raise self._wrong(f"{error} is not among the 1-grams") from error
            except ValueError as error:
                raise self._wrong(str(error)) from error
        values = np.array(log_probs), np.array(backoffs)
        return np.array(ids, np.int64).reshape(count, length), *values

    def _single_words(self, ids: Ints, log_probs: Floats, backoffs: Floats, size: int) -> Level:
        missing = sorted(set(range(1, len(TAGS))) - set(ids.tolist()))
        if missing:
            raise self._wrong(f"no {TAGS[missing[0]]} among the 1-grams")
        by_id = np.full(size, IMPROBABLE * LOG_10), np.zeros(size)
        by_id[0][ids], by_id[1][ids] = log_probs, backoffs
        return Level(np.arange(size), np.arange(size), *by_id)

    def _level(self, ids: Ints, log_probs: Floats, backoffs: Floats, shorter: list[Level]) -> Level:
        size, nodes = len(shorter[0].words), ids[:, 0]
        for number, level in enumerate(shorter[1:], 1):
            keys, wanted = level.parents * size + level.words, nodes * size + ids[:, number]
            nodes = np.searchsorted(keys, wanted)
            if not np.array_equal(
                keys[np.minimum(nodes, len(keys) - 1)] if len(keys) else [], wanted
            ):
                raise self._wrong(
                    f"a {ids.shape[1]}-gram above has a context that is no {number + 1}-gram"
                )
        order = np.lexsort((ids[:, -1], nodes))
        return Level(ids[order, -1], nodes[order], log_probs[order], backoffs[order])

    def _lines(self, file: Iterable[bytes]) -> Iterator[str]:
        for self.number, line in enumerate(file, 1):
            if text := line.decode("utf-8").strip():
                yield text

    def _line(self) -> str:
        line, self.pushed = self.pushed or next(self.lines, ""), ""
        if not line:
            raise self._wrong("the file ends too early")
        return line

    def _wrong(self, reason: str) -> CheckpointError:
        return CheckpointError(f"{self.path}:{self.number}: not an ARPA language model: {reason}")
