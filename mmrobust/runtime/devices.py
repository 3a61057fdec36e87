"""Where and how a model runs: devices, number formats and batch sizes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mmrobust.errors import DeviceError, UsageError, check_name, unknown_name

if TYPE_CHECKING:
    import torch

DEFAULT_BATCH_SIZE = 64
CPU_BATCH_SIZE = 32
DTYPES = ("float32", "bfloat16")
LARGEST_BATCH = 512
"""The largest batch that ``auto`` grows to, where nothing is padded; larger ones gain nothing on any GPU we know of."""
MEMORY_SHARE = 0.85
"""The share of a GPU's memory that ``auto`` may fill."""
_NO_MEMORY = (
    "can't allocate memory",  # PyTorch on a CPU
    "CUDA error: out of memory",
    "CUDA driver error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "Unable to find a valid cuDNN algorithm",  # none whose workspace fits
)
"""What PyTorch and CUDA's libraries say where memory is short; only PyTorch's own allocator has a type for it."""


class BatchSize:
    """The number of samples per forward pass, halved when they do not fit into memory, and doubled if it ``grows``."""

    def __init__(self, now: int = DEFAULT_BATCH_SIZE, *, grows: bool = False) -> None:
        self.now, self._grows = now, grows

    def halve(self, device: torch.device) -> None:
        """Halve the size for good, because the last batch did not fit; a ``UsageError`` if it was a single sample."""
        if self.now == 1:
            raise UsageError(f"device {device} has too little memory for a single sample; use another --device")
        self.now, self._grows = self.now // 2, False
        if device.type == "cuda":
            import torch

            torch.cuda.empty_cache()

    def grow(self, device: torch.device) -> None:
        """Double the size if the peak of memory so far says that twice as many samples fit."""
        if not self._grows or device.type != "cuda":
            return
        import torch

        _, total = torch.cuda.mem_get_info(device)
        if self.has_room(torch.cuda.max_memory_allocated(device), total):
            self.now *= 2
            torch.cuda.reset_peak_memory_stats(device)

    def has_room(self, peak: int, total: int) -> bool:
        """Whether twice as many samples fit into ``total`` bytes, given a ``peak`` of use so far."""
        return 2 * self.now <= LARGEST_BATCH and 2 * peak <= MEMORY_SHARE * total


def out_of_memory(error: RuntimeError) -> bool:
    """Whether ``error`` says that the device or the machine ran out of memory."""
    import torch

    return isinstance(error, torch.OutOfMemoryError) or any(said in str(error) for said in _NO_MEMORY)


def _device_failed(error: RuntimeError) -> bool:
    """Whether ``error`` says that the device itself failed, so that nothing on it can be used."""
    import torch

    kind = getattr(torch, "AcceleratorError", None)  # since PyTorch 2.8
    return (kind is not None and isinstance(error, kind)) or str(error).startswith(("CUDA error", "CUDA driver error"))


def _compiler_failed(error: RuntimeError) -> bool:
    """Whether ``error`` comes from PyTorch's compiler, which is imported where it is used alone."""
    compiler = sys.modules.get("torch._dynamo.exc")
    return compiler is not None and isinstance(error, compiler.TorchDynamoException)


@contextmanager
def device_errors(device: str | torch.device, use_less: str, resume: str) -> Iterator[None]:
    """Turn a lack of device memory, or a failure of the device, into a :class:`DeviceError`.

    Its message says how to ``use_less`` memory, or what was kept and how to ``resume``.
    """
    try:
        yield
    except RuntimeError as error:
        said = " ".join(str(error).split())[:120]
        if out_of_memory(error):
            raise DeviceError(f"device {device} has too little memory ({said}); {use_less}") from error
        if _device_failed(error):
            raise DeviceError(f"device {device} failed ({said}); look at it with nvidia-smi; {resume}") from error
        if _compiler_failed(error):
            raise UsageError(f"the model cannot be compiled here ({said}); leave out --compile") from error
        raise


def copied(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """``tensor`` on ``device``. Whoever copies it to a GPU does not wait for what the GPU is doing."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def resolve_device(name: str) -> torch.device:
    """Return the device for ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        UsageError: an unknown name, or a GPU that this machine does not have.
    """
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda") or (index and not index.isdecimal()):
        raise unknown_name("device", name, ("auto", "cpu", "cuda", "cuda:N"))
    if kind == "cuda":
        if not torch.cuda.is_available() or int(index or 0) >= torch.cuda.device_count():
            raise UsageError(f"device {name}: PyTorch sees {torch.cuda.device_count()} GPUs here; use --device auto")
        # cuDNN's attention plans each new shape for up to a second, and batches of cases with prompts have many shapes.
        torch.backends.cuda.enable_cudnn_sdp(False)
    return torch.device(name)


def resolve_dtype(name: str, device: torch.device) -> str:
    """Return ``float32`` or ``bfloat16``; ``auto`` means bfloat16 on a GPU and float32 on a CPU.

    On a GPU, float32 then means float32: TF32, which PyTorch allows in convolutions, moves logits by up to 3e-4.

    Raises:
        UsageError: an unknown name.
    """
    check_name("dtype", name, ("auto", *DTYPES))
    if name == "auto":
        name = "bfloat16" if device.type == "cuda" else "float32"
    if device.type == "cuda" and name == "float32":
        import torch

        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    return name


def evaluation_batch_size(text: str, device: torch.device) -> BatchSize:
    """Return the batch size of an evaluation, which changes no result: a number, or ``auto``.

    On a GPU, ``auto`` grows to the largest size that fits. On a CPU it is small: larger batches only add padding there.
    Anything else raises a ``UsageError``.
    """
    if text != "auto":
        return BatchSize(resolve_batch_size(text))
    return BatchSize(CPU_BATCH_SIZE) if device.type == "cpu" else BatchSize(DEFAULT_BATCH_SIZE, grows=True)


def resolve_batch_size(text: str) -> int:
    """Return the number of samples that ``text`` names; a ``UsageError`` unless it is a positive whole number."""
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"batch size '{text}': give a positive whole number, or auto")
    return int(text)
