"""Data-parallel training on several devices, one process each, started by ``torchrun`` or ``accelerate launch``.

Every process takes its share of each batch and the gradients are summed, so that a step is the same as that of a single
process, except for a head's contrastive term, which only compares samples of the same process. The launcher sets
``WORLD_SIZE``, ``RANK`` and ``LOCAL_RANK`` in the environment.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn


@dataclass(frozen=True)
class ProcessGroup:
    """The processes of one training."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def barrier(self) -> None:
        """Wait until every process has arrived here."""
        if self.size > 1:
            distributed.barrier()

    def sum_gradients(self, parameters: list[nn.Parameter]) -> None:
        """Replace each gradient by its sum over all processes; one that is ``None`` here counts as zero.

        One that is ``None`` everywhere stays so: the optimiser skips it, but would apply weight decay to zeros.
        """
        if self.size == 1 or not parameters:
            return
        known = [parameter.grad is not None for parameter in parameters]
        somewhere = torch.tensor(known, dtype=torch.uint8, device=parameters[0].device)
        distributed.all_reduce(somewhere, distributed.ReduceOp.MAX)
        summed = [parameter for parameter, found in zip(parameters, somewhere.tolist(), strict=True) if found]
        if not summed:
            return
        gradients = [torch.zeros_like(each) if each.grad is None else each.grad for each in summed]
        together = torch.cat([gradient.flatten() for gradient in gradients])  # one message instead of hundreds
        distributed.all_reduce(together)
        parts = torch.split(together, [gradient.numel() for gradient in gradients])
        for parameter, part in zip(summed, parts, strict=True):
            parameter.grad = part.view_as(parameter)

    def sum(self, value: Tensor) -> Tensor:
        """The sum of a tensor over all processes, in place."""
        if self.size > 1:
            distributed.all_reduce(value)
        return value

    def broadcast(self, values: Tensor) -> Tensor:
        """The main process's ``values``, in every process."""
        if self.size > 1:
            distributed.broadcast(values, src=0)
        return values


@contextmanager
def process_group(device: torch.device) -> Iterator[ProcessGroup]:
    """The processes that a launcher has started, or this process alone."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield ProcessGroup()
        return
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.set_device(device)  # for what names no device
    # A barrier names none either, and would run on the GPU of the process's number among all machines.
    distributed.init_process_group("nccl" if on_gpu else "gloo", device_id=device if on_gpu else None)
    try:
        yield ProcessGroup(distributed.get_rank(), size)
    finally:
        distributed.destroy_process_group()


def is_main_process() -> bool:
    """Whether this process is the one that prints: the first of those that a launcher has started."""
    return os.environ.get("RANK", "0") == "0"


def local_device(device: str) -> str:
    """The device of this process: its own GPU where ``device`` is ``cuda`` and a launcher has started several."""
    local = os.environ.get("LOCAL_RANK")
    return f"cuda:{local}" if device == "cuda" and local is not None else device
