"""Two processes that train together on the CPU: they do what one process with the whole batch does."""

import socket
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from trainings import Job, config, losses, make_manifest, run, start_process, state

from asr import manifest
from asr.training.distributed import Place

STEADY = {"training": {"max_steps": 8, "ctc_alone_steps": 2}}  # 2 steps without a decoder gradient
MUON = {
    "model": {"encoder": {"width": 128}},  # matrices large enough for it
    "training": {"max_steps": 8, "optimizer": "muon"},
}
HOURS = {"training": {"max_steps": 0, "hours": 1 / 3600, "cooldown": 0.5}}
LONG = {"training": {"max_steps": 1000}}
WAIT = 180  # seconds for all of it; a hang is what these tests look for


@dataclass(frozen=True)
class Pair:
    """What two processes that trained together left behind and printed."""

    folder: Path
    endings: tuple[list[str], list[str]]  # of every job, by process
    errors: tuple[str, str]


@pytest.fixture(scope="module")
def manifest_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_manifest(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, manifest_path: Path) -> Pair:
    """All trainings by one pair of processes, as starting a process takes longer than training in it."""
    folder = tmp_path_factory.mktemp("pair")
    steady = config(manifest_path, STEADY)
    empty = folder / "empty.jsonl"
    empty.touch()
    gone = folder / "gone.jsonl"
    utterance = manifest.read(manifest_path)[0]
    manifest.write(gone, [type(utterance)("gone", folder / "gone.wav", 1.0, "a")])
    plans = [  # for each training: recipe, and what is done to it in the first and in the second process
        ("equal", steady, {}, {}),
        ("hours", config(manifest_path, HOURS), {"step_seconds": 0.02}, {"clock": 7.0}),
        ("interrupt", config(manifest_path, LONG), {"interrupt_in": 3}, {}),
        ("spoilt", steady, {}, {"spoil_in": 7}),
        ("empty", config(empty), {}, {}),
        ("gone", config(gone), {}, {}),
        ("muon", config(manifest_path, MUON), {}, {}),
    ]
    ports = _free_ports(len(plans))
    jobs = [
        [
            Job(folder / name, recipe, port=port, **changes[rank])
            for (name, recipe, *changes), port in zip(plans, ports, strict=True)
        ]
        for rank in range(2)
    ]
    group = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    processes = [start_process(folder, *jobs[rank], RANK=str(rank), **group) for rank in range(2)]
    try:
        (out, error), (out2, error2) = [process.communicate(timeout=WAIT) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], error + error2
    return Pair(folder, (out.splitlines(), out2.splitlines()), (error, error2))


def test_two_processes_give_the_losses_and_weights_of_one(
    tmp_path: Path, manifest_path: Path, pair: Pair
) -> None:
    one = run(tmp_path, config(manifest_path, STEADY))
    two = pair.folder / "equal"
    assert len(losses(one)) == 8
    torch.testing.assert_close(losses(two), losses(one), rtol=1e-4, atol=1e-5)
    expected = state(one)["weights"]
    torch.testing.assert_close(state(two)["weights"], expected, rtol=1e-3, atol=1e-4)
    seconds = [state(output)["progress"]["audio_seconds"] for output in (one, two)]
    assert seconds[0] == pytest.approx(seconds[1])


def test_two_processes_that_share_muons_work_give_the_losses_and_weights_of_one(
    tmp_path: Path, manifest_path: Path, pair: Pair
) -> None:
    one = run(tmp_path, config(manifest_path, MUON))
    two = pair.folder / "muon"
    torch.testing.assert_close(losses(two), losses(one), rtol=1e-3, atol=1e-3)
    expected = state(one)["weights"]
    torch.testing.assert_close(state(two)["weights"], expected, rtol=1e-2, atol=1e-3)


def test_a_batch_of_fewer_utterances_than_processes_was_among_them(
    tmp_path: Path, manifest_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    share = Place.share

    def watched(place: Place, batch: list[int]) -> list[int]:
        sizes.append(len(batch))
        return share(place, batch)

    monkeypatch.setattr(Place, "share", watched)
    run(tmp_path, config(manifest_path, STEADY))
    assert 1 in sizes[:8]
    assert max(sizes) > 1


def test_shares_are_a_whole_batch_together() -> None:
    places = [Place(rank, 3, torch.device("cpu")) for rank in range(3)]
    assert [place.share([1, 2, 3, 4]) for place in places] == [[1, 4], [2], [3]]
    assert [place.share([1]) for place in places] == [[1], [], []]


def test_all_processes_stop_by_the_first_ones_clock(pair: Pair) -> None:
    assert [endings[1] for endings in pair.endings] == ["finished", "finished"]
    assert state(pair.folder / "hours")["progress"]["elapsed"] > 0.7  # seconds, of 1


def test_ctrl_c_in_the_first_process_stops_all_with_the_state_saved(pair: Pair) -> None:
    for endings in pair.endings:
        assert endings[2].startswith("KeyboardInterrupt")
    assert state(pair.folder / "interrupt")["progress"]["step"] == 4


def test_a_gradient_that_is_not_finite_in_one_is_skipped_by_all_and_named(pair: Pair) -> None:
    assert [endings[3] for endings in pair.endings] == ["finished", "finished"]
    spoilt, equal = state(pair.folder / "spoilt"), state(pair.folder / "equal")
    assert spoilt["progress"]["skipped_steps"] == 1
    assert all(torch.isfinite(weight).all() for weight in spoilt["weights"].values())
    assert equal["progress"]["skipped_steps"] == 0
    assert "step 7: gradient not finite, step skipped: corpus" in pair.errors[1]


def test_what_cannot_be_used_is_the_same_clear_error_in_all(pair: Pair) -> None:
    for endings in pair.endings:
        assert (
            endings[4]
            == f"TrainingError {pair.folder / 'empty.jsonl'}: the manifest has no utterances"
        )
        assert endings[5].startswith("TrainingError no utterance to train on")


def test_only_the_first_process_writes_and_speaks(pair: Pair) -> None:
    assert "model: " in pair.errors[0]
    assert "model: " not in pair.errors[1]
    assert len(list((pair.folder / "equal" / "tensorboard").iterdir())) == 1


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports
