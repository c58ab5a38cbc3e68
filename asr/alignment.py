"""When tokens and words were said: an attention or CTC log probabilities in, seconds out.

The attention gives the times of words: measured (recipes/benchmark/alignment.py) it is as exact as CTC's forced
alignment or slightly better, and it needs no CTC head. CTC's gives those of texts that no attention belongs to, and
what CTC thinks of every character.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from asr.tokenizer import Tokenizer

Floats = NDArray[np.floating]
Integers = NDArray[np.int64]

SHORTEST = 0.02  # seconds that a word lasts, where its neighbours leave them to it
SMALLEST = 1e-8  # an attention weight below this counts as this, so that a path exists everywhere


@dataclass(frozen=True)
class Margins:
    """How far a word reaches beyond the times of its first and last character, in seconds; below 0 it begins later."""

    before: float
    after: float


# Chosen on half of the joins of dev-clean, by the mean error on both sides of a join.
CTC_MARGINS = Margins(0.0, 0.05)  # from the ends of the characters' frames
ATTENTION_MARGINS = Margins(-0.04, 0.07)  # from where the characters' rows look


@dataclass(frozen=True)
class Alignment:
    """The best CTC path of L tokens: token l is emitted in the frames `starts[l]` to `ends[l]`, the end not included.

    All are (L,); `log_probs` holds the log probability of each token's most probable frame.
    """

    starts: Integers
    ends: Integers
    log_probs: Floats


@dataclass(frozen=True)
class Span:
    """A word: its text, its tokens `first` to `last` (not included) of the hypothesis, and its seconds."""

    text: str
    first: int
    last: int
    start: float
    end: float


def forced_alignment(
    log_probs: Tensor, tokens: Sequence[int], blank: int = Tokenizer.blank
) -> Alignment | None:
    """Return the most probable CTC path of `tokens` through log_probs (F, V); None where they do not fit.

    L tokens need L frames, and one more between two equal ones. The recursion is Viterbi's over the 2 L + 1 states
    of Graves et al. 2006, section 4.1, in time F and vectorised over the states.
    """
    labels = np.asarray(tokens, dtype=np.int64)
    repeated = np.zeros(len(labels), dtype=bool)
    repeated[1:] = labels[1:] == labels[:-1]
    if len(log_probs) < len(labels) + repeated.sum():
        return None
    if not len(labels):
        nothing = np.zeros(0, dtype=np.int64)
        return Alignment(nothing, nothing, np.zeros(0))
    states = np.full(2 * len(labels) + 1, blank, dtype=np.int64)
    states[1::2] = labels
    barred = np.ones(len(states), dtype=bool)  # states that cannot be reached over the blank before
    barred[1::2] = repeated
    barred[1] = True
    emissions = log_probs.detach().cpu().double().numpy()[:, states]
    path = _best_path(emissions, barred)
    return _emitted(path, emissions)


def attended_steps(attention: Tensor) -> Integers:
    """Return the memory step (L,) at which each row of attention (L, U) looks, never going back.

    It is the monotonic path with the largest product of weights, so that a single stray row does not move its
    neighbours. U of 0 gives an empty array.
    """
    weights = np.log(np.maximum(attention.detach().cpu().double().numpy(), SMALLEST))
    if not weights.size:
        return np.zeros(0, dtype=np.int64)
    scores, origins = weights[0], []
    for row in weights[1:]:
        best = np.maximum.accumulate(scores)
        places = np.where(scores >= best, np.arange(len(scores)), 0)
        origins.append(np.maximum.accumulate(places))
        scores = best + row
    path = [int(scores.argmax())]
    for places in reversed(origins):
        path.append(int(places[path[-1]]))
    return np.array(path[::-1], dtype=np.int64)


def attention_seconds(attention: Tensor, frame_seconds: float) -> Floats:
    """Return the time (L,) at which each row of attention (L, U) looks: its mean around its `attended_steps`."""
    steps = attended_steps(attention)
    if not len(steps):
        return np.zeros(0)
    weights = attention.detach().cpu().double().numpy()
    near = np.arange(weights.shape[1])[None] - steps[:, None]
    weights = np.where(np.abs(near) <= 1, weights, 0) + SMALLEST * (near == 0)
    offsets = (weights * near).sum(1) / weights.sum(1)
    return np.maximum.accumulate(steps + 0.5 + offsets) * frame_seconds


def words_from_attention(
    tokens: Sequence[int], attention: Tensor, tokenizer: Tokenizer, frame_seconds: float
) -> list[Span]:
    """Return the words of `tokens` with times by their attention (L, U); all at 0 where U is 0."""
    seconds = attention_seconds(attention, frame_seconds)
    if not len(seconds):
        seconds = np.zeros(len(tokens))
    duration = attention.shape[1] * frame_seconds
    return _words(tokens, seconds, tokenizer, ATTENTION_MARGINS, duration)


def words_from_ctc(
    tokens: Sequence[int],
    alignment: Alignment,
    tokenizer: Tokenizer,
    frame_seconds: float,
    duration: float,
) -> list[Span]:
    """Return the words of `tokens` with times by their CTC alignment; `frame_seconds` is that of a CTC frame.

    `duration` bounds the last word.
    """
    seconds = alignment.ends * frame_seconds
    return _words(tokens, seconds, tokenizer, CTC_MARGINS, duration)


def word_ranges(tokens: Sequence[int], tokenizer: Tokenizer) -> list[tuple[str, int, int]]:
    """Return each word's text with its first token and the one after its last; spaces belong to no word."""
    found: list[tuple[str, int, int]] = []
    first = 0
    characters = [tokenizer.decode([token]) for token in tokens]
    for index, character in enumerate([*characters, " "]):
        if character.isspace():
            if index > first:
                found.append(("".join(characters[first:index]), first, index))
            first = index + 1
    return found


def _best_path(emissions: Floats, barred: NDArray[np.bool_]) -> Integers:
    """Emissions (F, S) to the state (F,) of each frame."""
    frames, count = emissions.shape
    moves = np.zeros((frames, count), dtype=np.int8)
    scores = np.full(count, -np.inf)
    scores[:2] = emissions[0, :2]
    options = np.full((3, count), -np.inf)  # stay, from the state before, from the one before that
    columns = np.arange(count)
    for frame in range(1, frames):
        options[0] = scores
        options[1, 1:] = scores[:-1]
        options[2, 2:] = scores[:-2]
        options[2, barred] = -np.inf
        moves[frame] = options.argmax(0)
        scores = options[moves[frame], columns] + emissions[frame]
    path = np.zeros(frames, dtype=np.int64)
    state = count - 1 if scores[-1] >= scores[-2] else count - 2
    for frame in reversed(range(frames)):
        path[frame] = state
        state -= int(moves[frame, state])
    return path


def _emitted(path: Integers, emissions: Floats) -> Alignment:
    frames = np.arange(len(path))
    emitting = path % 2 == 1
    index, chosen = path[emitting] // 2, frames[emitting]
    count = (emissions.shape[1] - 1) // 2
    starts = np.full(count, len(path), dtype=np.int64)
    ends = np.zeros(count, dtype=np.int64)
    log_probs = np.full(count, -np.inf)
    np.minimum.at(starts, index, chosen)
    np.maximum.at(ends, index, chosen + 1)
    np.maximum.at(log_probs, index, emissions[chosen, path[emitting]])
    return Alignment(starts, ends, log_probs)


def _words(
    tokens: Sequence[int],
    seconds: Floats,
    tokenizer: Tokenizer,
    margins: Margins,
    duration: float,
) -> list[Span]:
    """Words with margins around their characters' times; where two neighbours' meet, the gap is shared by half."""
    ranges = word_ranges(tokens, tokenizer)
    first = [float(seconds[i]) for _, i, _ in ranges]
    last = [float(seconds[j - 1]) for _, _, j in ranges]
    found = []
    for index, (text, i, j) in enumerate(ranges):
        before = (last[index - 1] + first[index]) / 2 if index else 0.0
        after = (last[index] + first[index + 1]) / 2 if index + 1 < len(ranges) else duration
        end = min(last[index] + margins.after, after)
        start = max(first[index] - margins.before, before)
        start = min(start, max(end - SHORTEST, before), duration)
        found.append(Span(text, i, j, start, max(end, start)))
    return found
