"""The ladder of single changes: its list can be trained, and its table counts as `asr evaluate` does."""

import re
import shlex
import subprocess
from functools import partial
from pathlib import Path

import pytest
import torch
import trainings

from asr import checkpoint, config
from asr.batching import load_training_set
from asr.checkpoint import Trained
from asr.features import FeatureOptions
from asr.manifest import read
from asr.tokenizer import Tokenizer
from recipes.ladder import decoders
from recipes.ladder.rows import (
    CHANGES,
    DECODERS,
    ENCODERS,
    OF_DECODERS,
    OF_ENCODERS,
    error_rate,
    read_changes,
    table,
)

HEADER = "id\treference_words\tsubstitutions\tdeletions\tinsertions\treference_characters\tcharacter_errors\n"


def _write(path: Path, *rows: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(HEADER + "".join(row + "\n" for row in rows))


def test_every_change_is_one_that_the_recipe_takes() -> None:
    recipe = config.load("recipes/librispeech/here.toml")
    manifests = " ".join(recipe.data.train)
    for name, options in read_changes(CHANGES).items():
        words = shlex.split(options)
        if words[:1] == ["-x"]:
            assert re.search(rf"/{words[1]}(-train)?\.jsonl", manifests), name
            continue
        overrides = [word for word in words if word != "--set"]
        changed = config.load("recipes/librispeech/here.toml", overrides)
        assert changed != recipe or name in ("base", "guide", "sampling-0.2"), name


def test_every_encoder_is_one_that_the_recipe_takes() -> None:
    recipe = config.load("recipes/librispeech/here.toml")
    for name, options in read_changes(ENCODERS).items():
        overrides = [word for word in shlex.split(options) if word != "--set"]
        changed = config.load("recipes/librispeech/here.toml", overrides)
        assert (changed == recipe) == (name == "base"), name


def test_encoders_are_ranked_by_characters(tmp_path: Path) -> None:
    for name, errors in (("base", 5), ("gru", 4)):
        _write(tmp_path / name / "ctc.tsv", f"x\t2\t1\t0\t0\t10\t{errors}")
    assert table(tmp_path, {"gru": "--set a.b=1", "base": ""}, OF_ENCODERS) == [
        "| change | options | CER | WER |",
        "|---|---|---|---|",
        "| base |  | 50.0 % | 50.0 % |",
        "| gru | `--set a.b=1` | 40.0 % (-10.0) | 50.0 % (+0.0) |",
    ]


def test_word_error_rate_is_over_all_words(tmp_path: Path) -> None:
    _write(tmp_path / "a" / "greedy.tsv", "x\t10\t1\t1\t0", "y\t30\t0\t0\t2")
    assert error_rate(tmp_path / "a" / "greedy.tsv") == 0.1


def test_table_has_the_base_first_and_only_what_is_scored(tmp_path: Path) -> None:
    for name, errors in (("base", 4), ("better", 2), ("unfinished", 1)):
        _write(tmp_path / name / "greedy.tsv", f"x\t10\t{errors}\t0\t0")
        if name != "unfinished":
            _write(tmp_path / name / "search.tsv", f"x\t10\t{errors - 1}\t0\t0")
    lines = table(tmp_path, {"better": "--set a.b=1", "unfinished": "", "base": ""})
    assert lines[2:] == [
        "| base |  | 40.0 % | 30.0 % |",
        "| better | `--set a.b=1` | 20.0 % (-20.0) | 10.0 % (-20.0) |",
    ]
    assert table(tmp_path, {"better": ""}) == []


def _tiny(manifest: Path) -> tuple[Trained, config.Config]:
    recipe = trainings.config(manifest, {"training": {"learning_rate": 1e-3}})
    torch.manual_seed(0)
    tokenizer = Tokenizer()
    model = checkpoint.build(recipe.model, tokenizer, recipe.features)
    return Trained(model, tokenizer, recipe.features, {}), recipe


def test_decoders_learn_side_by_side_and_leave_the_encoder_as_it_is(tmp_path: Path) -> None:
    manifest = trainings.make_manifest(tmp_path / "toy")
    trained, recipe = _tiny(manifest)
    data = load_training_set(
        [("toy", read(manifest))],
        trained.tokenizer,
        features=trained.features,
        augmentation=recipe.augment,
        options=recipe.data,
    )
    small = tmp_path / "small.toml"
    small.write_text("[model.decoder]\nwidth = 16\n[model.decoder.attention]\nwidth = 8\n")
    texts = [trained.tokenizer.decode(example.tokens) for example in data.examples]
    changes = {"base": "", "dot": "--set model.decoder.attention.kind=dot"}
    before = {name: weight.clone() for name, weight in trained.model.state_dict().items()}
    learners = [decoders.build(name, changes[name], trained, texts, small) for name in changes]
    decoders.train(learners, trained, data, recipe, 2)
    first = [learner.loss for learner in learners]
    decoders.train(learners, trained, data, recipe, 40)
    assert all(learner.loss < loss for learner, loss in zip(learners, first, strict=True))
    assert all(torch.equal(before[n], w) for n, w in trained.model.state_dict().items())

    utterances = read(manifest)[:2]
    for name, found in decoders.transcribe(learners, trained, utterances).items():
        decoders.write_rows(tmp_path / name / "greedy.tsv", utterances, found)
    lines = table(tmp_path, changes, OF_DECODERS)
    assert lines[0] == "| change | options | CER | WER |"
    assert [line.split()[1] for line in lines[2:]] == ["base", "dot"]


def test_a_change_that_is_not_in_the_list_is_an_error_that_names_it() -> None:
    command = ["bash", "-c", 'source recipes/ladder/changes.sh; changes "$@"', "bash", str(CHANGES)]
    run = partial(subprocess.run, capture_output=True, text=True, check=False)
    found = run([*command, "base", "seed-2"])
    assert [line.partition(":")[0] for line in found.stdout.splitlines()] == ["base", "seed-2"]
    assert len(run(command).stdout.splitlines()) == len(read_changes(CHANGES))
    found = run([*command, "base", "seed"])
    assert (found.returncode, found.stdout) == (2, "")
    assert "seed is not in" in found.stderr


@pytest.mark.parametrize(("name", "line"), read_changes(DECODERS).items())
def test_every_decoder_of_the_list_can_be_built_and_spells(name: str, line: str) -> None:
    if "-p" in line:
        pytest.importorskip("sentencepiece", reason="sentencepiece is not installed")
    trained = Trained(checkpoint.load(decoders.MODEL).model, Tokenizer(), FeatureOptions(), {})
    texts = Path("tests/test_ladder.py").read_text(encoding="utf-8").lower().split("\n")
    learner = decoders.build(name, line.replace("1000", "300"), trained, texts)
    plain = (
        learner.recipe == config.load(decoders.RECIPE) and learner.tokenizer is trained.tokenizer
    )
    assert plain == (name == "base")
    memory = torch.randn(2, 9, 2 * trained.model.options.encoder.width)
    before = [weight.clone() for weight in learner.model.parameters()]
    for group in learner.optimizer.param_groups:
        group["lr"] = 1e-3
    learner.learn(memory, torch.tensor([9, 5]), ["the cat", "a"], 0.0)
    assert learner.loss > 0
    changed = [
        not torch.equal(*both) for both in zip(before, learner.model.parameters(), strict=True)
    ]
    assert sum(changed) > len(changed) / 2


def test_pieces_spell_what_they_were_given() -> None:
    pytest.importorskip("sentencepiece", reason="sentencepiece is not installed")
    texts = ["the cat sat on the mat", "the dog sat on the cat", "o'clock jumps quick vex wizard"]
    pieces = decoders.Pieces(texts, 40)
    for text in (*texts, "a mat"):
        tokens = pieces.encode(text)
        assert pieces.decode([Tokenizer.sos, *tokens, Tokenizer.eos]) == text
        assert all(Tokenizer.first_character <= token < pieces.size for token in tokens)
    assert len(pieces.encode("the cat")) < len("the cat")
