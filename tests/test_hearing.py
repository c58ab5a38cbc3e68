"""What phoneme layers hear of speech: shared out among processes, and kept."""

from pathlib import Path

import numpy as np
import pytest
import torch

from asr import manifest
from asr.batching import load_training_set
from asr.training.distributed import Place
from asr.training.hearing import Hearing, hear, heard
from asr.training.run import new_model
from tests.trainings import config, make_manifest


def test_processes_hear_each_example_once_and_all_get_what_all_heard(tmp_path: Path) -> None:
    path = make_manifest(tmp_path / "toy")
    recipe = config(path, {"model": {"phonemes": True, "phoneme_layers": 1}})
    trained = new_model(recipe.model, recipe.features, 1, torch.device("cpu"))
    data = load_training_set(
        [("toy", manifest.read(path))],
        trained.tokenizer,
        features=recipe.features,
        augmentation=recipe.augment,
        options=recipe.data,
    )
    one, two = (
        Hearing(trained, recipe.augment, 1, False, tmp_path, Place(rank, 2, torch.device("cpu")))
        for rank in (0, 1)
    )
    (first, second) = (dict(hear(data, hearing, 0)) for hearing in (one, two))
    assert first.keys() & second.keys() == set()
    assert first.keys() | second.keys() == set(range(len(data)))
    with pytest.raises(FileNotFoundError):  # nobody waits for the other one here
        list(heard(data, one, 0))
    for hearing in (two, one):
        found = dict(heard(data, hearing, 0))
        assert found.keys() == set(range(len(data)))
        for index, values in (first | second).items():
            np.testing.assert_array_equal(found[index], values)
