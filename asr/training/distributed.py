"""Several processes as one: torchrun's environment in, the same losses out as one process with the whole batch."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

T = TypeVar("T")


@dataclass(frozen=True)
class Place:
    """Where this process stands among all that train together."""

    rank: int
    world: int  # number of processes
    device: torch.device

    def share(self, batch: Sequence[T]) -> list[T]:
        """This process's part of a batch."""
        return list(batch[self.rank :: self.world])

    def agree(self, *values: float) -> list[float]:
        """The first process's values, for all of them: decisions that hang on a clock or a file must be one."""
        if self.world == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.broadcast(tensor, 0)
        return [float(v) for v in tensor]


def start(device: str) -> Place:
    """Join the group that torchrun describes, if it does."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    rank = int(os.environ.get("RANK", "0"))
    place = torch.device(
        f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if device == "cuda" else device
    )
    if place.type == "cuda":
        torch.cuda.set_device(place)
    if world > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if place.type == "cuda" else "gloo")
    return Place(rank, world, place)


def stop() -> None:
    """Leave the group."""
    if dist.is_initialized():
        dist.destroy_process_group()


def total(value: Tensor) -> Tensor:
    """The sum of a tensor over all processes."""
    if dist.is_initialized():
        value = value.clone()
        dist.all_reduce(value)
    return value


def add_gradients(model: nn.Module) -> None:
    """Replace every gradient by its sum over all processes, in one exchange."""
    if not dist.is_initialized():
        return
    parameters = [p for p in model.parameters() if p.requires_grad]
    flat = torch.cat(
        [(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters]
    )
    dist.all_reduce(flat)
    for parameter, gradient in zip(
        parameters, flat.split([p.numel() for p in parameters]), strict=True
    ):
        parameter.grad = gradient.view_as(parameter)
