"""Whether, where and in how much memory a training keeps what is frozen."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mmrobust.errors import UsageError, unknown_name


@dataclass(frozen=True)
class Cache:
    """Whether and where what is frozen is kept."""

    on: bool = True
    folder: Path | None = None
    """Where it is kept for later trainings; ``None``: for this training only, in memory as far as it goes."""
    memory: int | None = None
    """Bytes of memory at most, for training and validation together (of several processes: each); the rest lies in
    files. ``None``: a quarter of what is free."""


def parse_cache(text: str, gigabytes: float | None = None) -> Cache:
    """The cache of ``--cache``: ``auto``, ``off``, or a folder that keeps it.

    Raises:
        UsageError: a word that is neither, nor a folder: one that is not there yet is written with a ``/``.
    """
    if gigabytes is not None and gigabytes < 0:
        raise UsageError(f"--cache-memory {gigabytes:g}: give gigabytes, 0 or more")
    memory = None if gigabytes is None else int(gigabytes * 2**30)
    if text in ("auto", "off"):
        return Cache(text == "auto", memory=memory)
    if "/" not in text and not Path(text).is_dir():
        raise unknown_name("cache", text, ("auto", "off", "FOLDER/"))
    return Cache(folder=Path(text), memory=memory)
