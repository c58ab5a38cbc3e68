"""asr.training.optimizer: Muon's steps are orthogonal gate by gate, the rest is AdamW's, and both can go on."""

import copy

import pytest
import torch
from torch import nn

from asr.training import optimizer
from asr.training.optimizer import Muon, orthogonal, share_out


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.ModuleDict(
        {
            "rnn": nn.LSTM(160, 128),
            "readout": nn.Linear(128, 128),
            "output": nn.Linear(128, 30),  # too few rows for Muon
            "narrow": nn.LSTM(160, 64),  # so has each of its gates
        }
    )


def learn(model: nn.Module, together: optimizer.Together, steps: range) -> None:
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        inputs = torch.randn(7, 4, 160, generator=generator)
        values, (narrow, _) = model["rnn"](inputs)[0], model["narrow"](inputs)[1]
        together.zero_grad()
        loss = model["output"](model["readout"](values)).square().mean() + narrow.square().mean()
        loss.backward()
        for group in together.param_groups:
            group["lr"] = 1e-2
        together.step()


@pytest.mark.parametrize("shape", [(1, 96, 200), (4, 200, 96), (3, 64, 32)])
def test_orthogonal_brings_singular_values_near_one_and_keeps_their_vectors(
    shape: tuple[int, ...],
) -> None:
    given = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    left, _, right = torch.linalg.svd(given, full_matrices=False)
    found = left.mT @ orthogonal(given, 5) @ right.mT
    diagonal = found.diagonal(dim1=-2, dim2=-1)
    assert (diagonal > 0.5).all()
    assert (diagonal < 1.3).all()
    assert torch.allclose(found, torch.diag_embed(diagonal), atol=1e-3)


def test_a_step_of_muon_is_orthogonal_in_every_gate_and_as_large_as_adamws() -> None:
    matrix = nn.Parameter(torch.zeros(4 * 64, 48))
    matrix.grad = torch.randn(4 * 64, 48, generator=torch.Generator().manual_seed(3))
    matrix.grad[:64] *= 1000  # a gate that would swamp the others
    muon = Muon([(matrix, 4)])
    muon.param_groups[0]["lr"] = 1.0
    muon.step()
    gates = matrix.detach().unflatten(0, (4, 64))
    sizes = gates.square().mean((1, 2)).sqrt()
    assert torch.allclose(sizes, torch.full((4,), 0.2), rtol=0.2)
    spread = torch.linalg.svdvals(gates)
    assert (spread.amax(1) / spread.amin(1) < 2.5).all()


def test_small_matrices_and_vectors_are_adamws_and_every_weight_learns() -> None:
    model = network()
    before = copy.deepcopy(model.state_dict())
    together = optimizer.build(model, "muon")
    assert isinstance(together, optimizer.Together)
    muon, adamw = together.optimizers
    shapes = sorted(tuple(p.shape) for group in muon.param_groups for p in group["params"])
    assert shapes == [(128, 128), (512, 128), (512, 160)]
    count = len([p for group in adamw.param_groups for p in group["params"]])
    assert count + 3 == len(list(model.parameters()))
    learn(model, together, range(2))
    assert all(not torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_training_that_is_resumed_makes_the_same_steps() -> None:
    model = network()
    together = optimizer.build(model, "muon")
    learn(model, together, range(3))
    again, state = network(), copy.deepcopy(together.state_dict())
    again.load_state_dict(model.state_dict())
    resumed = optimizer.build(again, "muon")
    resumed.load_state_dict(state)
    learn(model, together, range(3, 6))
    learn(again, resumed, range(3, 6))
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_muon_learns_a_linear_map_of_badly_scaled_inputs() -> None:
    torch.manual_seed(0)
    inputs = torch.randn(512, 128) @ torch.randn(128, 128) @ torch.diag(torch.logspace(0, -2, 128))
    target = inputs @ torch.randn(128, 128) / 11
    layer = nn.Linear(128, 128)
    muon, losses = optimizer.build(layer, "muon"), []
    for step in range(200):
        muon.zero_grad()
        loss = (layer(inputs) - target).square().mean()
        loss.backward()
        losses.append(loss.item())
        for group in muon.param_groups:
            group["lr"] = 0.05 * (1 - step / 200)
        muon.step()
    assert losses[-1] < losses[0] / 30


def test_work_is_shared_out_evenly_and_every_task_once() -> None:
    sizes = [1280, 256, 1280, 256, 512, 256, 512, 256]
    for workers in (1, 2, 3):
        chosen = share_out(sizes, workers)
        loads = [
            sum(size for size, worker in zip(sizes, chosen, strict=True) if worker == w)
            for w in range(workers)
        ]
        assert sum(loads) == sum(sizes)
        assert max(loads) <= max(1280, sum(sizes) / workers + 256)
    assert share_out([], 2) == []


def test_bf16_turns_a_step_by_little(monkeypatch: pytest.MonkeyPatch) -> None:
    def step(bf16: bool) -> torch.Tensor:
        monkeypatch.setattr(optimizer, "multiplies_bf16", lambda device: bf16)
        matrix = nn.Parameter(torch.zeros(256, 128))
        matrix.grad = torch.randn(256, 128, generator=torch.Generator().manual_seed(4))
        muon = Muon([(matrix, 2)])
        muon.param_groups[0]["lr"] = 1.0
        muon.step()
        return matrix.detach().flatten()

    exact, short = step(bf16=False), step(bf16=True)
    assert not torch.equal(exact, short)
    assert torch.nn.functional.cosine_similarity(exact, short, 0) > 0.999
