"""Transcript values: what goes into JSON, and what does not."""

import dataclasses
import json

import pytest
import torch

from asr.transcript import Attention, Failure, Segment, Transcript, Word


def test_to_dict_is_json_with_times_in_seconds_rounded_to_the_millisecond() -> None:
    word = Word("hello", 0.12345, 0.5, 0.98765)
    segment = Segment(0.0, 1.00049, "hello", (word,), 0.5)
    transcript = Transcript("hello", (segment,), 1.00049, 0.5, "a.wav")

    found = json.loads(json.dumps(transcript.to_dict()))

    assert found["duration"] == 1.0
    assert found["audio"] == "a.wav"
    assert found["complete"] is True
    assert found["segments"][0]["words"] == [
        {"text": "hello", "start": 0.123, "end": 0.5, "confidence": 0.988}
    ]


def test_unknown_confidence_is_null_and_not_zero() -> None:
    assert Transcript("", confidence=None).to_dict()["confidence"] is None


def test_attention_is_for_pictures_and_stays_out_of_comparison_and_json() -> None:
    attention = Attention(torch.full((2, 3), 1 / 3), ("a", "b"), 0.04)
    with_attention = Transcript("ab", duration=0.12, attention=attention)

    assert with_attention == Transcript("ab", duration=0.12)
    assert "attention" not in with_attention.to_dict()
    assert "tensor" not in repr(with_attention)


def test_transcripts_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Transcript("a").text = "b"  # type: ignore[misc]


def test_failures_and_words_of_all_segments_in_order() -> None:
    loop, skip = Failure("loop", 0.5, 1.0, "twice", mended=True), Failure("skip", 2.0, 3.0)
    first, second = Word("a", 0.0, 0.5), Word("b", 2.0, 2.5)
    segments = Segment(0, 1, "a", (first,), failures=(loop,)), Segment(2, 3, "b", (second,))
    transcript = Transcript("a b", (*segments, Segment(3, 4, "", failures=(skip,))))
    assert transcript.failures == (loop, skip)
    assert transcript.words == (first, second)
    assert transcript.to_dict()["segments"][0]["failures"] == [
        {"kind": "loop", "start": 0.5, "end": 1.0, "detail": "twice", "mended": True}
    ]
