"""Training on several devices, one process each, as ``torchrun`` or ``accelerate launch`` start them.

Every process takes its share of each batch, and the gradients are added up, so that a step is the one that a single
process would take; but for a head's contrastive term, in which samples of different processes do not meet. The launcher
says who is who in the environment (``WORLD_SIZE``, ``RANK``, ``LOCAL_RANK``).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn


@dataclass(frozen=True)
class Team:
    """The processes of one training."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def wait(self) -> None:
        """Until every process is here."""
        if self.size > 1:
            distributed.barrier()

    def add_up(self, parameters: list[nn.Parameter]) -> None:
        """The sum over all processes of each gradient; one that is absent here counts as zero.

        One that is absent everywhere stays so: the optimiser passes over it, and would not over zeros.
        """
        if self.size == 1 or not parameters:
            return
        known = [parameter.grad is not None for parameter in parameters]
        somewhere = torch.tensor(known, dtype=torch.uint8, device=parameters[0].device)
        distributed.all_reduce(somewhere, distributed.ReduceOp.MAX)
        for parameter, found in zip(parameters, somewhere.tolist(), strict=True):
            if not found:
                continue
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            distributed.all_reduce(parameter.grad)

    def total(self, value: float, device: torch.device) -> float:
        """The sum of a number over all processes."""
        if self.size == 1:
            return value
        number = torch.tensor(value, dtype=torch.float64 if device.type == "cpu" else torch.float32, device=device)
        distributed.all_reduce(number)
        return float(number)

    def same(self, values: Tensor) -> Tensor:
        """The first process's ``values``, in every process."""
        if self.size > 1:
            distributed.broadcast(values, src=0)
        return values


@contextmanager
def team(device: torch.device) -> Iterator[Team]:
    """The processes that a launcher has started; this one alone, where it was started by hand."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Team()
        return
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Team(distributed.get_rank(), size)
    finally:
        distributed.destroy_process_group()


def leads() -> bool:
    """Whether this process speaks for all that a launcher has started."""
    return os.environ.get("RANK", "0") == "0"


def own_device(device: str) -> str:
    """The device of this process: its own GPU of those that ``cuda`` means."""
    local = os.environ.get("LOCAL_RANK")
    return f"cuda:{local}" if device == "cuda" and local is not None else device
