"""Measures the cost of a training: memory above the loaded model, time and energy."""

from __future__ import annotations

import ctypes
import gc
import importlib
import re
import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow
import torch

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RAPL = Path("/sys/class/powercap/intel-rapl:0/energy_uj")


@dataclass(frozen=True)
class TrainingCost:
    """The cost of a training; ``training.efficiency`` in the checkpoint's config."""

    trained_parameters: int
    all_parameters: int
    peak_memory: int | None
    """Highest memory in bytes above the loaded model and what was read to set up; allocated on a GPU, resident on CPU.
    Input data, cached features, gradients, moments and activations count. ``None`` where it cannot be measured."""
    seconds_per_epoch: float
    """Time of the training steps, without validation and filling the cache. Median over epochs."""
    samples_per_second: float
    samples_per_epoch: int
    validation_seconds: float
    """Per epoch; median over epochs."""
    cache_seconds: float
    """Time to fill the cache of frozen features."""
    cache_bytes: int
    energy_joules: float | None
    """Of the GPU, or of the whole processor including other programs; ``None`` where it cannot be measured."""
    device: str
    batch_size: int


class ResourceMeter:
    """Measures memory and energy from its creation on: after the model is loaded, before anything is trained."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        gc.collect()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
            torch.cuda.reset_peak_memory_stats(device)
            self._base: int | None = torch.cuda.memory_allocated(device)
        else:
            release_memory()
            self._base = _reset_resident_peak()
        self._energy = _energy(device)

    def peak_memory(self) -> int | None:
        """Highest memory since then, in bytes above that at the start; ``None`` where it cannot be measured."""
        if self._base is None:
            return None
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device) - self._base
        return max(0, _resident_peak() - self._base)

    def energy(self) -> float | None:
        """Joules since then; ``None`` where it cannot be measured."""
        now = _energy(self._device)
        return None if now is None or self._energy is None or now < self._energy else now - self._energy


class Stopwatch:
    """Measures wall time from its creation on, including work that a GPU has not finished yet."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._begin = self._now()

    def seconds(self) -> float:
        """Seconds since its creation."""
        return self._now() - self._begin

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()


def release_memory() -> None:
    """Return freed memory to the system, where libraries can; otherwise reusing it would not show in the peak."""
    pyarrow.default_memory_pool().release_unused()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:  # glibc
        trim(0)


def _reset_resident_peak() -> int | None:
    """Reset the peak and return the bytes resident now; ``None`` where the system has no peak that can be reset."""
    if not _STATUS.is_file():
        return _resident_peak() or None
    try:
        _CLEAR.write_text("5")  # resets the peak of resident memory (proc(5))
    except OSError:
        return None
    return _status("VmRSS")


def _resident_peak() -> int:
    if _STATUS.is_file():
        return _status("VmHWM")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _status(name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+)", _STATUS.read_text(), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def _energy(device: torch.device) -> float | None:
    """Joules consumed so far: by the GPU (NVML) or the processor (RAPL)."""
    if device.type == "cuda":
        try:
            nvml: Any = importlib.import_module("pynvml")  # optional: not a dependency of ours
        except ImportError:
            return None
        try:
            nvml.nvmlInit()
            # NVML's numbers do not follow CUDA_VISIBLE_DEVICES.
            handle = nvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
            return float(nvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1e3
        except nvml.NVMLError:  # an old driver, no such counter
            return None
    try:
        return int(_RAPL.read_text()) / 1e6
    except (OSError, ValueError):
        return None
