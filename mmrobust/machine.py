"""What the machine has for this process: cores and memory, within the share of a container."""

from __future__ import annotations

import os
from pathlib import Path


def available_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def total_memory() -> int | None:
    """Bytes of memory, or of the container's share of it; ``None`` where the system does not say."""
    return _least(_meminfo("MemTotal"), _number(Path("/sys/fs/cgroup/memory.max")))


def free_memory() -> int | None:
    """Bytes of memory that can still be had."""
    limit, used = (_number(Path(f"/sys/fs/cgroup/memory.{name}")) for name in ("max", "current"))
    return _least(_meminfo("MemAvailable"), None if limit is None or used is None else limit - used)


def _least(*values: int | None) -> int | None:
    return min((value for value in values if value is not None), default=None)


def _meminfo(name: str) -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), None)


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):  # no such file, or "max": no limit
        return None
