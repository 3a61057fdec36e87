"""Locks on a folder that say who holds them.

A lock is the operating system's (filelock: flock or LockFileEx), so it is gone with its process, however that ended.
Beside it lies a note on the holder, for the message that another run gets; one that outlived its process is replaced.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from mmrobust.errors import UsageError
from mmrobust.storage.files import write_json
from mmrobust.storage.provenance import command_line, now

RUN = "run"
"""The lock of whoever works on a folder as a whole."""
PATIENCE = 1.0
"""Seconds before a lock counts as held: others touch it for a moment to see whether somebody holds it."""


@contextmanager
def hold(folder: Path, name: str = RUN, timeout: float = PATIENCE) -> Iterator[None]:
    """Hold the lock ``name`` on ``folder`` while the block runs.

    Raises:
        UsageError: somebody else holds it; the message says who, where, since when and by which command.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(_file(folder, name))
    try:
        lock.acquire(timeout=timeout)
    except Timeout:
        raise UsageError(
            f"{folder}: {_holder(folder, name)} is at work here; wait for it, or name another --out"
        ) from None
    try:
        note = _note(folder, name)
        with suppress(OSError):  # a full disk: then the message to others says less
            write_json(note, {"pid": os.getpid(), "host": platform.node(), "since": now(), "command": command_line()})
        try:
            yield
        finally:
            note.unlink(missing_ok=True)
    finally:
        lock.release()


@contextmanager
def hold_whole(folder: Path) -> Iterator[None]:
    """Hold ``folder`` against every other run, those of a single part of the work included.

    Raises:
        UsageError: as for :func:`hold`.
    """
    with hold(folder):
        for file in sorted(folder.glob(".part-*.lock")):
            _refuse_held(folder, file.name.removeprefix(".").removesuffix(".lock"))
        yield


@contextmanager
def hold_part(folder: Path, index: int, of: int) -> Iterator[None]:
    """Hold one part of the work on ``folder``; other parts may be held beside it, the whole may not.

    Raises:
        UsageError: as for :func:`hold`.
    """
    with hold(folder, f"part-{index}-of-{of}"):
        _refuse_held(folder, RUN)
        yield


def _refuse_held(folder: Path, name: str) -> None:
    try:
        with FileLock(_file(folder, name)).acquire(timeout=PATIENCE):
            return
    except Timeout:
        raise UsageError(
            f"{folder}: {_holder(folder, name)} is at work here; wait for it, or name another --out"
        ) from None


def _file(folder: Path, name: str) -> Path:
    return folder / f".{name}.lock"


def _note(folder: Path, name: str) -> Path:
    return folder / f".{name}.holder.json"


def _holder(folder: Path, name: str) -> str:
    try:
        note = json.loads(_note(folder, name).read_text(encoding="utf-8"))
        return f"process {note['pid']} on {note['host']} (since {note['since']}: {note['command']})"
    except (OSError, ValueError, KeyError, TypeError):  # it has the lock, but has not said so yet
        return "another run"
