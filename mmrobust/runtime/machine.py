"""What the machine has for this process: cores and memory, within the share of a container."""

from __future__ import annotations

import math
import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
"""Where Linux says what a container may take."""


def available_cores() -> int:
    """The cores that this process may use, or as many as a container's share of the time comes to."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = (CGROUP / "cpu.max").read_text().split()
        return max(1, min(cores, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError, ZeroDivisionError):  # no such file, or "max": no limit
        return cores


def total_memory() -> int | None:
    """Bytes of memory, or of the container's share of it; ``None`` where the system does not say."""
    return _least(_meminfo("MemTotal"), _number(CGROUP / "memory.max"))


def free_memory() -> int | None:
    """Bytes of memory that can still be had; what only holds files that were read counts as free."""
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
    """Bytes of the container's memory that the system would give up at once: pages of files that nobody uses."""
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
