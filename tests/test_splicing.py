"""Texts that are put together from recordings: what is cut where, and a training on them."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from asr import checkpoint
from asr.batching import Example, TrainingSet
from asr.errors import TrainingError
from asr.phonemes import BLANK
from asr.training.splicing import Piece, Recorded, SplicedSet
from tests.models import TOKENIZER
from tests.test_spelling import heard
from tests.trainings import config, make_manifest, rows, run

BAD, CAB, FACE, ABE = ("bad", (5, 7, 9)), ("cab", (3, 7, 5)), ("face", (8, 4)), ("abe", (7, 5))


def recorded(*words: tuple[str, tuple[int, ...]], times: int = 1, store: int = 0) -> Recorded:
    """So many recordings of some words, a frame a phoneme and one of nothing before and after."""
    found = Recorded()
    add(found, *words, times=times, store=store)
    return found


def add(
    found: Recorded, *words: tuple[str, tuple[int, ...]], times: int = 1, store: int = 0
) -> None:
    labels = [label for _, word in words for label in word]
    for _ in range(times):
        assert found.add(len(found), store, heard(BLANK, BLANK, *labels, BLANK, BLANK), words)


def said(found: Recorded, *words: tuple[str, tuple[int, ...]], store: int = 0) -> list[Piece]:
    """Pieces drawn for some words, as often as it takes for all of recorded words to be whole."""
    drawn = [found.put_together(words, store, random.Random(seed)) for seed in range(20)]
    return min(drawn, key=len)


def test_a_phrase_comes_from_one_recording_and_others_are_joined_to_it() -> None:
    found = recorded(BAD, CAB, FACE, times=3)  # of 12 frames
    (before, whole, after) = said(found, BAD, CAB)
    assert before[1:] == pytest.approx((0, 0.5 / 12))
    assert whole[1:] == pytest.approx((0.5 / 12, 8 / 12))
    assert after[1:] == pytest.approx((11.5 / 12, 1))
    (_, face, bad, _) = said(found, FACE, BAD)
    assert face[1:] == pytest.approx((8 / 12, 11.5 / 12))
    assert bad[1:] == pytest.approx((0.5 / 12, 5 / 12))


def test_a_word_that_few_recordings_have_is_put_together_from_its_phonemes() -> None:
    found = recorded(BAD, CAB, times=3)
    (_, word, _) = said(found, ABE)  # as "cab" ends
    assert word[1:] == pytest.approx((6 / 10, 9.5 / 10))
    (_, first, second, _) = said(found, ("buck", (5, 3)))
    assert (first[2] - first[1], second[1]) == pytest.approx((2.5 / 10, 5 / 10))
    assert said(found, ("odd", (30,)))[1:-1] == []  # never heard


def test_phonemes_go_on_in_a_recording_for_as_long_as_it_says_them() -> None:
    found = recorded(BAD, times=3)
    (_, word, _) = said(found, ("badge", BAD[1]))
    assert word[1:] == pytest.approx((0.5 / 7, 6.5 / 7))


def test_a_manifests_own_recordings_come_first() -> None:
    found = recorded(BAD, times=5)
    add(found, BAD, CAB, times=2, store=1)
    for seed in range(10):
        pieces = found.put_together([BAD], 1, random.Random(seed))
        assert {pieces[0][0], pieces[-1][0]} <= {5, 6}
        if len(pieces) == 3 and pieces[1][1:] != pytest.approx((0.5 / 7, 6.5 / 7)):
            assert pieces[1][0] in (5, 6)
    assert {said(found, CAB, store=0)[1][0]} <= {5, 6}  # which only the other one has
    assert found.stores == {0: 5, 1: 2}


def test_a_recording_too_short_for_its_text_is_not_cut() -> None:
    found = Recorded()
    assert not found.add(0, 0, heard(5), [BAD])
    assert not found.add(0, 0, heard(5), [])
    assert len(found) == 0


def test_a_batch_has_recordings_as_they_are_and_texts_of_their_pieces() -> None:
    store = np.arange(22, dtype=np.float16)[:, None].repeat(
        4, 1
    )  # 10 frames and 12 of the other speed
    tokens = tuple(TOKENIZER.encode("bad"))
    example = Example("a", tokens, 0, (0, 10), (10, 12), BAD[1])
    data = TrainingSet([example], [store], [], 0.01)
    found = Recorded()
    assert found.add(0, 0, heard(BLANK, *BAD[1], BLANK), [BAD])
    spliced = SplicedSet(data, [(tokens, (BAD[1],))] * 3, found, share=0.4, tokenizer=TOKENIZER)
    assert [example.id for example in spliced.examples] == ["a", "a", "text-0", "text-1", "text-2"]
    assert spliced.hours == data.hours
    picks = [(1, 1), (2, 1), (2, 0)]
    batch = spliced.batch(picks)
    assert batch.feature_lengths.tolist()[0] == 12
    assert batch.features[0, :12, 0].tolist() == list(range(10, 22))
    assert batch.features[1, :, 0].max() <= 21
    assert batch.features[1, 0, 0] >= 10  # of the same speed
    assert batch.features[2, :, 0].max() <= 9
    assert batch.phonemes.tolist() == [list(BAD[1])] * 3
    torch.testing.assert_close(spliced.batch(picks).features, batch.features)


def test_training_learns_from_texts_put_together_from_its_recordings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pocketsphinx", reason="the pronouncing dictionary is not installed")
    manifest_path = make_manifest(tmp_path / "toy")
    (tmp_path / "text.txt").write_text("a bad cab\nthe cab is bad\n" * 4, encoding="utf-8")
    hears: dict[str, dict[str, Any]] = {"model": {"phonemes": True, "phoneme_layers": 1}}
    text: dict[str, dict[str, Any]] = {"spelling": {"texts": [str(tmp_path / "text.txt")]}}
    with pytest.raises(TrainingError, match=r"spelling\.texts: needs model\.phonemes"):
        run(tmp_path / "out", config(manifest_path, text))
    with pytest.raises(TrainingError, match=r"spelling\.texts: must begin with .* which has "):
        run(tmp_path / "out", config(manifest_path, hears, text))
    first = run(tmp_path / "first", config(manifest_path, hears)) / "model.pt"
    capsys.readouterr()
    kept = ["encoder.subsample", "encoder.layers.0", "phoneme_layers", "phonemes"]
    frozen: dict[str, dict[str, Any]] = {"training": {"frozen": kept, "phonemes": 0.0}}
    recipe = config(manifest_path, hears, text, frozen)
    output = run(tmp_path / "second", recipe, initial=first)
    assert "8 sentences of text, 28 words, beside speech" in capsys.readouterr().err
    before = checkpoint.load(first).model.state_dict()
    after = checkpoint.load(output / "model.pt").model.state_dict()
    same = {name for name, weight in before.items() if torch.equal(weight, after[name])}
    assert same == {name for name in before if name.startswith(tuple(kept))}
    found = [row["attention"] for row in rows(output)]
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("heard-*.npz")}
    assert len(files) == 1
    again = config(manifest_path, hears, text, frozen, {"training": {"max_steps": 3}})
    run(tmp_path / "third", again, initial=first)
    on = run(tmp_path / "third", recipe)  # goes on, and its recordings are cut where they were
    assert [row["attention"] for row in rows(on)] == found
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("heard-*.npz")} == files
    long = config(manifest_path, hears, text, frozen, {"data": {"max_seconds": 1.0}})
    with pytest.raises(TrainingError, match=r"all are longer than data\.max_seconds = 1"):
        run(tmp_path / "out", long, initial=first)
