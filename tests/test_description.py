"""What is told of a hypothesis: words, times and confidence, also where there is little to tell."""

import math

import pytest
import torch
from torch import Tensor

from asr.confidence import Calibration, Logistic
from asr.decoding import Hypothesis
from asr.decoding.hypothesis import empty_hypothesis
from asr.description import Description, describe
from asr.tokenizer import Tokenizer

TOKENIZER = Tokenizer()


def hypothesis(text: str, steps: list[int], size: int, log_prob: float = -0.1) -> Hypothesis:
    """A text whose characters look at the given memory steps."""
    attention = torch.full((len(text), size), 0.1 / max(size - 1, 1))
    attention[torch.arange(len(text)), torch.tensor(steps, dtype=torch.long)] = 0.9
    tokens = tuple(TOKENIZER.encode(text))
    return Hypothesis(tokens, 0.0, (log_prob,) * (len(tokens) + 1), attention, True)


def ctc(text: str, frames: list[int], size: int, confidence: float = 0.97) -> Tensor:
    """CTC log probabilities that hear `text`, one character at each of `frames`, and blanks elsewhere."""
    labels = torch.zeros(size, dtype=torch.long)
    labels[frames] = torch.tensor(TOKENIZER.encode(text), dtype=torch.long)
    probabilities = torch.full((size, TOKENIZER.size), (1 - confidence) / (TOKENIZER.size - 1))
    probabilities[torch.arange(size), labels] = confidence
    return probabilities.log()


def test_words_have_times_and_confidence() -> None:
    heard = ctc("an owl", [3, 5, 6, 8, 10, 12], 20)
    told = describe(hypothesis("an owl", [1, 2, 3, 4, 5, 6], 10), heard, TOKENIZER, 0.08)
    assert [word.text for word in told.words] == ["an", "owl"]
    assert told.text == "an owl"
    first, second = told.words
    assert 0.1 < first.start < 0.22 < first.end <= second.start < 0.42 < 0.5 < second.end <= 0.8
    assert first.confidence == pytest.approx(math.exp(-0.1))
    assert told.confidence == pytest.approx(math.exp(-0.1))
    assert told.failures == ()


def test_a_calibration_changes_the_confidence() -> None:
    calibration = Calibration(Logistic(("mean_log_prob",), (-0.1,), (1.0,), (1.0,), 0.0))
    told = describe(hypothesis("a b", [1, 2, 3], 5), None, TOKENIZER, 0.08, calibration)
    assert [word.confidence for word in told.words] == [0.5, 0.5]
    assert told.confidence == 0.5


def test_a_text_that_the_frames_cannot_hold_has_times_from_the_attention() -> None:
    told = describe(hypothesis("ab cd", [0, 0, 1, 1, 1], 2), ctc("ab", [1, 2], 4), TOKENIZER, 0.08)
    assert told.text == "ab cd"
    assert 0 <= told.words[0].start < told.words[1].end <= 0.16


@pytest.mark.parametrize("heard", [None, torch.zeros(0, TOKENIZER.size), ctc("", [], 8)])
@pytest.mark.parametrize("steps", [0, 4])
def test_an_empty_hypothesis_has_no_words_and_no_confidence(
    heard: Tensor | None, steps: int
) -> None:
    empty = Hypothesis((), -0.1, (-0.1,), torch.zeros(0, steps), True)
    for nothing in (empty, empty_hypothesis()):
        assert describe(nothing, heard, TOKENIZER, 0.08) == Description((), None)


def test_a_hypothesis_of_spaces_alone_has_no_words() -> None:
    assert describe(hypothesis("  ", [0, 1], 3), None, TOKENIZER, 0.08).words == ()
