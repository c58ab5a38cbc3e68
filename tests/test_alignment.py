"""Times of tokens and words: forced alignment is exact, and words lie in order inside the recording."""

from itertools import pairwise, product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from asr.alignment import (
    Span,
    attended_steps,
    attention_seconds,
    forced_alignment,
    word_ranges,
    words_from_attention,
    words_from_ctc,
)
from asr.tokenizer import Tokenizer

TOKENIZER = Tokenizer(" ab")
SPACE, A, B = TOKENIZER.encode(" ab")
SIZE = TOKENIZER.size


def lattice(frames: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (2 * torch.randn(frames, SIZE, generator=generator)).log_softmax(-1)


def peaks(labels: list[int], confidence: float = 0.9) -> Tensor:
    """Log probabilities whose greedy path is `labels`, one a frame."""
    probabilities = torch.full((len(labels), SIZE), (1 - confidence) / (SIZE - 1))
    probabilities[torch.arange(len(labels)), torch.tensor(labels)] = confidence
    return probabilities.log()


def ramp(rows: list[int], size: int, sharpness: float = 0.9) -> Tensor:
    """An attention that looks at the given step in each row."""
    attention = torch.full((len(rows), size), (1 - sharpness) / max(size - 1, 1))
    attention[torch.arange(len(rows)), torch.tensor(rows, dtype=torch.long)] = sharpness
    return attention


def collapse(path: tuple[int, ...]) -> tuple[int, ...]:
    kept = [label for i, label in enumerate(path) if i == 0 or label != path[i - 1]]
    return tuple(label for label in kept if label != TOKENIZER.blank)


def brute_force(log_probs: Tensor, tokens: tuple[int, ...]) -> float:
    """The log probability of the best path that spells `tokens`, over all paths of blank and those labels."""
    labels = sorted({TOKENIZER.blank, *tokens})
    scores = [
        sum(float(log_probs[t, label]) for t, label in enumerate(path))
        for path in product(labels, repeat=len(log_probs))
        if collapse(path) == tokens
    ]
    return max(scores, default=-np.inf)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "tokens", [(), (A,), (A, B), (A, A), (A, B, A), (A, A, B), (B, B, B), (A, A, A, A)]
)
@pytest.mark.parametrize("frames", [1, 3, 5, 6])
def test_forced_alignment_equals_brute_force(
    tokens: tuple[int, ...], frames: int, seed: int
) -> None:
    log_probs = lattice(frames, seed)
    best = brute_force(log_probs, tokens)
    alignment = forced_alignment(log_probs, tokens)
    if alignment is None:
        assert best == -np.inf
        return
    score, blank = 0.0, set(range(frames))
    for token, start, end in zip(tokens, alignment.starts, alignment.ends, strict=True):
        score += float(log_probs[start:end, token].sum())
        blank -= set(range(start, end))
    score += sum(float(log_probs[t, TOKENIZER.blank]) for t in blank)
    assert score == pytest.approx(best, abs=1e-5)
    assert all(end > start for start, end in zip(alignment.starts, alignment.ends, strict=True))


def test_forced_alignment_finds_the_peaks() -> None:
    alignment = forced_alignment(peaks([0, A, A, 0, 0, A, B, 0]), [A, A, B])
    assert alignment is not None
    assert alignment.starts.tolist() == [1, 5, 6]
    assert alignment.ends.tolist() == [3, 6, 7]
    assert np.exp(alignment.log_probs) == pytest.approx([0.9] * 3)


def test_more_labels_than_frames_have_no_alignment() -> None:
    assert forced_alignment(lattice(2), [A, B, A]) is None
    assert forced_alignment(lattice(2), [A, A]) is None  # a blank must come between them
    assert forced_alignment(lattice(0), [A]) is None


def test_no_labels_and_no_frames_align_to_nothing() -> None:
    for frames in (0, 3):
        alignment = forced_alignment(lattice(frames), [])
        assert alignment is not None
        assert len(alignment.starts) == len(alignment.log_probs) == 0


def test_the_attention_never_goes_back_and_a_stray_row_moves_only_itself() -> None:
    attention = ramp([1, 3, 11, 5, 7], 12)
    assert attended_steps(attention)[[0, 1, 3, 4]].tolist() == [1, 3, 5, 7]
    assert attended_steps(ramp([2, 4, 4, 9], 12)).tolist() == [2, 4, 4, 9]


def test_attention_times_are_centres_of_steps_and_follow_the_weights_beside_them() -> None:
    seconds = attention_seconds(ramp([1, 4], 6, 1.0), 0.1)
    assert seconds == pytest.approx([0.15, 0.45], abs=1e-6)
    between = torch.tensor([[0.0, 0.5, 0.5, 0.0]])
    assert attention_seconds(between, 0.1) == pytest.approx([0.2], abs=1e-6)


def test_words_are_what_spaces_separate() -> None:
    tokens = TOKENIZER.encode(" ab  b a ")
    assert word_ranges(tokens, TOKENIZER) == [("ab", 1, 3), ("b", 5, 6), ("a", 7, 8)]
    assert word_ranges([], TOKENIZER) == []
    assert word_ranges([SPACE], TOKENIZER) == []


def test_words_end_soon_after_their_last_peak_where_a_pause_follows() -> None:
    labels = [A, B, SPACE, *[0] * 20, B, A]
    tokens = [A, B, SPACE, B, A]
    alignment = forced_alignment(peaks(labels), tokens)
    assert alignment is not None
    first, second = words_from_ctc(tokens, alignment, TOKENIZER, 0.04, 1.0)
    assert 0 <= first.start <= 0.04
    assert second.end == 1.0
    assert 0.06 < first.end < 0.2
    assert 0.9 < second.start < 0.98


def test_every_word_lasts_where_its_neighbours_leave_it_time() -> None:
    """One-letter words that are looked at for a moment: a player shows no word that ends where it begins."""
    tokens = TOKENIZER.encode("a b a b")
    attention = torch.eye(len(tokens))
    for seconds in (0.04, 0.08):
        words = words_from_attention(tokens, attention, TOKENIZER, seconds)
        assert len(words) == 4
        assert all(word.end - word.start > 0.019 for word in words)
        check_order(words, len(tokens) * seconds)


def check_order(words: list[Span], duration: float) -> None:
    for word in words:
        assert 0 <= word.start <= word.end <= duration + 1e-9
    for word, following in pairwise(words):
        assert word.end <= following.start + 1e-9


@settings(max_examples=60, deadline=None)
@given(st.text(" ab", max_size=12), st.integers(0, 20), st.integers(0, 5))
def test_word_times_are_in_order_inside_the_recording(text: str, steps: int, seed: int) -> None:
    tokens = TOKENIZER.encode(text)
    generator = torch.Generator().manual_seed(seed)
    attention = (3 * torch.randn(len(tokens), steps, generator=generator)).softmax(-1)
    words = words_from_attention(tokens, attention, TOKENIZER, 0.08)
    assert [w.text for w in words] == text.split()
    check_order(words, steps * 0.08)
    alignment = forced_alignment(lattice(2 * steps, seed), tokens)
    if alignment is not None:
        words = words_from_ctc(tokens, alignment, TOKENIZER, 0.04, steps * 0.08)
        assert [w.text for w in words] == text.split()
        check_order(words, steps * 0.08)
