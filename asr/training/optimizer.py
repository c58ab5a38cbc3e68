"""The optimizers of a training as one: AdamW for all weights, or Muon for the matrices of the network's layers.

Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon) replaces the momentum of a matrix by the nearest
matrix whose singular values are all equal, so that no direction dominates a step.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from asr.devices import multiplies_bf16
from asr.training import distributed

MOMENTUM = 0.95
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # of the quintic iteration; Jordan's
RMS = 0.2  # of an update, as AdamW's are: the same learning rates fit both (Liu et al. 2025, section 2.2)
SMALLEST = 128  # rows or columns; smaller matrices are AdamW's


class Muon(torch.optim.Optimizer):
    """Muon with decoupled weight decay; a recurrent layer's gates, stacked in one matrix, are orthogonalised apart.

    Processes that train together share the work: each orthogonalises some matrices and gives the others their updates.
    """

    def __init__(self, matrices: Iterable[tuple[nn.Parameter, int]], *, iterations: int = 4):
        """`matrices` are parameters (G * H, I) with their number of gates G; 1 where there are none."""
        self.iterations = iterations
        groups = [{"params": [matrix], "gates": gates} for matrix, gates in matrices]
        super().__init__(groups, {"lr": 0.0, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Change every matrix that has a gradient."""
        groups = [group for group in self.param_groups if group["params"][0].grad is not None]
        rank, world = distributed.position()
        workers = share_out([group["params"][0].numel() for group in groups], world)
        updates = []
        for group, worker in zip(groups, workers, strict=True):
            direction = self._direction(group["params"][0])
            mine = worker == rank
            updates.append(
                self._update(direction, group["gates"]) if mine else torch.zeros_like(direction)
            )
        distributed.add_up(updates)
        for group, update in zip(groups, updates, strict=True):
            matrix = group["params"][0]
            matrix.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-group["lr"])

    def _direction(self, matrix: nn.Parameter) -> Tensor:
        """The gradient with Nesterov's momentum, which it becomes part of."""
        assert matrix.grad is not None
        state = self.state[matrix]
        if not state:
            state["momentum"] = torch.zeros_like(matrix)
        momentum = state["momentum"].lerp_(matrix.grad, 1 - MOMENTUM)
        return matrix.grad.lerp(momentum, MOMENTUM)

    def _update(self, direction: Tensor, count: int) -> Tensor:
        """The orthogonal matrices of `count` gates, as large as AdamW's steps."""
        gates = direction.unflatten(0, (count, -1))
        size = RMS * max(gates.shape[1:]) ** 0.5
        gates = gates / (gates.norm(dim=(-2, -1), keepdim=True) + 1e-7)
        if multiplies_bf16(gates.device):  # precise enough, as in Jordan's
            gates = gates.bfloat16()
        return orthogonal(gates, self.iterations).flatten(0, 1).to(direction.dtype) * size


def share_out(sizes: Sequence[int], workers: int) -> list[int]:
    """For each task, which worker does it: the largest first, each to the one with the least to do so far."""
    load, chosen = [0] * workers, [0] * len(sizes)
    for task in sorted(range(len(sizes)), key=lambda task: -sizes[task]):
        chosen[task] = min(range(workers), key=load.__getitem__)
        load[chosen[task]] += sizes[task]
    return chosen


class Optimizer(Protocol):
    """What a training needs of an optimizer; torch's have it."""

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Groups of weights with their rates."""

    def zero_grad(self) -> None:
        """Forget the gradients."""

    def step(self) -> Any:
        """Change the weights."""

    def state_dict(self) -> dict[str, Any]:
        """All that it remembers."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""


class Together:
    """Several optimizers that step as one."""

    def __init__(self, optimizers: list[torch.optim.Optimizer]) -> None:
        self.optimizers = optimizers

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Those of all, to set rates in."""
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for optimizer in self.optimizers:
            optimizer.zero_grad()

    def step(self) -> None:
        """Make the step of each."""
        for optimizer in self.optimizers:
            optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        """All that they remember."""
        return {str(n): optimizer.state_dict() for n, optimizer in enumerate(self.optimizers)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        for n, optimizer in enumerate(self.optimizers):
            optimizer.load_state_dict(state_dict[str(n)])


def build(model: nn.Module, kind: str) -> Optimizer:
    """The optimizer of that kind, adamw or muon, for the weights of a model that learn; rates are set by the step."""
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if kind == "adamw":
        return torch.optim.AdamW(learning, lr=0.0)
    matrices = {weight: gates for weight, gates in _matrices(model) if weight.requires_grad}
    rest = [parameter for parameter in learning if parameter not in matrices]
    optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(rest, lr=0.0)]
    if matrices:  # a small network has none
        optimizers.insert(0, Muon(matrices.items()))
    return Together(optimizers)


def _matrices(model: nn.Module) -> Iterable[tuple[nn.Parameter, int]]:
    """The weights of recurrent layers and of hidden linear layers, with their numbers of gates."""
    for module in model.modules():
        if isinstance(module, nn.RNNBase):
            for name, parameter in module.named_parameters(recurse=False):
                if (
                    name.startswith("weight")
                    and min(module.hidden_size, parameter.shape[1]) >= SMALLEST
                ):
                    yield parameter, parameter.shape[0] // module.hidden_size
        elif isinstance(module, nn.Linear) and min(module.weight.shape) >= SMALLEST:
            yield cast(nn.Parameter, module.weight), 1


def orthogonal(matrices: Tensor, iterations: int) -> Tensor:
    """The matrices (G, H, I) with their singular values brought near 1, by Newton and Schulz's iteration."""
    a, b, c = NEWTON_SCHULZ
    values = matrices / (matrices.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    tall = values.shape[-2] > values.shape[-1]
    values = values.mT if tall else values
    for _ in range(iterations):
        square = values @ values.mT
        values = a * values + (b * square + c * square @ square) @ values
    return values.mT if tall else values
