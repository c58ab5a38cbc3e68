"""What an attention did wrong: a hypothesis, its words and CTC log probabilities in; failures and mended words out.

An attention decoder can read a span twice, jump over speech, stop early, or go on writing where nothing is said. Each
leaves its mark on the attention, and CTC, which cannot do any of these, tells speech from silence.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from asr.alignment import Integers, Span, word_ranges
from asr.decoding import Hypothesis
from asr.tokenizer import Tokenizer
from asr.transcript import Failure

Floats = NDArray[np.floating]

SMOOTH = 5  # rows: a path's median over them ignores one or two stray rows
LAG = 8  # tokens: what was read longer ago than this is not read again by a sound attention
REREAD = 1.0  # attention of earlier tokens around a step above which a row looks at it again
FEWEST_TOKENS = 5  # a loop is at least this long
LESS = 0.1  # nats a token that the first of two readings must be behind to be the one that goes
UNREAD = 0.3  # attention around a step below which nothing was read from it
FEWEST_CHARACTERS = 8  # that CTC hears in a span for it to count as missed
SURE = 0.45  # mean probability of those characters; below it CTC hears noise
FEWEST_A_SECOND = 5.0  # of those characters, from the first to the last; fewer are no speech
HEARD = 0.5  # chance that a word was spoken below which it was invented
DOUBTED = 0.9  # the same, for a word beside such ones
FEWEST_WORDS = 2  # invented in a row, where there are more
SOUND = 0.3  # probability of anything but blank above which CTC hears something


@dataclass(frozen=True)
class Piece:
    """A word of the mended text: the hypothesis's own at `index`, or CTC's with its characters' mean probability."""

    text: str
    index: int | None = None
    probability: float | None = None


@dataclass(frozen=True)
class Mended:
    """The words of a hypothesis after mending, in order, and the failures that were found, by their start."""

    pieces: tuple[Piece, ...]
    failures: tuple[Failure, ...]


@dataclass(frozen=True)
class _CtcText:
    """CTC's own text: each character's token, memory step and probability."""

    tokens: Integers
    steps: Integers
    probabilities: Floats


def mend(
    hypothesis: Hypothesis,
    words: Sequence[Span],
    ctc_log_probs: Tensor | None,
    tokenizer: Tokenizer,
    frame_seconds: float,
    heard: Floats | None = None,
) -> Mended:
    """Find failures and mend them: words that were read twice or invented go, CTC's words for missed speech come.

    `ctc_log_probs` (F, V) are the utterance's, None without a CTC head: then nothing is added. `heard` (N,) is the
    chance that each word was spoken at all (asr.confidence), None where it is not known. A failure's times are
    where the attention was, in seconds.
    """
    attention = hypothesis.attention.detach().cpu().double().numpy()
    size = attention.shape[1]
    ctc = _ctc_text(ctc_log_probs, size)
    path = _path(attention)
    looped = _words_of(_loops(attention, path, hypothesis.token_log_probs), words)
    invented = _invented(words, path, _sound(ctc_log_probs, size), heard) - looped
    failures = [
        _of_words(kind, run, words, path, frame_seconds)
        for kind, found in (("loop", looped), ("silence", invented))
        for run in _runs(sorted(found))
    ]
    pieces = [Piece(w.text, i) for i, w in enumerate(words) if i not in looped | invented]
    for first, last, kind in _missed(attention, path, ctc, frame_seconds):
        added = _ctc_words(ctc, first, last, tokenizer)
        detail = "CTC heard: " + " ".join(piece.text for piece in added)
        failures.append(
            Failure(kind, first * frame_seconds, last * frame_seconds, detail, bool(added))
        )
        at = _place(pieces, words, path, first)
        pieces[at:at] = added
    if len(path) and not hypothesis.ended:
        mended = any(failure.mended for failure in failures)
        start, end = float(path[-1] * frame_seconds), size * frame_seconds
        failures.append(Failure("cut", start, end, "at the token limit", mended))
    return Mended(tuple(pieces), tuple(sorted(failures, key=lambda f: (f.start, f.end))))


def _path(attention: Floats) -> Integers:
    """Where each row of attention (L, U) looks: the median over SMOOTH rows of the rows' weighted medians."""
    if not attention.size:
        return np.zeros(0, dtype=np.int64)
    below = attention.cumsum(1) < 0.5 * attention.sum(1, keepdims=True)
    steps = np.minimum(below.sum(1), attention.shape[1] - 1)
    padded = np.pad(steps, SMOOTH // 2, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, SMOOTH)
    return np.median(windows, 1).astype(np.int64)


def _around(rows: Floats) -> Floats:
    """Rows (..., U) summed over each step and its two neighbours."""
    padded = np.pad(rows, [(0, 0)] * (rows.ndim - 1) + [(1, 1)])
    return padded[..., :-2] + padded[..., 1:-1] + padded[..., 2:]


def _loops(attention: Floats, path: Integers, log_probs: Sequence[float]) -> NDArray[np.bool_]:
    """Return (L,) True for the tokens to drop: of two readings of a span, those of the less probable one."""
    drop = np.zeros(len(path), dtype=bool)
    if len(path) <= LAG:
        return drop
    earlier = np.zeros_like(attention)
    earlier[LAG:] = attention.cumsum(0)[:-LAG]
    again = _around(earlier)[np.arange(len(path)), path] > REREAD
    scores = np.array(log_probs[: len(path)])
    for rows in _runs(np.flatnonzero(again).tolist(), gap=3):
        if len(rows) < FEWEST_TOKENS:
            continue
        second = np.arange(rows[0], rows[-1] + 1)
        low, high = path[second].min() - 1, path[second].max() + 1
        before = path[: rows[0]]
        first = np.flatnonzero((before >= low) & (before <= high) & ~drop[: rows[0]])
        worse = len(first) > 0 and scores[first].mean() < scores[second].mean() - LESS
        drop[first if worse else second] = True
    return drop


def _words_of(tokens: NDArray[np.bool_], words: Sequence[Span]) -> set[int]:
    """The words most of whose tokens are marked."""
    return {i for i, word in enumerate(words) if tokens[word.first : word.last].mean() > 0.5}


def _sound(ctc_log_probs: Tensor | None, size: int) -> Floats:
    """Return (U,) the largest probability in a memory step and its neighbours that CTC hears a character."""
    if ctc_log_probs is None or not len(ctc_log_probs) or not size:
        return np.ones(size)
    voiced = 1 - ctc_log_probs[:, Tokenizer.blank].detach().cpu().double().exp().numpy()
    steps = np.arange(len(voiced)) * size // len(voiced)
    loudest = np.zeros(size + 2)
    np.maximum.at(loudest, steps + 1, voiced)
    return np.maximum(np.maximum(loudest[:-2], loudest[1:-1]), loudest[2:])


def _invented(
    words: Sequence[Span], path: Integers, sound: Floats, heard: Floats | None
) -> set[int]:
    """The words where CTC has blanks only, and runs of words that were hardly spoken."""
    found: set[int] = set()
    if len(path):
        for index, word in enumerate(words):
            own = path[word.first : word.last]
            if sound[own.min() : own.max() + 1].max() < SOUND:
                found.add(index)
    if heard is not None:
        for run in _runs(np.flatnonzero(heard < DOUBTED).tolist()):
            if (heard[run] < HEARD).sum() >= min(FEWEST_WORDS, len(words)):
                found.update(run)
    return found


def _missed(
    attention: Floats, path: Integers, ctc: _CtcText, frame_seconds: float
) -> list[tuple[int, int, str]]:
    """Memory steps from and to (not included) between which CTC hears a text that nobody read, and its failure."""
    size = attention.shape[1]
    unread = np.flatnonzero(_around(attention.sum(0)) < UNREAD).tolist()
    found = []
    for run in _runs(unread, gap=3):
        first, last = run[0], run[-1] + 1
        inside = (ctc.steps >= first) & (ctc.steps < last)
        characters = inside & (ctc.tokens >= Tokenizer.first_character)
        count = characters.sum()
        if count < FEWEST_CHARACTERS or ctc.probabilities[characters].mean() < SURE:
            continue
        if count < FEWEST_A_SECOND * frame_seconds * (np.ptp(ctc.steps[characters]) + 1):
            continue
        kind = "unattended"
        if len(path) and path.max() < first:
            kind = "early-stop"
        elif len(path) and path.min() < first and path.max() >= last - 1:
            kind = "skip"
        found.append((first, min(last, size), kind))
    return found


def _ctc_text(ctc_log_probs: Tensor | None, size: int) -> _CtcText:
    """CTC's greedy text over a memory of `size` steps."""
    if ctc_log_probs is None or not len(ctc_log_probs):
        nothing = np.zeros(0, dtype=np.int64)
        return _CtcText(nothing, nothing, np.zeros(0))
    values, labels = (item.numpy() for item in ctc_log_probs.detach().cpu().double().max(1))
    new = np.ones(len(labels), dtype=bool)
    new[1:] = labels[1:] != labels[:-1]
    frames = np.flatnonzero(new & (labels >= Tokenizer.first_character))
    return _CtcText(labels[frames], frames * size // len(labels), np.exp(values[frames]))


def _ctc_words(ctc: _CtcText, first: int, last: int, tokenizer: Tokenizer) -> list[Piece]:
    """CTC's words at least half of whose characters lie in the given memory steps."""
    found = []
    for text, i, j in word_ranges(ctc.tokens.tolist(), tokenizer):
        inside = (ctc.steps[i:j] >= first) & (ctc.steps[i:j] < last)
        if 2 * inside.sum() >= j - i:
            found.append(Piece(text, probability=float(ctc.probabilities[i:j].mean())))
    return found


def _place(pieces: Sequence[Piece], words: Sequence[Span], path: Integers, step: int) -> int:
    """Where words that begin at a memory step belong among the hypothesis's own."""
    for at, piece in enumerate(pieces):
        if piece.index is not None:
            word = words[piece.index]
            if np.median(path[word.first : word.last]) >= step:
                return at
    return len(pieces)


def _of_words(
    kind: str, run: Sequence[int], words: Sequence[Span], path: Integers, frame_seconds: float
) -> Failure:
    """The failure of words that were dropped."""
    own = path[words[run[0]].first : words[run[-1]].last]
    text = " ".join(words[index].text for index in run)
    start, end = own.min() * frame_seconds, (own.max() + 1) * frame_seconds
    return Failure(kind, float(start), float(end), f"dropped: {text}", True)


def _runs(numbers: Sequence[int], gap: int = 1) -> list[list[int]]:
    """Rising numbers in groups without larger steps than `gap`."""
    groups: list[list[int]] = []
    for number in numbers:
        if groups and number - groups[-1][-1] <= gap:
            groups[-1].append(number)
        else:
            groups.append([number])
    return groups
