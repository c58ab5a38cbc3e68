"""Failures: each kind is found in a constructed attention and mended, and none in a sound one."""

import numpy as np
import pytest
import torch
from torch import Tensor

from asr.alignment import word_ranges, words_from_attention
from asr.decoding import Hypothesis
from asr.description import Description, describe
from asr.failures import Mended, mend
from asr.tokenizer import Tokenizer
from asr.transcript import FAILURES

TOKENIZER = Tokenizer()
STEP = 0.08
SAID = "she had your dark suit in greasy wash water"
STEPS = [2 + i for i in range(len(SAID))]
SIZE = len(SAID) + 4
HALVES = SAID.index("suit")


def hypothesis(
    text: str, steps: list[int], size: int = SIZE, *, ended: bool = True, log_prob: float = -0.1
) -> Hypothesis:
    """A text whose characters look at the given memory steps."""
    attention = torch.full((len(text), size), 0.02 / size)
    attention[torch.arange(len(text)), torch.tensor(steps, dtype=torch.long)] += 0.98
    tokens = tuple(TOKENIZER.encode(text))
    return Hypothesis(tokens, 0.0, (log_prob,) * (len(tokens) + 1), attention, ended)


def ctc(text: str = SAID, first: int = 2, size: int = SIZE, confidence: float = 0.9) -> Tensor:
    """CTC log probabilities (2 * size, V) that hear a character in each memory step from `first` on."""
    labels = torch.zeros(2 * size, dtype=torch.long)
    frames = 2 * torch.arange(first, first + len(text)) + 1
    labels[frames] = torch.tensor(TOKENIZER.encode(text), dtype=torch.long)
    probabilities = torch.full((2 * size, TOKENIZER.size), 0.01 / TOKENIZER.size)
    probabilities[:, 0] += 0.99
    probabilities[frames] = (1 - confidence) / TOKENIZER.size
    probabilities[frames, labels[frames]] += confidence
    return probabilities.log()


def told(heard: Hypothesis, log_probs: Tensor | None) -> Description:
    return describe(heard, log_probs, TOKENIZER, STEP)


def kinds(found: Description | Mended) -> list[str]:
    return [failure.kind for failure in found.failures]


def test_a_sound_attention_has_no_failures() -> None:
    found = told(hypothesis(SAID, STEPS), ctc())
    assert found.failures == ()
    assert found.text == SAID


def test_a_pause_is_no_failure() -> None:
    pause = [step + (30 if i >= HALVES else 0) for i, step in enumerate(STEPS)]
    silent = ctc(size=SIZE + 30)
    one, other = ctc(SAID[:HALVES], 2, SIZE + 30), ctc(SAID[HALVES:], HALVES + 32, SIZE + 30)
    silent = torch.where(one.argmax(1, keepdim=True) > 0, one, other)
    found = told(hypothesis(SAID, pause, SIZE + 30), silent)
    assert found.failures == ()
    assert found.text == SAID


def test_a_span_that_is_read_twice_is_a_loop_and_is_written_once() -> None:
    again = "suit in greasy "
    text = SAID[: HALVES + len(again)] + again + SAID[HALVES + len(again) :]
    steps = STEPS[: HALVES + len(again)] + STEPS[HALVES:]
    found = told(hypothesis(text, steps), ctc())
    assert kinds(found) == ["loop"]
    assert found.text == SAID
    (loop,) = found.failures
    assert loop.mended
    assert loop.start == pytest.approx(STEP * (HALVES + 2), abs=2 * STEP)
    assert loop.end == pytest.approx(STEP * (HALVES + len(again)), abs=2 * STEP)
    assert "suit in greasy" in loop.detail


def test_the_less_probable_of_two_readings_goes() -> None:
    again = "boot in grease "
    text = SAID[:HALVES] + again + SAID[HALVES:]
    steps = STEPS[: HALVES + len(again)] + STEPS[HALVES:]
    heard = hypothesis(text, steps)
    log_probs = np.full(len(text) + 1, -0.1)
    log_probs[HALVES : HALVES + len(again)] = -1.0
    heard = Hypothesis(heard.tokens, 0.0, tuple(log_probs), heard.attention, True)
    assert told(heard, ctc()).text == SAID


def test_one_stray_row_is_no_loop_and_no_skip() -> None:
    steps = list(STEPS)
    steps[20] = 3
    steps[28] = SIZE - 2
    assert told(hypothesis(SAID, steps), ctc()).failures == ()


def test_speech_that_is_jumped_over_is_a_skip_and_ctc_fills_it() -> None:
    gone = slice(SAID.index("dark"), SAID.index("greasy"))
    text = SAID[: gone.start] + SAID[gone.stop :]
    found = told(hypothesis(text, STEPS[: gone.start] + STEPS[gone.stop :]), ctc())
    assert kinds(found) == ["skip"]
    assert found.text == SAID
    (skip,) = found.failures
    assert skip.mended
    assert "dark suit in" in skip.detail
    assert skip.start == pytest.approx(STEP * STEPS[gone.start], abs=2 * STEP)
    assert skip.end == pytest.approx(STEP * STEPS[gone.stop], abs=2 * STEP)
    starts = [word.start for word in found.words]
    assert starts == sorted(starts)
    assert all(0 < (word.confidence or 0) <= 1 for word in found.words)


def test_two_spans_missed_between_the_same_words_are_filled_in_their_order() -> None:
    """A space that looks between two skips, neither of which has a word of the decoder's after it but "water"."""
    found = told(hypothesis("she water", [2, 3, 4, 24, *range(40, 45)]), ctc())
    assert kinds(found) == ["skip", "skip"]
    assert found.text == SAID


def test_speech_after_the_last_row_is_an_early_stop_and_ctc_fills_it() -> None:
    stop = SAID.index(" suit")
    found = told(hypothesis(SAID[:stop], STEPS[:stop]), ctc())
    assert kinds(found) == ["early-stop"]
    assert found.text == SAID


def test_speech_before_the_first_row_was_never_attended() -> None:
    found = told(hypothesis(SAID[HALVES:], STEPS[HALVES:]), ctc())
    assert kinds(found) == ["unattended"]
    assert found.text == SAID


def test_a_text_that_is_missing_altogether_comes_from_ctc() -> None:
    empty = Hypothesis((), -0.1, (-0.1,), torch.zeros(0, SIZE), True)
    found = told(empty, ctc())
    assert kinds(found) == ["unattended"]
    assert found.text == SAID
    assert found.confidence == pytest.approx(0.9, abs=0.01)


def test_noise_that_ctc_is_unsure_of_is_not_missed_speech() -> None:
    empty = Hypothesis((), -0.1, (-0.1,), torch.zeros(0, SIZE), True)
    assert told(empty, ctc(confidence=0.2)).failures == ()
    sparse = ctc("a b c d e", 2, SIZE)
    spread = ctc("", 2, 10 * SIZE)
    spread[5 :: 2 * SIZE] = sparse[5]  # a character every few seconds
    assert told(Hypothesis((), 0, (0.0,), torch.zeros(0, 10 * SIZE), True), spread).failures == ()


def test_words_where_ctc_has_only_blanks_are_dropped() -> None:
    text, extra = f"{SAID} thank you", 12
    steps = [2 + i for i in range(len(text))]
    found = told(hypothesis(text, steps, SIZE + extra), ctc(size=SIZE + extra))
    assert kinds(found) == ["silence"]
    assert found.text == SAID
    assert found.failures[0].detail == "dropped: thank you"


def test_words_that_were_hardly_spoken_are_dropped_with_their_neighbours() -> None:
    heard = hypothesis(SAID, STEPS)
    words = words_from_attention(heard.tokens, heard.attention, TOKENIZER, STEP)
    chance = np.array([1, 1, 1, 0.8, 0.2, 0.3, 0.85, 0.7, 1])
    found = mend(heard, words, ctc(), TOKENIZER, STEP, chance)
    assert kinds(found) == ["silence"]
    assert " ".join(piece.text for piece in found.pieces) == "she had your water"


def test_a_text_that_is_all_invented_becomes_empty() -> None:
    heard = hypothesis("who", [2, 3, 4], 10)
    words = words_from_attention(heard.tokens, heard.attention, TOKENIZER, STEP)
    assert mend(heard, words, None, TOKENIZER, STEP, np.array([0.1])).pieces == ()
    assert told(heard, ctc("", 2, 10)).words == ()


def test_a_text_cut_at_the_limit_is_told_and_mended_where_its_loop_is() -> None:
    found = told(hypothesis(SAID, STEPS, ended=False), ctc())
    assert kinds(found) == ["cut"]
    assert not found.failures[0].mended
    looping = "suit in " * 6
    text = SAID[:HALVES] + looping
    steps = STEPS[:HALVES] + STEPS[HALVES : HALVES + len("suit in ")] * 6
    found = told(hypothesis(text, steps, ended=False), ctc())
    assert set(kinds(found)) == {"loop", "cut", "early-stop"}
    assert found.text == SAID
    assert all(failure.mended for failure in found.failures)


@pytest.mark.parametrize("log_probs", [None, torch.zeros(0, TOKENIZER.size)])
def test_without_ctc_loops_are_still_found_and_nothing_is_added(log_probs: Tensor | None) -> None:
    text, steps = SAID + " " + SAID, [*STEPS, SIZE - 1, *STEPS]
    found = told(hypothesis(text, steps), log_probs)
    assert kinds(found) == ["loop"]
    assert found.text == SAID
    assert told(hypothesis(SAID[:10], STEPS[:10]), log_probs).failures == ()
    assert told(Hypothesis((), 0, (), torch.zeros(0, 0), False), log_probs).failures == ()


def test_failures_are_plain_values_of_known_kinds() -> None:
    found = told(hypothesis(SAID[:9], STEPS[:9], ended=False), ctc())
    for failure in found.failures:
        assert failure.kind in FAILURES
        assert type(failure.start) is type(failure.end) is float
        assert 0 <= failure.start <= failure.end <= SIZE * STEP + 1e-9
    assert len(word_ranges(TOKENIZER.encode(found.text), TOKENIZER)) == len(found.words)
