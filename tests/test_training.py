"""What a training does and leaves behind: it learns, measures as `asr evaluate` does, and keeps the best model."""

import itertools
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from models import tiny_model
from trainings import config, losses, make_manifest, rows, run, same_weights, state

from asr import checkpoint, devices, manifest
from asr.errors import CheckpointError, ConfigError, TrainingError
from asr.evaluate import evaluate
from asr.manifest import Utterance
from asr.model import Losses
from asr.recognizer import load
from asr.training import loop, validation
from asr.training import run as training_run
from asr.training import state as training_state
from asr.training.validation import Validation, spread

LEARNS: dict[str, dict[str, Any]] = {
    "model": {"encoder": {"width": 32, "channels": 8}, "decoder": {"width": 32}},
    "training": {"learning_rate": 1e-2, "warmup_steps": 10, "guide_steps": 60}
    | {"label_smoothing": 0.0, "ctc": 0.3, "validate_every": 1000},
}


@pytest.fixture(scope="module")
def manifest_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_manifest(tmp_path_factory.mktemp("corpus"))


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validation, "attention_plot", lambda *arguments, **options: None)


def _break_losses(monkeypatch: pytest.MonkeyPatch, kind: str, calls: range) -> None:
    """Spoil the loss, or only its gradient, in the given calls (from 0)."""
    intact, counter = loop._losses, itertools.count()

    def spoilt(*arguments: Any) -> Losses:
        found = intact(*arguments)
        if next(counter) not in calls:
            return found
        if kind == "loss":
            return replace(found, total=found.total * float("nan"))
        return replace(found, total=found.total + (0 * found.total).sqrt())

    monkeypatch.setattr(loop, "_losses", spoilt)


def test_a_tiny_model_memorises_four_utterances_in_seconds(tmp_path: Path) -> None:
    path = make_manifest(tmp_path / "four", utterances=4)
    run(tmp_path / "out", config(path, LEARNS, {"training": {"max_steps": 120}}))
    result = evaluate(load(tmp_path / "out" / "model.pt", beam_size=1), manifest.read(path))
    assert [row.hypothesis for row in result.rows] == [row.reference for row in result.rows]
    assert result.diagonality > 0.8


def test_validation_wer_in_training_equals_evaluate_with_the_saved_model(
    tmp_path: Path, manifest_path: Path, no_pictures: None
) -> None:
    steps = {"training": {"max_steps": 45, "validate_every": 15, "precision": "bf16"}}
    output = run(tmp_path, config(manifest_path, LEARNS, steps, dev=True))
    found = rows(output, "dev")
    assert [row["step"] for row in found] == [15, 30, 45]
    for row in found:
        recognizer = load(output / f"step-{row['step']:07d}.pt", beam_size=1)
        result = evaluate(recognizer, manifest.read(manifest_path))
        assert (row["wer"], row["cer"]) == (result.wer, result.cer)
    assert 0 < found[-1]["cer"] < found[0]["cer"]  # so that equal figures say something


@pytest.mark.parametrize("kind", ["loss", "gradient"])
def test_a_step_without_a_finite_gradient_is_skipped_counted_and_named(
    tmp_path: Path,
    manifest_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    kind: str,
) -> None:
    steady = {"training": {"cooldown": 0.0}}
    before = run(tmp_path / "a", config(manifest_path, steady, {"training": {"max_steps": 3}}))
    assert "skipped" not in capsys.readouterr().err
    _break_losses(monkeypatch, kind, range(3, 4))
    after = run(tmp_path / "b", config(manifest_path, steady, {"training": {"max_steps": 4}}))
    assert same_weights(state(before), state(after))
    moments = [state(output)["optimizer"]["state"][0]["exp_avg"] for output in (before, after)]
    assert torch.equal(*moments)
    assert state(before)["progress"]["skipped_steps"] == 0
    assert state(after)["progress"]["skipped_steps"] == 1
    line = next(line for line in capsys.readouterr().err.splitlines() if "skipped" in line)
    assert line.startswith("step 3: gradient not finite")
    named = set(line.split(": ")[-1].split(", "))
    assert named
    assert named <= {utterance.id for utterance in manifest.read(manifest_path)}


def test_a_skipped_step_leaves_no_nan_in_the_log(
    tmp_path: Path, manifest_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _break_losses(monkeypatch, "loss", range(2, 3))
    run(tmp_path, config(manifest_path, {"training": {"log_every": 2}}))
    assert "NaN" not in (tmp_path / "metrics.jsonl").read_text(encoding="utf-8")
    assert len(rows(tmp_path)) == 3


def test_too_many_skipped_steps_in_a_row_are_one_clear_error(
    tmp_path: Path, manifest_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = {"training": {"max_steps": 50}}
    limit = loop.MAX_SKIPPED_IN_A_ROW
    _break_losses(monkeypatch, "loss", range(limit))
    run(tmp_path / "enough", config(manifest_path, many, {"training": {"max_steps": limit + 2}}))
    _break_losses(monkeypatch, "loss", range(50))
    with pytest.raises(TrainingError, match=f"{limit + 1} steps in a row .*learning rate"):
        run(tmp_path / "too-many", config(manifest_path, many))


def test_hours_end_in_about_that_time_with_a_model_and_a_whole_cooldown(
    tmp_path: Path, manifest_path: Path
) -> None:
    seconds = 2.0
    recipe = config(manifest_path, {"training": {"max_steps": 0, "hours": seconds / 3600}})
    output = run(tmp_path, recipe)
    assert (output / "model.pt").exists()
    assert 0.6 * seconds < state(output)["progress"]["elapsed"] < 1.5 * seconds
    rates = [row["learning_rate"] for row in rows(output)]
    assert max(rates) == 1e-3
    assert rates[-1] < 0.4 * max(rates)


def test_epochs_count_passes_over_the_data(tmp_path: Path, manifest_path: Path) -> None:
    run(tmp_path, config(manifest_path, {"training": {"max_steps": 0, "epochs": 2}}))
    progress = state(tmp_path)["progress"]
    seconds = sum(utterance.duration for utterance in manifest.read(manifest_path))
    assert progress["audio_seconds"] == pytest.approx(2 * seconds, rel=0.05)


def test_patience_ends_a_training_that_gets_no_better(
    tmp_path: Path, manifest_path: Path, monkeypatch: pytest.MonkeyPatch, no_pictures: None
) -> None:
    wers: Iterator[float] = itertools.chain([0.9, 0.8], itertools.repeat(0.85))
    monkeypatch.setattr(Validation, "measure", lambda *_: {"wer": next(wers)})
    patient = {"training": {"max_steps": 0, "patience": 3, "validate_every": 1}}
    run(tmp_path, config(manifest_path, patient, dev=True))
    assert state(tmp_path)["progress"]["step"] == 5
    assert state(tmp_path)["progress"]["best_wer"] == 0.8


@pytest.mark.parametrize("best", ["last", "average", "best"])
def test_the_final_model_is_the_best_on_dev_of_last_average_and_best(
    tmp_path: Path,
    manifest_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    no_pictures: None,
    best: str,
) -> None:
    final = [0.2 if name == best else 0.3 for name in ("last", "average", "best")]
    wers = iter([0.9, 0.8, 0.85, *final])
    monkeypatch.setattr(Validation, "measure", lambda *_: {"wer": next(wers)})
    output = run(tmp_path, config(manifest_path, {"training": {"validate_every": 2}}, dev=True))
    model = checkpoint.load(output / "model.pt")
    steps = [output / f"step-000000{step}.pt" for step in (2, 4, 6)]
    candidates = {"last": steps[2], "best": steps[1]}
    weights = {name: checkpoint.load(path).model.state_dict() for name, path in candidates.items()}
    weights["average"] = checkpoint.average(steps).model.state_dict()
    assert {name for name in weights if _equal(weights[name], model.model.state_dict())} == {best}
    assert (model.info["chosen"], model.info["dev"], model.info["steps"]) == (best, {"wer": 0.2}, 6)
    assert model.info["manifests"] == ["manifest.jsonl"]
    assert [row["wer"] for row in model.info["validations"]] == [0.9, 0.8, 0.85]


def test_only_the_last_checkpoints_are_kept(tmp_path: Path, manifest_path: Path) -> None:
    run(tmp_path, config(manifest_path, {"training": {"validate_every": 1, "average": 2}}))
    assert sorted(path.name for path in tmp_path.glob("step-*")) == [
        "step-0000005.pt",
        "step-0000006.pt",
    ]


def test_metrics_tensorboard_and_attention_pictures_appear(
    tmp_path: Path, manifest_path: Path
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    often = {"training": {"validate_every": 3, "log_every": 2}}
    run(tmp_path, config(manifest_path, often, dev=True))
    lines = (tmp_path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    kinds = [(row["kind"], row["step"]) for row in map(json.loads, lines)]
    assert kinds == [("train", 2), ("dev", 3), ("train", 4), ("train", 6), ("dev", 6)]
    pictures = sorted((tmp_path / "attention").iterdir())
    assert [path.name for path in pictures] == ["step-0000003.png", "step-0000006.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in pictures)
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    assert board.Tags()["images"] == ["attention"]
    assert {"train/attention", "train/ctc", "train/learning_rate", "dev/wer", "dev/cer"} <= set(
        board.Tags()["scalars"]
    )
    assert [event.step for event in board.Scalars("dev/wer")] == [3, 6]


def test_small_batches_of_one_step_equal_a_large_batch(tmp_path: Path, manifest_path: Path) -> None:
    whole = {"data": {"batch_seconds": 100.0}}
    small = {"data": {"batch_seconds": 2.5}, "training": {"accumulate": 3}}
    one = run(tmp_path / "one", config(manifest_path, whole))
    three = run(tmp_path / "three", config(manifest_path, small))
    assert state(three)["progress"]["epoch"] == state(one)["progress"]["epoch"]
    torch.testing.assert_close(losses(three), losses(one), rtol=1e-4, atol=1e-4)


def test_bf16_changes_the_losses_a_little(tmp_path: Path, manifest_path: Path) -> None:
    exact = run(tmp_path / "float32", config(manifest_path))
    short = run(tmp_path / "bf16", config(manifest_path, {"training": {"precision": "bf16"}}))
    assert losses(short) != losses(exact)
    torch.testing.assert_close(losses(short)[:3], losses(exact)[:3], rtol=0.02, atol=0.02)


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("known", [True, False])
def test_auto_is_bf16_where_the_chip_is_faster_in_it_and_knows_the_layers(
    monkeypatch: pytest.MonkeyPatch, fast: bool, known: bool
) -> None:
    monkeypatch.setattr(devices, "multiplies_bf16", lambda device: fast)
    monkeypatch.setattr(devices, "has_bf16_kernels", lambda model: known)
    cpu = torch.device("cpu")
    assert training_run.uses_bf16("auto", tiny_model(), cpu) is (fast and known)
    assert training_run.uses_bf16("bf16", tiny_model(), cpu)
    assert not training_run.uses_bf16("float32", tiny_model(), cpu)


def test_short_utterances_come_first_for_their_epochs_then_a_random_order_of_the_seed(
    tmp_path: Path, manifest_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    intact = loop._losses
    seen: list[tuple[float, tuple[str, ...]]] = []

    def watched(*arguments: Any) -> Losses:
        seen.append((arguments[1].seconds / len(arguments[1].ids), arguments[1].ids))
        return intact(*arguments)

    def order(name: str, **options: int) -> list[tuple[float, tuple[str, ...]]]:
        """Mean length and ids of the batches of two epochs, three each."""
        seen.clear()
        run(tmp_path / name, config(manifest_path, {"training": options}))
        return list(seen)

    monkeypatch.setattr(loop, "_losses", watched)
    both = order("both", short_first_epochs=2)
    assert both[:3] == sorted(both[:3])
    assert both[3:] == sorted(both[3:])
    first = order("first", short_first_epochs=1)
    assert first[:3] == both[:3]
    assert first[3:] != both[3:]
    assert sorted(first[3:]) == sorted(both[3:])
    other = order("other", short_first_epochs=1, seed=2)
    assert [ids for _, ids in other] != [ids for _, ids in first]


def test_masks_begin_at_their_step(
    tmp_path: Path, manifest_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    masks = {"augment": {"time_masks": 3, "time_mask_fraction": 0.5}}
    plain = run(tmp_path / "plain", config(manifest_path))
    masked = {"training": {"masks_from": 3}}
    later = run(tmp_path / "later", config(manifest_path, masks, masked))
    assert losses(later)[:3] == losses(plain)[:3]
    assert losses(later)[3] != losses(plain)[3]


def test_every_step_draws_masks_of_its_own(
    tmp_path: Path, manifest_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds = []

    def watched(features: torch.Tensor, *arguments: Any) -> torch.Tensor:
        seeds.append(arguments[-1].initial_seed())
        return features

    monkeypatch.setattr(loop, "spec_augment", watched)
    run(tmp_path, config(manifest_path, {"training": {"masks_from": 0}}))
    assert len(seeds) == len(set(seeds)) == 6


def test_a_decoder_that_has_not_begun_to_learn_is_not_measured(
    tmp_path: Path, manifest_path: Path, no_pictures: None
) -> None:
    options = {"training": {"ctc_alone_steps": 4, "validate_every": 2}}
    output = run(tmp_path / "a", config(manifest_path, options, dev=True))
    assert [row["step"] for row in rows(output, "dev")] == [6]


def test_phonemes_alone_learn_from_a_model_whose_other_weights_stay(
    tmp_path: Path, manifest_path: Path
) -> None:
    pytest.importorskip("pocketsphinx", reason="the pronouncing dictionary is not installed")
    run(tmp_path / "first", config(manifest_path, {"model": {"phonemes": True}}))
    alone = {
        "model": {"phonemes": True, "phoneme_layers": 1},
        "training": {"phonemes_alone": True, "validate_every": 3, "learning_rate": 1e-2},
    }
    recipe = config(manifest_path, alone, dev=True)
    run(tmp_path / "second", recipe, initial=tmp_path / "first" / "model.pt")
    before = checkpoint.load(tmp_path / "first" / "model.pt").model.state_dict()
    after = checkpoint.load(tmp_path / "second" / "model.pt").model.state_dict()
    changed = {name for name, weight in before.items() if not torch.equal(weight, after[name])}
    assert changed == {"phonemes.weight", "phonemes.bias"}
    assert {name.partition(".")[0] for name in set(after) - set(before)} == {"phoneme_layers"}
    measured = rows(tmp_path / "second", "dev")
    assert [row["step"] for row in measured] == [3, 6]
    assert all(row["per"] > 0 and "wer" not in row for row in measured)
    assert losses(tmp_path / "second")[-1][1:] == (0, 0)
    trained = checkpoint.load(tmp_path / "second" / "model.pt")
    rates = validation.phoneme_rates(trained, manifest.read(manifest_path))
    assert trained.info["dev"] == rates
    missing = replace(manifest.read(manifest_path)[0], audio=tmp_path / "missing.wav")
    assert validation.phoneme_rates(trained, [*manifest.read(manifest_path), missing]) == rates
    with pytest.raises(TrainingError, match=r"no recording can be used"):
        validation.phoneme_rates(trained, [missing])
    fewer = tiny_model(phonemes=True, width=8)
    other, _ = training_state.initialise(fewer, tmp_path / "second" / "model.pt")
    assert {"phonemes.weight", "phonemes.bias"} <= set(
        other
    )  # it stood on layers that are not here


def test_phonemes_alone_need_their_head(tmp_path: Path, manifest_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"phonemes_alone: needs model.phonemes = true"):
        run(tmp_path, config(manifest_path, {"training": {"phonemes_alone": True}}))
    alone = {"model": {"phonemes": True}, "training": {"phonemes_alone": True}}
    with pytest.raises(TrainingError, match=r"phonemes_alone: must begin with a trained model"):
        run(tmp_path, config(manifest_path, alone))
    run(tmp_path / "first", config(manifest_path, {"model": {"phonemes": True}}))
    wider = config(manifest_path, alone, {"model": {"decoder": {"width": 12}}})
    with pytest.raises(TrainingError, match=r"phonemes_alone: .* which has decoder; name it"):
        run(tmp_path / "second", wider, initial=tmp_path / "first" / "model.pt")
    with pytest.raises(ConfigError, match=r"phonemes 0: with phonemes_alone it must be above 0"):
        config(manifest_path, {"training": {"phonemes_alone": True, "phonemes": 0.0}})


def test_frozen_parts_stay_as_they_are_and_the_others_learn(
    tmp_path: Path, manifest_path: Path
) -> None:
    run(tmp_path / "first", config(manifest_path))
    frozen = ["encoder.subsample", "encoder.layers.0", "ctc"]
    recipe = config(manifest_path, {"training": {"frozen": frozen, "learning_rate": 1e-2}})
    run(tmp_path / "second", recipe, initial=tmp_path / "first" / "model.pt")
    before = checkpoint.load(tmp_path / "first" / "model.pt").model.state_dict()
    after = checkpoint.load(tmp_path / "second" / "model.pt").model.state_dict()
    kept = {name for name, weight in before.items() if torch.equal(weight, after[name])}
    assert kept == {name for name in before if name.startswith(tuple(f"{n}." for n in frozen))}


@pytest.mark.parametrize(
    ("frozen", "message"),
    [
        ("encoder.layer", r"'encoder.layer': no part of this model; allowed are encoder, decoder"),
        ("", r"'': no part of this model"),
        ("encoder", r"'encoder': must begin with a trained model that has it; name it with --init"),
    ],
)
def test_a_part_that_is_not_there_or_has_learnt_nothing_cannot_be_frozen(
    tmp_path: Path, manifest_path: Path, frozen: str, message: str
) -> None:
    with pytest.raises(TrainingError, match=rf"training.frozen {message}"):
        run(tmp_path, config(manifest_path, {"training": {"frozen": [frozen]}}))


def test_something_must_be_left_that_learns(tmp_path: Path, manifest_path: Path) -> None:
    everything = {"training": {"frozen": ["encoder", "decoder", "ctc"]}}
    with pytest.raises(TrainingError, match=r"training.frozen: nothing is left that learns"):
        run(tmp_path, config(manifest_path, everything))
    run(tmp_path / "first", config(manifest_path))
    for training in ({"ctc_alone_steps": 2}, {"ctc": 1.0}):
        unheard = {"training": {"frozen": ["encoder", "ctc"], **training}}
        with pytest.raises(TrainingError, match=r"training.frozen: nothing that learns is in the"):
            run(
                tmp_path / "second",
                config(manifest_path, unheard),
                initial=tmp_path / "first" / "model.pt",
            )


def test_a_training_in_which_others_learnt_cannot_go_on(
    tmp_path: Path, manifest_path: Path
) -> None:
    run(tmp_path / "first", config(manifest_path))
    begun = {"initial": tmp_path / "first" / "model.pt"}
    frozen = config(manifest_path, {"training": {"frozen": ["ctc"]}})
    run(tmp_path / "second", frozen, **begun)
    for other, message in (
        ({"frozen": ["decoder.output"]}, r"others of its weights learnt: see training.frozen"),
        ({"frozen": ["ctc"], "optimizer": "muon"}, r"training.optimizer was another"),
    ):
        more = config(manifest_path, {"training": {"max_steps": 12, **other}})
        with pytest.raises(CheckpointError, match=message):
            run(tmp_path / "second", more, **begun)


def test_dev_utterances_are_spread_evenly() -> None:
    utterances = [Utterance(str(i), Path("x"), 1.0, "") for i in range(10)]
    assert [u.id for u in spread(utterances, 4)] == ["0", "2", "5", "7"]
    assert spread(utterances, 0) == spread(utterances, 10) == spread(utterances, 99) == utterances


def _equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)
