"""asr.checkpoint: models to files and back, their mean, and files that are not what they should be."""

import os
import random
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from models import (
    CHARACTERS,
    KINDS,
    MELS,
    TOKENIZER,
    padded,
    random_features,
    random_tokens,
    tiny_model,
)
from torch import Tensor

from asr import checkpoint
from asr.checkpoint import Trained
from asr.errors import CheckpointError, ConfigError
from asr.features import FeatureOptions
from asr.model import LossWeights
from asr.tokenizer import Tokenizer
from asr.weights import pack, unpack

FEATURES = FeatureOptions(n_mels=MELS, window_ms=32.0, low_hz=50.0)
INFO = {"steps": 7, "manifests": ["a.jsonl"], "dev": {"wer": 0.5}, "none": None, "pair": (1, 2.0)}


def make(seed: int = 0, **options: Any) -> Trained:
    return Trained(tiny_model(seed=seed, **options), TOKENIZER, FEATURES, INFO)


@torch.no_grad()
def outputs(trained: Trained) -> list[Tensor]:
    """Everything that a model computes for a fixed batch."""
    features, lengths = padded(random_features(40, 25))
    tokens = torch.stack(random_tokens(5, 5))
    memory = trained.model.encode(features, lengths)
    log_probs, attention = trained.model.decoder.teacher_forced(tokens, memory)
    weights = LossWeights(guide=1.0, label_smoothing=0.1)
    losses = trained.model(features, lengths, tokens, torch.tensor([5, 3]), weights)
    ctc = trained.model.ctc_log_probs(memory)
    assert ctc is not None
    return [memory.values, log_probs.exp(), attention, ctc, losses.total]


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_model_loads_with_the_same_outputs(kind: str, tmp_path: Path) -> None:
    trained = make(kind=kind, cell="gru", layers=2, locked_dropout=True, residual=True)
    trained.model.train()
    checkpoint.save(tmp_path / "model.pt", trained)
    loaded = checkpoint.load(tmp_path / "model.pt")
    assert not loaded.model.training
    trained.model.eval()
    assert all(map(torch.equal, outputs(loaded), outputs(trained)))
    assert loaded.model.options == trained.model.options
    assert loaded.tokenizer.alphabet == TOKENIZER.alphabet
    assert loaded.features == FEATURES
    assert loaded.info == INFO
    assert loaded.model.frame_seconds == trained.model.frame_seconds


@pytest.mark.parametrize(("bits", "size", "near"), [(16, 0.6, 0.02), (8, 0.45, 0.5)])
def test_a_model_saved_in_fewer_bits_is_near_and_smaller(
    bits: int, size: float, near: float, tmp_path: Path
) -> None:
    trained = make(kind="location", width=64)
    checkpoint.save(tmp_path / "full.pt", trained)
    checkpoint.save(tmp_path / "fewer.pt", trained, bits=bits)
    full, fewer = ((tmp_path / name).stat().st_size for name in ("full.pt", "fewer.pt"))
    assert fewer < size * full
    loaded = checkpoint.load(tmp_path / "fewer.pt")
    assert {weight.dtype for weight in loaded.model.state_dict().values()} == {torch.float32}
    for ours, theirs in zip(outputs(loaded), outputs(trained), strict=True):
        torch.testing.assert_close(ours, theirs, atol=near, rtol=near)
    assert not torch.equal(outputs(loaded)[0], outputs(trained)[0])


def test_no_weight_in_8_bits_is_off_by_more_than_half_a_step_of_its_row() -> None:
    torch.manual_seed(0)
    weights = {
        "matrix": torch.randn(5, 7, 3) * torch.tensor([1e-6, 1.0, 0.0, 30.0, 1.0])[:, None, None]
    }
    weights |= {"vector": torch.randn(9), "count": torch.tensor(3)}
    found = unpack(pack(weights, 8))
    apart = (found["matrix"] - weights["matrix"]).abs().flatten(1).amax(1)
    largest = weights["matrix"].abs().flatten(1).amax(1)
    assert (apart <= largest / 254 * 1.001).all()
    assert torch.equal(found["vector"], weights["vector"].half().float())
    assert found["count"] == 3


def test_a_number_of_bits_that_is_not_offered_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="weights in 4 bits: allowed are 8, 16, 32"):
        checkpoint.save(tmp_path / "model.pt", make(), bits=4)
    assert not list(tmp_path.iterdir())


def test_the_average_of_equal_checkpoints_is_the_checkpoint(tmp_path: Path) -> None:
    paths = [tmp_path / f"{name}.pt" for name in "abc"]
    for path in paths:
        checkpoint.save(path, make())
    averaged = checkpoint.average(paths)
    assert all(map(torch.equal, outputs(averaged), outputs(make())))
    assert averaged.info == {**INFO, "averaged": 3}


def test_the_average_of_different_checkpoints_is_the_mean_of_their_weights(tmp_path: Path) -> None:
    models = [make(seed) for seed in range(3)]
    for seed, trained in enumerate(models):
        checkpoint.save(tmp_path / f"{seed}.pt", trained)
    states = [trained.model.state_dict() for trained in models]
    averaged = checkpoint.average([tmp_path / f"{seed}.pt" for seed in range(3)])
    for name, weight in averaged.model.state_dict().items():
        torch.testing.assert_close(
            weight, (states[0][name] + states[1][name] + states[2][name]) / 3
        )


@pytest.mark.parametrize(
    "other",
    [
        make(width=6),
        make(kind="additive"),
        Trained(tiny_model(), Tokenizer("abcdeg"), FEATURES, {}),
        Trained(tiny_model(), TOKENIZER, FeatureOptions(n_mels=MELS), {}),
    ],
    ids=["width", "attention", "alphabet", "features"],
)
def test_another_architecture_is_refused_by_name(other: Trained, tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "first.pt", make())
    checkpoint.save(tmp_path / "other.pt", other)
    with pytest.raises(CheckpointError, match=r"other\.pt: another architecture.*first\.pt"):
        checkpoint.average([tmp_path / "first.pt", tmp_path / "other.pt"])


def test_nothing_to_average_is_an_error() -> None:
    with pytest.raises(CheckpointError, match="at least one"):
        checkpoint.average([])


def refused(path: Path) -> str:
    """The message with which loading fails; it must be one line that begins with the file's name."""
    with pytest.raises(CheckpointError) as error:
        checkpoint.load(path)
    message = str(error.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


def test_a_missing_file_or_a_folder_is_one_clear_error(tmp_path: Path) -> None:
    assert "No such file" in refused(tmp_path / "missing.pt")
    assert "directory" in refused(tmp_path)


@pytest.mark.parametrize(
    "content",
    [b"", b"hello\n", bytes(1000), b"PK\x03\x04", b"\x80\x02.", b"\x80\x02K\x05.", b"RIFF0000WAVE"],
)
def test_a_foreign_file_is_one_clear_error(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "foreign.pt"
    path.write_bytes(content)
    assert refused(path).endswith("damaged, or not a model file")


def test_a_zip_or_a_tensor_file_of_something_else_is_one_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "other.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    refused(path)
    torch.save(torch.zeros(3), path)
    assert refused(path).endswith("not a model file")
    torch.save({"weights": {}}, path)
    assert "format None" in refused(path)
    torch.save({"weights": {}, "optimizer": {}, "progress": {}}, path)
    assert "the state of a training, not a model" in refused(path)


def test_a_truncated_file_is_one_clear_error(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "whole.pt", make())
    whole, path = (tmp_path / "whole.pt").read_bytes(), tmp_path / "cut.pt"
    for size in range(0, len(whole), len(whole) // 40):
        path.write_bytes(whole[:size])
        refused(path)


def test_a_damaged_file_is_refused_and_never_changes_a_result(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "whole.pt", make())
    whole, path = (tmp_path / "whole.pt").read_bytes(), tmp_path / "damaged.pt"
    expected, refusals, chance = outputs(make()), 0, random.Random(0)
    for _ in range(60):
        damaged = bytearray(whole)
        damaged[chance.randrange(len(whole))] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged)
        try:
            loaded = checkpoint.load(path)
        except CheckpointError as error:
            assert str(error).startswith(f"{path}: ")  # noqa: PT017
            refusals += 1
        else:  # a bit that means nothing: padding between the weights
            assert all(map(torch.equal, outputs(loaded), expected))
    assert refusals > 30


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 99}, "format 99; this version reads 1"),
        ({"tokenizer": [1]}, "not a model of this version"),
        ({"tokenizer": {"kind": "bpe", "alphabet": "ab"}}, "bpe"),
        ({"model": {"decoder": {"cells": "lstm"}}}, "unknown option decoder.cells"),
        ({"model": {"encoder": {"cell": "transformer"}}}, "encoder cell 'transformer'"),
        ({"model": {"encoder": {"width": "wide"}}}, "encoder.width"),
        ({"model": {}}, "size mismatch|Missing key"),
        ({"model": None}, "not a model of this version"),
        ({"weights": {}}, "Missing key"),
        ({"weights": [torch.zeros(1)]}, "not a model of this version"),
        ({"features": {"n_mels": 0}}, "n_mels 0: must be at least 1"),
    ],
)
def test_a_model_of_another_version_is_refused_with_the_reason(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "model.pt"
    checkpoint.save(path, make())
    torch.save({**checkpoint.read(path), **changes}, path)
    with pytest.raises(CheckpointError, match=message):
        checkpoint.load(path)
    refused(path)


class Malicious:
    """Unpickled, it would make a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_loading_never_runs_code_from_the_file(tmp_path: Path) -> None:
    path, mark = tmp_path / "model.pt", tmp_path / "executed"
    checkpoint.save(path, make())
    torch.save({**checkpoint.read(path), "info": Malicious(mark)}, path)
    refused(path)
    assert not mark.exists()
    torch.load(path, weights_only=False)  # the file would have done it
    assert mark.exists()


def test_a_failed_save_leaves_the_older_model_and_nothing_else(tmp_path: Path) -> None:
    path, trained = tmp_path / "model.pt", make()
    checkpoint.save(path, trained)
    before = path.read_bytes()
    broken = Trained(trained.model, TOKENIZER, FEATURES, {"unpicklable": lambda: None})
    with pytest.raises(Exception, match=r"pickle|lambda|local"):
        checkpoint.save(path, broken)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["model.pt"]


def test_build_gives_the_seconds_of_a_memory_step_and_weights_by_seed() -> None:
    options = make().model.options
    torch.manual_seed(3)
    features = FeatureOptions(n_mels=MELS, hop_ms=12.5)
    first = checkpoint.build(options, TOKENIZER, features)
    torch.manual_seed(3)
    second = checkpoint.build(options, TOKENIZER, features)
    assert first.frame_seconds == pytest.approx(0.0125 * 4)
    assert first.vocabulary == CHARACTERS.stop
    pairs = zip(first.parameters(), second.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_a_model_file_may_be_moved_and_read_only(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "a" / "model.pt", make())
    moved = shutil.move(tmp_path / "a" / "model.pt", tmp_path / "b.pt")
    os.chmod(moved, 0o444)
    assert all(map(torch.equal, outputs(checkpoint.load(moved)), outputs(make())))
