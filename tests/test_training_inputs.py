"""What a training is given: weights to begin with, and the one clear line where something cannot be used."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from trainings import config, make_manifest, rows, run, state

from asr import checkpoint, manifest, options
from asr.checkpoint import Trained
from asr.config import Config
from asr.errors import AsrError
from asr.manifest import Utterance
from asr.model import ModelOptions
from asr.tokenizer import Tokenizer

LOCATION = {"model": {"decoder": {"attention": {"kind": "location"}}}}
DOT = {"model": {"decoder": {"attention": {"kind": "dot"}}}}
STILL = {"training": {"max_steps": 1, "learning_rate": 0.0}}


@pytest.fixture(scope="module")
def manifest_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_manifest(tmp_path_factory.mktemp("corpus"))


def _message(output: Path, recipe: Config, **arguments: Any) -> str:
    """The one line that a training ends with before it has made a step."""
    with pytest.raises(AsrError) as error:
        run(output, recipe, **arguments)
    assert "\n" not in str(error.value)
    assert not (output / "last.pt").exists()
    return str(error.value)


def test_initial_copies_the_weights_that_fit_and_says_which_are_new(
    tmp_path: Path, manifest_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = run(tmp_path / "first", config(manifest_path, DOT)) / "model.pt"
    capsys.readouterr()
    output = run(tmp_path / "second", config(manifest_path, LOCATION, STILL), initial=first)
    given, own = checkpoint.load(first).model.state_dict(), state(output)["weights"]
    new = {"attention.energy", "attention.location", "attention.project"}
    assert {name for name in own if name not in given} == {f"decoder.{name}.weight" for name in new}
    assert all(torch.equal(own[name], given[name]) for name in given)
    line = next(x for x in capsys.readouterr().err.splitlines() if x.startswith("weights from"))
    assert line.split("; new: ")[0] == f"weights from {first}"
    assert set(line.split("; new: ")[1].split(", ")) == {f"decoder.{name}.weight" for name in new}


def test_initial_leaves_a_weight_of_another_shape_as_it_is(
    tmp_path: Path, manifest_path: Path
) -> None:
    first = run(tmp_path / "first", config(manifest_path)) / "model.pt"
    wider = config(manifest_path, {"model": {"decoder": {"embedding": 12}}}, STILL)
    alone = state(run(tmp_path / "alone", wider))["weights"]
    own = state(run(tmp_path / "second", wider, initial=first))["weights"]
    given = checkpoint.load(first).model.state_dict()
    assert torch.equal(own["decoder.embed.weight"], alone["decoder.embed.weight"])
    assert torch.equal(own["ctc.weight"], given["ctc.weight"])


def test_layers_that_initial_has_not_got_begin_as_the_identity(
    tmp_path: Path, manifest_path: Path
) -> None:
    shallow, deep = (
        {"model": {"encoder": {"residual": True, "flat_layers": count}}} for count in (0, 2)
    )
    first = run(tmp_path / "first", config(manifest_path, shallow)) / "model.pt"
    second = run(tmp_path / "second", config(manifest_path, deep, STILL), initial=first)
    one, other = (checkpoint.load(path).model for path in (first, second / "model.pt"))
    assert len(other.encoder.layers) == len(one.encoder.layers) + 2
    features = torch.randn(1, 40, 20)
    lengths = torch.tensor([40])
    assert torch.equal(other.encode(features, lengths).values, one.encode(features, lengths).values)
    third = run(tmp_path / "third", config(manifest_path, deep), initial=first) / "model.pt"
    learnt = checkpoint.load(third).model.encoder.layers[-1].norm.weight
    assert learnt.abs().min() > 0


def test_a_training_that_goes_on_does_not_begin_again_with_initial(
    tmp_path: Path, manifest_path: Path
) -> None:
    first = run(tmp_path / "first", config(manifest_path)) / "model.pt"
    output = run(tmp_path / "second", config(manifest_path), initial=first)
    before = state(output)["weights"]["ctc.weight"]
    run(output, config(manifest_path), initial=first)
    assert torch.equal(state(output)["weights"]["ctc.weight"], before)
    assert len(rows(output)) == 6


def test_a_model_tells_what_it_began_with_even_after_the_training_was_resumed(
    tmp_path: Path, manifest_path: Path
) -> None:
    first = run(tmp_path / "first", config(manifest_path)) / "model.pt"
    once = config(manifest_path, {"training": {"max_steps": 1}})
    second = run(run(tmp_path / "second", once, initial=first), config(manifest_path))
    before, info = checkpoint.load(first).info, checkpoint.load(second / "model.pt").info
    assert "begun_with" not in before
    del before["validations"]
    assert info["begun_with"] == before
    assert info["steps"] > 1


def test_initial_that_cannot_be_used_is_one_clear_error(
    tmp_path: Path, manifest_path: Path
) -> None:
    recipe, path = config(manifest_path), tmp_path / "other.pt"
    message = _message(tmp_path / "out", recipe, initial=path)
    assert message.startswith(f"{path}: cannot read model")
    path.write_bytes(b"not a model")
    message = _message(tmp_path / "out", recipe, initial=path)
    assert message.startswith(f"{path}: damaged")
    tables = {"encoder": {"width": 5, "channels": 3, "norm": False}, "ctc": False}
    tables["decoder"] = {"width": 7, "embedding": 3, "attention": {"kind": "fixed"}}
    model = options.from_dict(ModelOptions, tables)
    tokenizer, features = Tokenizer("ab"), recipe.features
    other = Trained(checkpoint.build(model, tokenizer, features), tokenizer, features, {})
    checkpoint.save(path, other)
    message = _message(tmp_path / "out", recipe, initial=path)
    assert message == f"{path}: no weight of it fits this network"


@pytest.mark.parametrize("content", ["", "\n\n"])
def test_an_empty_manifest_is_one_clear_error(
    tmp_path: Path, manifest_path: Path, content: str
) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.write_text(content, encoding="utf-8")
    message = _message(tmp_path / "a", config(empty))
    assert message == f"{empty}: the manifest has no utterances"
    dev = config(manifest_path, {"data": {"dev": [str(empty)]}})
    assert _message(tmp_path / "b", dev) == f"data.dev: no utterance in {empty}"


def test_only_the_ids_of_a_file_are_trained_on_and_those_that_are_nowhere_are_counted(
    tmp_path: Path, manifest_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    utterances = manifest.read(manifest_path)
    ids = tmp_path / "ids.txt"
    ids.write_text(f"# a part\n{utterances[1].id}\n\n {utterances[3].id} \nnowhere\n")
    recipe = config(manifest_path, {"data": {"only": [str(ids)]}})
    run(tmp_path / "out", recipe)
    printed = capsys.readouterr().err
    assert "2 utterances" in printed
    assert f"{ids}: 1 of 3 ids are in no manifest, as nowhere" in printed
    other = tmp_path / "other.txt"
    other.write_text("nowhere\n")  # as of a corpus that is left out
    run(tmp_path / "two", config(manifest_path, {"data": {"only": [str(ids), str(other)]}}))
    assert f"{other}: 1 of 1 ids are in no manifest" in capsys.readouterr().err
    ids.write_text("nowhere\n")
    message = _message(tmp_path / "none", recipe)
    assert message == f"data.only {ids}: none of the 1 ids is in a manifest"
    ids.unlink()
    assert f"data.only {ids}" in _message(tmp_path / "gone", recipe)


def test_transcripts_that_hold_a_sentence_of_a_test_set_are_refused_with_the_place(
    tmp_path: Path, manifest_path: Path
) -> None:
    utterances = manifest.read(manifest_path)
    sentence = "it was on a dreary night of november"
    spoilt = [utterances[0], replace(utterances[1], text=sentence.upper() + "!")]
    train, test = tmp_path / "spoilt.jsonl", tmp_path / "test.jsonl"
    manifest.write(train, spoilt)
    manifest.write(test, [replace(utterances[2], text=sentence), utterances[3]])
    recipe = config(train, {"data": {"exclude": [str(test)]}})
    message = _message(tmp_path / "out", recipe)
    assert message.startswith("1 of 2 sentences hold text that is kept out")
    assert f"{train}:2 has {test}:1" in message
    ids = tmp_path / "ids.txt"  # the line is the manifest's, also where not all of it is trained on
    ids.write_text(f"{spoilt[1].id}\n")
    part = config(train, {"data": {"exclude": [str(test)], "only": [str(ids)]}})
    assert f"{train}:2 has {test}:1" in _message(tmp_path / "part", part)
    manifest.write(train, spoilt[:1])
    assert (run(tmp_path / "good", recipe) / "model.pt").exists()


def test_no_manifest_or_a_missing_one_is_one_clear_error(
    tmp_path: Path, manifest_path: Path
) -> None:
    missing = tmp_path / "missing.jsonl"
    assert "data.train: name at least one" in _message(
        tmp_path / "a", config(manifest_path, {"data": {"train": []}})
    )
    assert str(missing) in _message(tmp_path / "b", config(missing))
    dev = config(manifest_path, {"data": {"dev": [str(missing)]}})
    assert str(missing) in _message(tmp_path / "c", dev)


def test_recordings_that_are_all_unreadable_are_one_clear_error(
    tmp_path: Path, manifest_path: Path
) -> None:
    path, gone = tmp_path / "gone.jsonl", tmp_path / "gone.wav"
    manifest.write(path, [Utterance("a", gone, 1.0, "a"), Utterance("b", gone, 1.0, "b")])
    message = _message(tmp_path / "a", config(path))
    assert message.startswith("no utterance to train on")
    assert str(gone) in message
    dev = config(manifest_path, {"data": {"dev": [str(path)]}})
    message = _message(tmp_path / "b", dev)
    assert message.startswith("data.dev: no recording can be read")
    assert str(gone) in message


def test_one_unreadable_recording_is_named_and_the_rest_is_learnt(
    tmp_path: Path, manifest_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, gone = tmp_path / "train.jsonl", tmp_path / "gone.wav"
    utterances = manifest.read(manifest_path)
    manifest.write(path, [Utterance("gone", gone, 1.0, "a"), *utterances])
    recipe = config(path, {"training": {"validate_every": 6}}, dev=True)
    assert (run(tmp_path / "out", recipe) / "model.pt").exists()
    printed = capsys.readouterr().err
    assert f"left out: {path}: {gone}" in printed
    assert f"{len(utterances)} utterances" in printed


def test_a_training_without_an_end_is_refused(tmp_path: Path, manifest_path: Path) -> None:
    endless = config(manifest_path, {"training": {"max_steps": 0}})
    message = _message(tmp_path / "out", endless)
    assert "never end" in message
    for name in ("hours", "epochs", "max_steps", "patience"):
        assert f"training.{name}" in message


@pytest.mark.parametrize("device", ["abacus", "cuda"])
def test_a_device_that_is_not_there_is_refused(
    tmp_path: Path, manifest_path: Path, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert repr(device) in _message(tmp_path / "out", config(manifest_path), device=device)
