"""Where and how a model runs: devices, types and batch sizes, from what the user wrote."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from mmrobust.errors import DeviceError, UsageError, unknown_name

if TYPE_CHECKING:
    pass
DEFAULT_BATCH_SIZE = 64
CPU_BATCH_SIZE = 32
DTYPES = ("float32", "bfloat16")
LARGEST_BATCH = 512
"""A larger one gains nothing any more on any GPU that we know of."""
MEMORY_SHARE = 0.85
"""How much of a GPU's memory a batch that is chosen for the user may take."""


class BatchSize:
    """How many samples go through a model at a time: fewer where they do not fit into memory.

    Args:
        now: to begin with.
        grows: whether more are taken where there is room for twice as many.
    """

    def __init__(self, now: int = DEFAULT_BATCH_SIZE, *, grows: bool = False) -> None:
        self.now, self._grows = now, grows

    def halve(self, device: torch.device) -> None:
        """Take half as many from now on, and never more again: the last batch did not fit.

        Raises:
            UsageError: it was of one sample.
        """
        if self.now == 1:
            raise UsageError(f"device {device} has too little memory for a single sample; use another --device")
        self.now, self._grows = self.now // 2, False
        if device.type == "cuda":
            torch.cuda.empty_cache()

    def grow(self, device: torch.device) -> None:
        """Take twice as many from now on, where what was used so far says that they fit."""
        if not self._grows or device.type != "cuda":
            return
        _, total = torch.cuda.mem_get_info(device)
        if self.has_room(torch.cuda.max_memory_allocated(device), total):
            self.now *= 2
            torch.cuda.reset_peak_memory_stats(device)

    def has_room(self, peak: int, total: int) -> bool:
        """Whether twice as many fit into ``total`` bytes, where the most in use was ``peak``."""
        return 2 * self.now <= LARGEST_BATCH and 2 * peak <= MEMORY_SHARE * total


def out_of_memory(error: RuntimeError) -> bool:
    """Whether ``error`` says that the device, or this machine, had no memory for a tensor."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def lost(error: RuntimeError) -> bool:
    """Whether ``error`` says that the device itself failed: it is gone, or nothing on it can be used any more."""
    kind = getattr(torch, "AcceleratorError", None)  # since PyTorch 2.8
    return (kind is not None and isinstance(error, kind)) or str(error).startswith(("CUDA error", "CUDA driver error"))


@contextmanager
def device_errors(device: str | torch.device, smaller: str, kept: str) -> Iterator[None]:
    """Say in one line that the device has no memory for the block's work, or failed at it.

    Args:
        device: where the block computes.
        smaller: what takes less memory, for the message.
        kept: what is kept, and how to go on, for the message.

    Raises:
        DeviceError: that.
    """
    try:
        yield
    except RuntimeError as error:
        said = " ".join(str(error).split())[:120]
        if out_of_memory(error):
            raise DeviceError(f"device {device} has too little memory ({said}); {smaller}") from error
        if lost(error):
            raise DeviceError(f"device {device} failed ({said}); look at it with nvidia-smi; {kept}") from error
        raise


def resolve_device(name: str) -> torch.device:
    """The device for ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        UsageError: no such device, or none on this machine.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda") or (index and not index.isdecimal()):
        raise unknown_name("device", name, ("auto", "cpu", "cuda", "cuda:N"))
    if kind == "cuda" and (not torch.cuda.is_available() or int(index or 0) >= torch.cuda.device_count()):
        raise UsageError(f"device {name}: PyTorch sees {torch.cuda.device_count()} GPUs here; use --device auto")
    return torch.device(name)


def resolve_dtype(name: str, device: torch.device) -> str:
    """``float32`` or ``bfloat16``; ``auto`` means bfloat16 on a GPU and float32 on a CPU.

    Raises:
        UsageError: another name.
    """
    if name == "auto":
        return "bfloat16" if device.type == "cuda" else "float32"
    if name not in DTYPES:
        raise unknown_name("dtype", name, ("auto", *DTYPES))
    return name


def evaluation_batch_size(text: str, device: torch.device) -> BatchSize:
    """The batch size of an evaluation, where it changes no result: a number, or ``auto``.

    ``auto`` grows on a GPU to the largest that fits. On a CPU it is a small one: what a batch adds there is padding.

    Raises:
        UsageError: no positive whole number.
    """
    if text != "auto":
        return BatchSize(resolve_batch_size(text))
    return BatchSize(CPU_BATCH_SIZE) if device.type == "cpu" else BatchSize(DEFAULT_BATCH_SIZE, grows=True)


def resolve_batch_size(text: str) -> int:
    """A number of samples; ``auto`` means the default.

    Raises:
        UsageError: no positive whole number.
    """
    if text == "auto":
        return DEFAULT_BATCH_SIZE
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"batch size '{text}': give a positive whole number, or auto")
    return int(text)
