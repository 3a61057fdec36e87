"""The cores and memory that this process may use, within the limits of its container, and budgets of memory."""

from __future__ import annotations

import errno
import math
import os
from dataclasses import dataclass
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
"""Where Linux keeps the limits of a container."""


def available_cores() -> int:
    """Return how many cores this process may use; a container's share of processor time counts as whole cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = (CGROUP / "cpu.max").read_text().split()
        return max(1, min(cores, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError, ZeroDivisionError):  # no such file, or "max": no limit
        return cores


def own_threads() -> int:
    """Return how many threads this process is to use: as many as ``OMP_NUM_THREADS`` says, or else as it has cores.

    ``torchrun`` and Ray set it where several processes share a machine.
    """
    said = os.environ.get("OMP_NUM_THREADS", "")
    return int(said) if said.isdecimal() and int(said) else available_cores()


def lacks_memory(error: BaseException | None) -> bool:
    """Whether an error, or what caused it, says that there is too little memory: for data, a library or a thread."""
    while error is not None:
        if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM or _NO_MEMORY in str(error):
            return True
        if isinstance(error, (ImportError, RuntimeError)) and any(sign in str(error) for sign in _SIGNS):
            return True
        error = error.__cause__ or error.__context__
    return False


_NO_MEMORY = os.strerror(errno.ENOMEM)
_SIGNS = ("failed to map segment", "can't allocate memory", "not enough memory", "can't start new thread", "bad_alloc")


def total_memory() -> int | None:
    """Return the bytes of memory of the machine or its container; ``None`` if unknown."""
    return _least(_meminfo("MemTotal"), _number(CGROUP / "memory.max"))


def free_memory() -> int | None:
    """Return the bytes of memory that are free or reclaimable (cached files); ``None`` if unknown."""
    limit, used = (_number(CGROUP / f"memory.{name}") for name in ("max", "current"))
    if limit is None or used is None:
        return _meminfo("MemAvailable")
    unused_pages = _field(CGROUP / "memory.stat", "inactive_file") or 0  # of files: reclaimed at once
    return _least(_meminfo("MemAvailable"), max(0, limit - used + unused_pages))


@dataclass
class MemoryBudget:
    """Bytes of memory that several users may take together."""

    left: int

    def take(self, size: int) -> bool:
        """Take ``size`` bytes, if so many are left; returns whether they were."""
        fits = size <= self.left
        self.left -= size if fits else 0
        return fits

    def give_back(self, size: int) -> None:
        """Return ``size`` bytes that were taken."""
        self.left += size


def _least(*values: int | None) -> int | None:
    return min((value for value in values if value is not None), default=None)


def _meminfo(name: str) -> int | None:
    kibibytes = _field(Path("/proc/meminfo"), f"{name}:")
    return None if kibibytes is None else kibibytes * 1024


def _field(file: Path, name: str) -> int | None:
    """Return the number after ``name`` in a file of lines ``NAME NUMBER``; ``None`` if there is none."""
    try:
        return next(int(line.split()[1]) for line in file.read_text().splitlines() if line.startswith(f"{name} "))
    except (OSError, ValueError, StopIteration):
        return None


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):  # no such file, or "max": no limit
        return None
