"""What a training costs: memory above the loaded model, time and energy, measured while it runs."""

from __future__ import annotations

import ctypes
import gc
import importlib
import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow
import torch

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET_PEAK = "5"
"""What, written to ``clear_refs``, sets the peak of resident memory back (proc(5))."""
_RAPL = Path("/sys/class/powercap/intel-rapl:0/energy_uj")


@dataclass(frozen=True)
class Efficiency:
    """What a training cost; part of the checkpoint's config."""

    trained_parameters: int
    all_parameters: int
    peak_memory: int | None
    """Bytes at most above the loaded model and what was read to begin: allocated on a GPU, resident on a CPU. Input
    data, what is kept of frozen parts, gradients, moments and activations are in it. ``None`` where not known."""
    seconds_per_epoch: float
    """Training steps alone: no validation, no filling of the cache. Median over epochs."""
    samples_per_second: float
    samples_per_epoch: int
    validation_seconds: float
    """Per epoch, median."""
    cache_seconds: float
    """What it took to compute once what is frozen."""
    cache_bytes: int
    energy_joules: float | None
    """Of the GPU, or of the processor as a whole, whoever else uses it; ``None`` where the machine does not tell."""
    device: str
    batch_size: int


class Meter:
    """Measures from its making on. Make it when the model is loaded and nothing has been trained yet."""

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
        """Bytes at most above what there were at the beginning."""
        if self._base is None:
            return None
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device) - self._base
        return max(0, _resident_peak() - self._base)

    def energy(self) -> float | None:
        """Joules since the beginning, where the machine tells."""
        now = _energy(self._device)
        return None if now is None or self._energy is None or now < self._energy else now - self._energy


class Clock:
    """Wall time, with the work on a GPU waited for."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._begin = self._now()

    def seconds(self) -> float:
        """Since it was made."""
        return self._now() - self._begin

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()


def release_memory() -> None:
    """Give memory that was freed back to the system, which else hides what is taken anew (where libraries can)."""
    pyarrow.default_memory_pool().release_unused()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:  # glibc
        trim(0)


def _reset_resident_peak() -> int | None:
    """Resident bytes now, from which on the peak is taken; ``None`` where the system keeps no peak to set back."""
    if not _STATUS.is_file():
        return _resident_peak() or None
    try:
        _CLEAR.write_text(_RESET_PEAK)
    except OSError:
        return None
    return _status("VmRSS")


def _resident_peak() -> int:
    if _STATUS.is_file():
        return _status("VmHWM")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _status(name: str) -> int:
    for line in _STATUS.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return 0


def _energy(device: torch.device) -> float | None:
    """Joules so far: of the GPU through NVML, of the processor through RAPL."""
    if device.type == "cuda":
        try:
            nvml: Any = importlib.import_module(
                "pynvml"
            )  # no dependency: installed beside PyTorch by those who want it
        except ImportError:
            return None
        try:
            nvml.nvmlInit()
            handle = nvml.nvmlDeviceGetHandleByIndex(device.index or 0)
            return float(nvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1e3
        except nvml.NVMLError:  # an old driver, no such counter
            return None
    try:
        return int(_RAPL.read_text()) / 1e6
    except (OSError, ValueError):
        return None
