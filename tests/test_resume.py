"""Trainings that stop, however they stop, and go on: nothing is lost and nothing is counted twice."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from trainings import (
    EVERYTHING,
    ROOT,
    Job,
    config,
    losses,
    make_manifest,
    rows,
    run,
    same_weights,
    start_process,
    state,
)

from asr import manifest
from asr.errors import CheckpointError, TrainingError
from asr.training import loop, validation

STEPS = 12
WHOLE = {"training": {"max_steps": STEPS, "cooldown": 0.4, "validate_every": 5}}
Stop = Callable[[int], None]


@pytest.fixture(scope="module", autouse=True)
def _no_pictures() -> Iterator[None]:
    """They take longer than all the rest of a tiny training."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(validation, "attention_plot", lambda *arguments, **options: None)
        yield


@pytest.fixture(scope="module")
def manifest_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_manifest(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, manifest_path: Path) -> Path:
    """The output folder of STEPS steps without a stop, with everything on that draws random numbers."""
    output = tmp_path_factory.mktemp("whole")
    return run(output, config(manifest_path, EVERYTHING, WHOLE, dev=True))


@pytest.fixture
def stop_after(monkeypatch: pytest.MonkeyPatch) -> Stop:
    """stop_after(k): the next training is interrupted after k steps."""

    def patch(steps: int) -> None:
        counter = itertools.count(1)

        @contextmanager
        def fake() -> Iterator[Callable[[], bool]]:
            yield lambda: next(counter) == steps

        monkeypatch.setattr(loop, "on_interrupt", fake)

    return patch


@pytest.mark.parametrize(
    "steps",
    [
        1,  # before sampling, smoothing and cooldown begin, within an epoch
        6,  # the last step of an epoch
        9,  # within the cooldown
    ],
)
def test_k_steps_and_resume_and_k_steps_equal_2k_steps(
    tmp_path: Path, manifest_path: Path, whole: Path, stop_after: Stop, steps: int
) -> None:
    recipe = config(manifest_path, EVERYTHING, WHOLE, dev=True)
    stop_after(steps)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, recipe)
    assert state(tmp_path)["progress"]["step"] == steps
    assert (state(tmp_path)["progress"]["batch"] > 2) == (steps == 6)  # of 3, 2 in a step
    assert not same_weights(state(tmp_path), state(whole))
    stop_after(0)
    run(tmp_path, recipe)
    assert same_weights(state(tmp_path), state(whole))
    assert losses(tmp_path) == losses(whole)
    assert rows(tmp_path, "dev")[-1]["wer"] == rows(whole, "dev")[-1]["wer"]
    counts = ("step", "epoch", "batch", "audio_seconds", "cooldown_step", "end_step", "best_wer")
    resumed, uninterrupted = state(tmp_path)["progress"], state(whole)["progress"]
    assert {name: resumed[name] for name in counts} == {n: uninterrupted[n] for n in counts}


def test_the_same_seed_gives_the_same_losses(
    tmp_path: Path, manifest_path: Path, whole: Path
) -> None:
    again = run(tmp_path / "again", config(manifest_path, EVERYTHING, WHOLE))
    assert losses(again) == losses(whole)
    assert same_weights(state(again), state(whole))
    seed = {"training": {"seed": 2}}
    other = run(tmp_path / "other", config(manifest_path, EVERYTHING, WHOLE, seed))
    assert losses(other)[0] != losses(whole)[0]


def test_a_killed_training_goes_on_and_ends_as_if_it_had_not_been(
    tmp_path: Path, manifest_path: Path, whole: Path
) -> None:
    every_step = {"training": {"save_minutes": 0}}
    recipe = config(manifest_path, EVERYTHING, WHOLE, every_step)
    process = start_process(tmp_path, Job(tmp_path, recipe, step_seconds=0.1))
    _wait_for_step(tmp_path, 4, process)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert 3 <= state(tmp_path)["progress"]["step"] < STEPS
    assert not (tmp_path / "model.pt").exists()
    with open(tmp_path / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write('{"kind": "train", "st')  # cut short in the middle of a write
    run(tmp_path, recipe)
    assert same_weights(state(tmp_path), state(whole))
    assert losses(tmp_path) == losses(whole)


def test_sigterm_while_features_are_made_leaves_nothing_half_written(
    tmp_path: Path, manifest_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> str:
        signal.raise_signal(signal.SIGTERM)
        return "never seen"

    cache = tmp_path / "cache"
    recipe = config(manifest_path, {"data": {"cache": str(cache), "workers": 1}})
    monkeypatch.setattr("asr.batching.json.dump", killed)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "out", recipe)
    assert not [path for path in cache.iterdir() if path.suffix == ".tmp"]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_step_saves_and_raises(
    number: signal.Signals, tmp_path: Path, manifest_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = itertools.count(1)
    step = loop._step

    def pressed_in_the_third(*arguments: object) -> bool:
        if next(steps) == 3:
            signal.raise_signal(number)
        return step(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "_step", pressed_in_the_third)
    handler = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, config(manifest_path))
    assert signal.getsignal(number) is handler
    assert state(tmp_path)["progress"]["step"] == 3
    assert run(tmp_path, config(manifest_path)).joinpath("model.pt").exists()


def test_the_command_exits_130_on_ctrl_c_with_the_state_saved(
    tmp_path: Path, manifest_path: Path
) -> None:
    recipe = config(manifest_path)
    settings = {"data.train": [str(manifest_path)], "data.cache": recipe.data.cache}
    settings |= {"training.max_steps": 100_000, "training.log_every": 1, "features.n_mels": 20}
    settings |= {"model.encoder.width": 8, "model.decoder.width": 8, "augment.speeds": [1.0]}
    settings |= {"data.workers": 1, "data.batch_seconds": 2.5}
    toml = tmp_path / "recipe.toml"
    toml.touch()
    changes = [f"--set={name}={json.dumps(value)}" for name, value in settings.items()]
    output = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-m", "asr", "train", str(toml), "--output", str(output), *changes],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )
    _wait_for_step(output, 2, process)
    process.send_signal(signal.SIGINT)
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == 130, errors
    step = state(output)["progress"]["step"]
    assert f"stopped after step {step}; run it again to go on from there" in errors
    assert "Traceback" not in errors


def test_a_second_ctrl_c_does_not_wait_for_the_step(
    tmp_path: Path, manifest_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pressed_twice(*arguments: object) -> bool:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("went on")

    monkeypatch.setattr(loop, "_step", pressed_twice)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, config(manifest_path))
    assert not (tmp_path / "last.pt").exists()


def test_two_trainings_do_not_write_to_one_folder(
    tmp_path: Path, manifest_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors = []
    step = loop._step

    def second_one_begins(*arguments: object) -> bool:
        with pytest.raises(TrainingError) as error:
            run(tmp_path, config(manifest_path, {"training": {"max_steps": 1}}))
        errors.append(str(error.value))
        return step(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "_step", second_one_begins)
    run(tmp_path, config(manifest_path, {"training": {"max_steps": 2}}))
    assert len(errors) == 2
    assert str(tmp_path) in errors[0]
    assert "another training writes here" in errors[0]
    assert state(tmp_path)["progress"]["step"] == 2
    monkeypatch.undo()  # the first has ended, and with it its lock
    run(tmp_path, config(manifest_path, {"training": {"max_steps": 3}}))


def test_a_longer_training_goes_on_from_the_plateau(tmp_path: Path, manifest_path: Path) -> None:
    short = {"training": {"max_steps": 8, "cooldown": 0.25, "validate_every": 2}}
    longer = {"training": {"max_steps": STEPS, "cooldown": 0.25, "validate_every": 3}}
    run(tmp_path, config(manifest_path, EVERYTHING, short))
    assert state(tmp_path, "plateau.pt")["progress"]["step"] == 6
    run(tmp_path, config(manifest_path, EVERYTHING, longer))
    alone = run(tmp_path / "alone", config(manifest_path, EVERYTHING, longer))
    assert same_weights(state(tmp_path), state(alone))
    assert losses(tmp_path) == losses(alone)
    steps = [int(path.stem.removeprefix("step-")) for path in sorted(tmp_path.glob("step-*.pt"))]
    assert steps == [2, 4, 6, 9, 12]  # 8, of the cooldown that was given up, is gone


def test_a_longer_training_whose_rate_falls_from_the_first_step_goes_on_from_its_end(
    tmp_path: Path, manifest_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for steps, cooldown in ((8, 1.0), (STEPS, 1.0), (2 * STEPS, 0.5)):
        falling = {"training": {"max_steps": steps, "cooldown": cooldown, "log_every": 1}}
        run(tmp_path, config(manifest_path, EVERYTHING, falling))
        progress = state(tmp_path)["progress"]
        assert (progress["step"], progress["end_step"]) == (steps, steps)
        assert rows(tmp_path)[-1]["learning_rate"] > 0
    said = capsys.readouterr().err
    assert "going on from step 8," in said
    assert f"going on from step {STEPS}," in said


@pytest.mark.parametrize("before", [True, False], ids=["found before", "found after"])
def test_the_best_model_of_an_end_that_is_given_up_goes_with_it(
    tmp_path: Path, manifest_path: Path, before: bool
) -> None:
    short = {"training": {"max_steps": 8, "cooldown": 0.25}}
    run(tmp_path, config(manifest_path, short))
    for name in ("last.pt", "plateau.pt") if before else ("last.pt",):
        content = torch.load(tmp_path / name)
        content["progress"]["best_wer"] = 0.2
        torch.save(content, tmp_path / name)
    (tmp_path / "best.pt").write_bytes((tmp_path / "model.pt").read_bytes())
    run(tmp_path, config(manifest_path, {"training": {"max_steps": STEPS, "cooldown": 0.25}}))
    assert (tmp_path / "best.pt").exists() == before
    assert state(tmp_path)["progress"]["best_wer"] == (0.2 if before else float("inf"))


def test_more_hours_go_on_from_the_plateau_too(
    tmp_path: Path,
    manifest_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tenths = itertools.count()
    monkeypatch.setattr(loop.time, "monotonic", lambda: 0.1 * next(tenths))
    short = {"training": {"hours": 0.0002, "cooldown": 0.5, "max_steps": 1000}}
    run(tmp_path, config(manifest_path, short))
    plateau, last = (
        state(tmp_path, name)["progress"]["step"] for name in ("plateau.pt", "last.pt")
    )
    assert plateau < last
    capsys.readouterr()
    longer = {"training": {"hours": 1.0, "cooldown": 0.5, "max_steps": 2 * last}}
    run(tmp_path, config(manifest_path, longer))
    assert f"going on from step {plateau}," in capsys.readouterr().err


def test_data_that_has_changed_since_is_said(
    tmp_path: Path, manifest_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where the training is finished, so that nobody takes its model for one of the new data."""
    said = "its speech or texts are not what it began with; --no-resume begins anew"
    once, twice = ({"training": {"max_steps": steps}} for steps in (2, 4))
    run(tmp_path / "run", config(manifest_path, once))
    run(tmp_path / "run", config(manifest_path, twice))
    assert said not in capsys.readouterr().err
    utterances = manifest.read(manifest_path)
    changed = manifest_path.with_name("changed.jsonl")
    manifest.write(changed, [replace(utterances[0], text="na"), *utterances[1:]])
    for _ in range(2):
        run(tmp_path / "run", config(changed, twice))
        assert said in capsys.readouterr().err
    run(tmp_path / "run", config(changed, twice), resume=False)
    assert said not in capsys.readouterr().err


def test_a_finished_training_run_again_changes_nothing(
    tmp_path: Path, manifest_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = config(manifest_path)
    run(tmp_path, recipe)
    before = state(tmp_path)
    monkeypatch.setattr(loop, "_step", None)  # a step would be an error
    run(tmp_path, recipe)
    assert same_weights(before, state(tmp_path))
    assert state(tmp_path)["progress"] == before["progress"]


def test_a_users_copy_of_a_checkpoint_is_left_alone(tmp_path: Path, manifest_path: Path) -> None:
    recipe = {"training": {"max_steps": 4, "validate_every": 1, "average": 2}}
    copies = [tmp_path / name for name in ("step-0000001-good.pt", "step-best.pt")]
    for path in copies:
        path.write_bytes(b"kept")
    run(tmp_path, config(manifest_path, recipe))
    run(tmp_path, config(manifest_path, recipe))
    run(tmp_path, config(manifest_path, recipe), resume=False)
    assert [path.read_bytes() for path in copies] == [b"kept", b"kept"]
    assert len(list(tmp_path.glob("step-*.pt"))) == 4


def test_starting_over_leaves_nothing_of_the_run_before(
    tmp_path: Path, manifest_path: Path
) -> None:
    long = {"training": {"max_steps": 8, "validate_every": 2}}
    wider = {"model": {"encoder": {"width": 12}}, "training": {"max_steps": 4}}
    run(tmp_path, config(manifest_path, long))
    run(tmp_path, config(manifest_path, wider), resume=False)
    assert [path.name for path in sorted(tmp_path.glob("step-*.pt"))] == ["step-0000004.pt"]
    assert [step for step, _, _ in losses(tmp_path)] == [1, 2, 3, 4]
    alone = run(tmp_path / "alone", config(manifest_path, wider))
    assert same_weights(state(tmp_path), state(alone))


def test_the_state_of_another_network_is_one_clear_error(
    tmp_path: Path, manifest_path: Path
) -> None:
    run(tmp_path, config(manifest_path))
    wider = {"model": {"encoder": {"width": 12}}}
    with pytest.raises(CheckpointError) as error:
        run(tmp_path, config(manifest_path, wider))
    message = str(error.value)
    assert message.startswith(str(tmp_path / "last.pt"))
    assert "size mismatch for encoder" in message
    assert "--no-resume" in message
    assert "\n" not in message


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not a checkpoint"])
def test_a_damaged_state_is_one_clear_error(
    tmp_path: Path, manifest_path: Path, content: bytes
) -> None:
    (tmp_path / "last.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"last\.pt: damaged"):
        run(tmp_path, config(manifest_path))


def test_a_new_weight_decay_counts_from_the_resume_on(
    tmp_path: Path, manifest_path: Path, stop_after: Stop
) -> None:
    stop_after(2)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, config(manifest_path))
    stop_after(0)
    run(tmp_path, config(manifest_path, {"training": {"weight_decay": 0.5}}))
    assert state(tmp_path)["optimizer"]["param_groups"][0]["weight_decay"] == 0.5


def _wait_for_step(output: Path, step: int, process: "subprocess.Popen[str]") -> None:
    metrics = output / "metrics.jsonl"
    for _ in range(2400):
        if metrics.exists() and len(rows(output)) >= step:
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    raise AssertionError(f"no step {step} within two minutes")


def test_a_finished_training_with_accumulated_batches_is_not_begun_again(
    tmp_path: Path, manifest_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    epochs = {"training": {"accumulate": 2, "max_steps": 0, "epochs": 4.0, "cooldown": 0.5}}
    recipe = config(manifest_path, epochs)
    steps = state(run(tmp_path / "a", recipe))["progress"]["step"]
    capsys.readouterr()
    run(tmp_path / "a", recipe)
    assert f"going on from step {steps}," in capsys.readouterr().err
