import random

import jiwer
import numpy as np
import pytest

from asr.metrics import (
    Counts,
    by_speaker,
    character_counts,
    confidence_interval,
    known_speakers,
    total,
    word_counts,
)

WORDS = ["a", "i", "o", "the", "cat", "sat", "on", "mat", "it's"]


def _texts(count: int, seed: int) -> tuple[list[str], list[str]]:
    pick = random.Random(seed)
    references = [" ".join(pick.choices(WORDS, k=pick.randint(0, 7))) for _ in range(count)]
    hypotheses = [" ".join(w for w in r.split() if pick.random() > 0.2) for r in references]
    hypotheses = [" ".join([h, *pick.choices(WORDS, k=pick.randint(0, 2))]) for h in hypotheses]
    return references, [h.strip() for h in hypotheses]


@pytest.mark.parametrize("seed", range(10))
def test_metrics_equal_jiwer(seed: int) -> None:
    references, hypotheses = _texts(40, seed)
    assert "" in references
    words = total(word_counts(references, hypotheses))
    expected = jiwer.process_words(references, hypotheses)
    assert words.rate == pytest.approx(expected.wer)
    assert words == Counts(
        expected.substitutions, expected.deletions, expected.insertions, expected.hits
    )
    characters = total(character_counts(references, hypotheses))
    assert characters.rate == pytest.approx(jiwer.cer(references, hypotheses))
    assert characters.reference_length == sum(map(len, references))


def test_the_corpus_rate_is_not_the_mean_of_rates() -> None:
    counts = word_counts(["a b c d e f g h i", "a"], ["a b c d e f g h i", "b"])
    assert [c.rate for c in counts] == [0, 1]
    assert total(counts).rate == pytest.approx(0.1)


def test_utterances_keep_their_own_counts() -> None:
    assert word_counts(["a b c d", "x"], ["a c d e", "x y z"]) == [
        Counts(deletions=1, insertions=1, hits=3),
        Counts(insertions=2, hits=1),
    ]


def test_one_letter_words_are_counted() -> None:
    assert word_counts(["a", "i", "o"], ["a", "a", ""]) == [
        Counts(hits=1),
        Counts(substitutions=1),
        Counts(deletions=1),
    ]


def test_an_empty_reference_has_only_insertions() -> None:
    counts = word_counts(["", "", "a b"], ["x y", "", "a b"])
    assert counts == [Counts(insertions=2), Counts(), Counts(hits=2)]
    assert total(counts).rate == pytest.approx(1.0)
    assert word_counts([""], ["x y"])[0].rate == jiwer.wer([""], ["x y"]) == 2


def test_an_empty_hypothesis_has_only_deletions() -> None:
    assert word_counts(["a b"], [""]) == [Counts(deletions=2)]
    assert character_counts(["a b"], [""]) == [Counts(deletions=3)]


def test_nothing_gives_no_counts() -> None:
    assert word_counts([], []) == []
    assert total([]).rate == 0


def test_lists_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match="2 references, but 1 hypotheses"):
        word_counts(["a", "b"], ["a"])


def test_counts_are_pooled_by_speaker() -> None:
    counts = [Counts(hits=1), Counts(deletions=2), Counts(insertions=3)]
    assert by_speaker(counts, ["b", "a", "b"]) == {
        "a": Counts(deletions=2),
        "b": Counts(hits=1, insertions=3),
    }


def test_the_interval_is_repeatable_and_holds_the_rate() -> None:
    counts = word_counts(*_texts(200, 0))
    low, high = confidence_interval(counts, seed=1)
    assert low < total(counts).rate < high
    assert (low, high) == confidence_interval(counts, seed=1)
    assert (low, high) != confidence_interval(counts, seed=2)


def test_the_interval_is_about_as_wide_as_the_binomial_one() -> None:
    draw = np.random.default_rng(0).random(2000) < 0.2
    counts = [Counts(substitutions=int(wrong), hits=int(not wrong)) for wrong in draw]
    low, high = confidence_interval(counts)
    rate = total(counts).rate
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(rate * (1 - rate) / 2000), rel=0.1)


def test_speakers_that_differ_widen_the_interval() -> None:
    counts = [Counts(substitutions=s, hits=10 - s) for s in (1, 2, 3, 9) for _ in range(25)]
    speakers = [f"speaker {n // 25}" for n in range(100)]
    low, high = confidence_interval(counts)
    speakers_low, speakers_high = confidence_interval(counts, speakers)
    assert speakers_high - speakers_low > 2 * (high - low)


def test_speakers_are_resampled_where_all_are_known_and_there_are_enough() -> None:
    five = ["a", "b", "c", "d", "e"]
    assert known_speakers([*five, "a"]) == [*five, "a"]
    assert known_speakers(["a", "b", "c", "d", "d"]) is None
    assert known_speakers([*five, None]) is None


def test_the_interval_of_perfect_text_is_zero() -> None:
    assert confidence_interval([Counts(hits=3)] * 5) == (0, 0)


def test_blocks_do_not_change_the_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = word_counts(*_texts(50, 0))
    expected = confidence_interval(counts, replicates=100)
    monkeypatch.setattr("asr.metrics.BLOCK", 350)
    assert confidence_interval(counts, replicates=100) == expected
