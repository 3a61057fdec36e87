"""The cores and memory that this process may use, within the limits of its container."""

from __future__ import annotations

import math
import os
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


def total_memory() -> int | None:
    """Return the bytes of memory of the machine or its container; ``None`` if unknown."""
    return _least(_meminfo("MemTotal"), _number(CGROUP / "memory.max"))


def free_memory() -> int | None:
    """Return the bytes of memory that are free or reclaimable (cached files); ``None`` if unknown."""
    limit, used = (_number(CGROUP / f"memory.{name}") for name in ("max", "current"))
    if limit is None or used is None:
        return _meminfo("MemAvailable")
    return _least(_meminfo("MemAvailable"), max(0, limit - used + _file_pages()))


def _least(*values: int | None) -> int | None:
    return min((value for value in values if value is not None), default=None)


def _meminfo(name: str) -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), None)


def _file_pages() -> int:
    """Return the bytes of the container's memory in inactive file pages, which the system reclaims at once."""
    try:
        lines = (CGROUP / "memory.stat").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("inactive_file "))
    except (OSError, ValueError, StopIteration):
        return 0


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):  # no such file, or "max": no limit
        return None
