"""Where and how a model runs: devices, types and batch sizes, from what the user wrote."""

from __future__ import annotations

import torch

from mmrobust.errors import UsageError, unknown_name

DEFAULT_BATCH_SIZE = 64
DTYPES = ("float32", "bfloat16")


def resolve_device(name: str) -> torch.device:
    """The device for ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        UsageError: no such device, or none on this machine.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda") or (index and not index.isdigit()):
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


def resolve_batch_size(text: str) -> int:
    """A number of samples; ``auto`` means the default.

    Raises:
        UsageError: no positive whole number.
    """
    if text == "auto":
        return DEFAULT_BATCH_SIZE
    if not text.isdigit() or int(text) < 1:
        raise UsageError(f"batch size '{text}': give a positive whole number, or auto")
    return int(text)
