"""Several processes as one: torchrun's environment in, the same losses out as one process with the whole batch."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import nn

from asr.devices import checked_device

T = TypeVar("T")

PATIENCE = timedelta(hours=12)  # others wait for the first one's features and validations


@dataclass(frozen=True)
class Place:
    """Where this process stands among all that train together."""

    rank: int
    world: int  # number of processes
    device: torch.device

    def share(self, batch: Sequence[T]) -> list[T]:
        """The part of a batch that is this process's; empty where there are fewer utterances than processes."""
        return list(batch[self.rank :: self.world])

    def agree(self, *values: float) -> list[float]:
        """The first process's values, for all of them: decisions that hang on a clock or a file must be one."""
        if self.world == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.broadcast(tensor, 0)
        return [float(v) for v in tensor]


def start(device: str) -> Place:
    """Join the group that torchrun describes, if it does. Raises ConfigError where there is no such device."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    rank = int(os.environ.get("RANK", "0"))
    local = os.environ.get("LOCAL_RANK", "0")
    place = checked_device(device)
    if device == "cuda":
        place = checked_device(f"cuda:{local}")
    if place.type == "cuda":
        torch.cuda.set_device(place)
    if world > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if place.type == "cuda" else "gloo", timeout=PATIENCE)
    return Place(rank, world, place)


def stop() -> None:
    """Leave the group."""
    if dist.is_initialized():
        dist.destroy_process_group()


def wait() -> None:
    """Go on only when all processes have come here."""
    if dist.is_initialized():
        dist.barrier()


def total(*values: float) -> list[float]:
    """The sum of each value over all processes, in one exchange."""
    if not dist.is_initialized():
        return list(values)
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    sums = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(sums)
    return [float(v) for v in sums]


def position() -> tuple[int, int]:
    """The rank of this process, and how many there are."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def add_up(tensors: Sequence[torch.Tensor]) -> None:
    """Replace every tensor by its sum over all processes, in one exchange."""
    if not dist.is_initialized() or not tensors:
        return
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    dist.all_reduce(flat)
    sums = flat.split([tensor.numel() for tensor in tensors])
    for tensor, values in zip(tensors, sums, strict=True):
        tensor.copy_(values.view_as(tensor))


def add_gradients(model: nn.Module) -> None:
    """Replace every gradient by its sum over all processes, in one exchange; one that no process has stays None."""
    if not dist.is_initialized():
        return
    parameters = [p for p in model.parameters() if p.requires_grad]
    device = parameters[0].device
    present = torch.tensor([float(p.grad is not None) for p in parameters], device=device)
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    add_up([present, *gradients])
    for parameter, count, gradient in zip(parameters, present.tolist(), gradients, strict=True):
        parameter.grad = gradient if count else None
