"""What a speller learns from: pieces of what was heard, put together for texts, and a training of it."""

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from asr import checkpoint
from asr.batching import Example
from asr.errors import ConfigError, CorpusError, TrainingError
from asr.model.sounds import WIDTH, sounds
from asr.phonemes import BLANK, SIZE
from asr.training import state
from asr.training.hearing import Heard
from asr.training.run import new_model
from asr.training.spelling import (
    EDGE,
    Pieces,
    SpellingOptions,
    SpellingSet,
    places,
    read_texts,
)
from tests.models import TOKENIZER
from tests.trainings import config, make_manifest, rows, run

SPELLER: dict[str, dict[str, Any]] = {
    "model": {
        "phonemes": True,
        "speller": {
            "encoder": {"width": 8, "subsampling": 1, "pyramid_levels": 0, "flat_layers": 0},
            "decoder": {"width": 16, "embedding": 8, "attention": {"width": 4}},
        },
    },
    "training": {"speller_alone": True, "validate_every": 3, "learning_rate": 1e-2},
}


def heard(*labels: int, sure: float = 0.8) -> Heard:
    """A frame a label, of which the head is as sure as told."""
    frames = np.full((len(labels), SIZE), np.log((1 - sure) / (SIZE - 1)))
    frames[np.arange(len(labels)), labels] = np.log(sure)
    return frames.astype(np.float16)


def test_neighbours_are_those_within_the_word() -> None:
    assert places([(5, 7), (9,)]) == [(EDGE, 5, 7), (5, 7, EDGE), (EDGE, 9, EDGE)]


def test_what_was_heard_of_words_is_put_together_again() -> None:
    pieces, frames = Pieces(), heard(BLANK, 5, 5, BLANK, 7, 9, BLANK)
    assert pieces.add(frames, [(5, 7), (9,)])
    rng = random.Random(1)
    np.testing.assert_array_equal(pieces.put_together([(5, 7), (9,)], rng), frames[1:])
    np.testing.assert_array_equal(pieces.put_together([(9,), (5, 7)], rng)[:2], frames[5:])
    assert pieces.put_together([(30,)], rng).shape == (0, SIZE)  # it was never heard


def test_pieces_are_of_the_same_neighbours_where_enough_were_heard() -> None:
    pieces = Pieces()
    for _ in range(3):
        assert pieces.add(heard(5, 7, sure=0.8), [(5, 7)])
        assert pieces.add(heard(5, 8, sure=0.6), [(5, 8)])
    drawn = [pieces.put_together([(5, 8)], random.Random(seed))[0, 5] for seed in range(20)]
    assert np.exp(drawn) == pytest.approx(0.6, abs=1e-3)
    both = {
        round(float(np.exp(pieces.put_together([(5, 9)], random.Random(seed))[0, 5])), 1)
        for seed in range(20)
    }
    assert both == {0.6, 0.8}  # never heard before 9: of any neighbours


def test_speech_too_short_for_its_text_gives_no_pieces() -> None:
    pieces = Pieces()
    assert not pieces.add(heard(5), [(5, 7)])
    assert not pieces.add(heard(5), [])
    assert pieces.put_together([(5,)], random.Random(1)).shape == (0, SIZE)


def test_an_epoch_has_the_share_of_speech_that_is_asked_for_and_its_batches_can_be_repeated() -> (
    None
):
    pieces = Pieces()
    for _ in range(5):
        for sure in (0.5, 0.6, 0.7, 0.8):
            pieces.add(heard(5, BLANK, 7, sure=sure), [(5, 7)])
    speech = [(Example("a", (4, 5), 0, (), (3,)), (heard(5, BLANK, 7), heard(5, 7)))]
    texts = [((6,), ((5,),)), ((7,), ((7,),)), ((8,), ((5, 7),))] * 2
    found = SpellingSet(speech, texts, pieces, share=0.4, hop_seconds=0.1, skipped=[])
    assert [example.id for example in found.examples][:5] == ["a"] * 4 + ["text-0"]
    assert found.examples[0].frames == (3, 2)
    assert found.hours == pytest.approx(3 * 0.1 / 3600)
    picks = [(0, 1), (4, 0), (6, 0)]
    batch = found.batch(picks)
    assert batch.features.shape[2] == WIDTH
    assert batch.token_lengths.tolist() == [2, 1, 1]
    torch.testing.assert_close(batch.features[0, :2], sounds(torch.from_numpy(heard(5, 7))))
    torch.testing.assert_close(found.batch(picks).features, batch.features)
    others = [found.batch([(9, 0)] * count).features for count in range(1, 9)]
    assert any(not torch.equal(other[0, :1], others[0][0, :1]) for other in others)


def test_sentences_with_words_that_cannot_be_pronounced_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "said.txt").write_text("bad  B AE D\nface  F EY S\n", encoding="utf-8")
    (tmp_path / "text.txt").write_text("Bad face!\nbad cab\n", encoding="utf-8")
    options = SpellingOptions(
        (str(tmp_path / "text.txt"),), pronunciations=str(tmp_path / "said.txt")
    )
    ((tokens, words),), (left_out,) = read_texts(options, [], TOKENIZER)
    assert left_out == f"{tmp_path / 'text.txt'}:2: no pronunciation of 'cab'"
    assert TOKENIZER.decode(tokens) == "badface"  # its alphabet has neither s nor a space
    assert [len(word) for word in words] == [3, 3]
    assert read_texts(SpellingOptions(), [], TOKENIZER) == ([], [])
    assert read_texts(replace(options, speech=1.0), [], TOKENIZER) == ([], [])
    (tmp_path / "text.txt").write_text("bad cab\n", encoding="utf-8")
    with pytest.raises(TrainingError, match=r"spelling\.texts: no sentence can be used; .*'cab'"):
        read_texts(options, [], TOKENIZER)


def test_text_that_holds_a_held_out_sentence_is_refused(tmp_path: Path) -> None:
    sentence = "one two three four five six seven"
    for name in ("text.txt", "dev.txt"):
        (tmp_path / name).write_text(f"{sentence}\n", encoding="utf-8")
    (tmp_path / "said.txt").write_text("one  W AH N\n", encoding="utf-8")
    options = SpellingOptions(
        (str(tmp_path / "text.txt"),), pronunciations=str(tmp_path / "said.txt")
    )
    with pytest.raises(CorpusError, match=r"text\.txt"):
        read_texts(options, [str(tmp_path / "dev.txt")], TOKENIZER)
    with pytest.raises(CorpusError, match=r"text\.txt"):
        read_texts(replace(options, exclude=(str(tmp_path / "dev.txt"),)), [], TOKENIZER)


def test_a_speller_learns_from_speech_and_text_beside_a_model_that_stays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pocketsphinx", reason="the pronouncing dictionary is not installed")
    manifest_path = make_manifest(tmp_path / "toy")
    texts = "a bad cab\nthe cab is bad\n" * 4 + "a zzyzzx\n"
    (tmp_path / "text.txt").write_text(texts, encoding="utf-8")
    run(tmp_path / "first", config(manifest_path, {"model": {"phonemes": True}}))
    first = tmp_path / "first" / "model.pt"
    text: dict[str, dict[str, Any]] = {"spelling": {"texts": [str(tmp_path / "text.txt")]}}
    recipe = config(manifest_path, SPELLER, text, dev=True)
    output = run(tmp_path / "second", recipe, initial=first)
    said = capsys.readouterr().err
    assert "8 sentences of text, 28 words, beside speech; left out: 1, as " in said
    before = checkpoint.load(first).model.state_dict()
    after = checkpoint.load(output / "model.pt").model.state_dict()
    assert all(torch.equal(weight, after[name]) for name, weight in before.items())
    assert {name.partition(".")[0] for name in set(after) - set(before)} == {"speller"}
    assert [row["step"] for row in rows(output, "dev")] == [3, 6]
    found = [row["attention"] for row in rows(output)]
    assert found[-1] < found[0]
    again = run(tmp_path / "third", recipe, initial=first)
    assert [row["attention"] for row in rows(again)] == found
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("heard-*-1-of-1.npz")}
    assert len(kept) == 2  # a pass each; the second training heard nothing anew
    other = "its speech or texts are not what it began with"
    assert other not in capsys.readouterr().err
    (tmp_path / "text.txt").write_text("a bad cab\n", encoding="utf-8")
    run(tmp_path / "third", recipe, initial=first)
    assert other in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("heard-*.npz")} == kept
    dropping = config(manifest_path, SPELLER, text, {"model": {"encoder": {"dropout": 0.5}}})
    run(tmp_path / "fourth", dropping, initial=first)
    assert len(set(tmp_path.rglob("heard-*.npz"))) == 4  # other dropout hears otherwise


def test_a_new_spellers_decoder_begins_as_the_decoder(tmp_path: Path) -> None:
    manifest_path = make_manifest(tmp_path / "toy")
    path = run(tmp_path / "first", config(manifest_path)) / "model.pt"
    first = checkpoint.load(path)
    recipe = config(manifest_path, SPELLER)
    model = new_model(recipe.model, recipe.features, 1, torch.device("cpu")).model
    missing, _ = state.initialise(model, path)
    assert model.speller is not None
    for part in ("embed", "output"):
        ours, theirs = getattr(model.speller.decoder, part), getattr(first.model.decoder, part)
        assert torch.equal(ours.weight, theirs.weight)
    assert "speller.decoder.attention.query.weight" in missing


def test_a_speller_alone_needs_one_and_an_end_that_is_no_epoch(tmp_path: Path) -> None:
    manifest_path = make_manifest(tmp_path / "toy")
    with pytest.raises(TrainingError, match=r"speller_alone: needs a table model\.speller"):
        run(tmp_path, config(manifest_path, {"training": {"speller_alone": True}}))
    for name, value in (("epochs", 1.0), ("phonemes_alone", True)):
        with pytest.raises(ConfigError, match=f"training.{name}.*speller_alone"):
            config(manifest_path, SPELLER, {"training": {name: value}})
    with pytest.raises(ConfigError, match=r"spelling.speech 0: must be from 0.01 to 1"):
        SpellingOptions(speech=0)
    with pytest.raises(ConfigError, match=r"spelling.skip: lines of spelling.texts, of which"):
        SpellingOptions(skip=("books.txt:1-2",))


def test_parts_that_would_stay_random_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("pocketsphinx", reason="the pronouncing dictionary is not installed")
    manifest_path = make_manifest(tmp_path / "toy")
    with pytest.raises(
        TrainingError, match=r"speller_alone: must begin with .* which has .*phonemes"
    ):
        run(tmp_path / "out", config(manifest_path, SPELLER))
    first = run(tmp_path / "first", config(manifest_path)) / "model.pt"
    with pytest.raises(
        TrainingError, match=r"speller_alone: must begin with .* which has .*phonemes"
    ):
        run(tmp_path / "out", config(manifest_path, SPELLER), initial=first)
    hears = config(manifest_path, {"model": {"phonemes": True}})
    other = config(manifest_path, SPELLER, {"model": {"encoder": {"channels": 3}}})
    hearing = run(tmp_path / "hears", hears) / "model.pt"
    with pytest.raises(TrainingError, match=r"speller_alone: .* which has encoder; name it"):
        run(tmp_path / "out", other, initial=hearing)
    beside = config(manifest_path, SPELLER, {"training": {"speller_alone": False}})
    with pytest.raises(TrainingError, match=r"model\.speller: a new one learns with"):
        run(tmp_path / "out", beside, initial=first)
    text: dict[str, dict[str, Any]] = {"spelling": {"texts": ["text.txt"]}}
    with pytest.raises(TrainingError, match=r"spelling\.texts: only training\.speller_alone"):
        run(tmp_path / "out", config(manifest_path, text))
