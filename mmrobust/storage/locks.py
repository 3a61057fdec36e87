"""Locks on a folder that say who holds them.

The operating system holds a lock (filelock: flock or LockFileEx), so it ends with its process, however that ended. A
note beside it names the holder, for the error that another run gets; a note that outlived its process is replaced.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from mmrobust.errors import UsageError
from mmrobust.storage.files import write_json
from mmrobust.storage.provenance import command_line, now

RUN = "run"
"""Name of the lock on a folder as a whole."""
PATIENCE = 1.0
"""Seconds before a lock counts as held: other runs take it for a moment to see whether it is."""


@contextmanager
def hold(folder: Path, name: str = RUN, timeout: float = PATIENCE) -> Iterator[None]:
    """Hold the lock ``name`` on ``folder`` while the block runs.

    Raises:
        UsageError: another process holds it; the message says which, on which host, since when and by which command.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = _acquire(folder, name, timeout)
    try:
        note = _note(folder, name)
        with suppress(OSError):  # a full disk: then the error that others get says less
            write_json(note, {"pid": os.getpid(), "host": platform.node(), "since": now(), "command": command_line()})
        try:
            yield
        finally:
            note.unlink(missing_ok=True)
    finally:
        lock.release()


@contextmanager
def hold_whole(folder: Path) -> Iterator[None]:
    """Hold ``folder`` against every other run, including those on a part of the work.

    Raises:
        UsageError: see :func:`hold`.
    """
    with hold(folder):
        for file in sorted(folder.glob(".part-*.lock")):
            _acquire(folder, file.name.removeprefix(".").removesuffix(".lock"), PATIENCE).release()
        yield


@contextmanager
def hold_part(folder: Path, index: int, of: int) -> Iterator[None]:
    """Hold part ``index`` of the work on ``folder``: other parts may be held at the same time, the whole may not.

    Raises:
        UsageError: see :func:`hold`.
    """
    with hold(folder, f"part-{index}-of-{of}"):
        _acquire(folder, RUN, PATIENCE).release()
        yield


def _acquire(folder: Path, name: str, timeout: float) -> BaseFileLock:
    """Acquire the lock ``name`` on ``folder``, or raise with what its holder's note says."""
    lock = FileLock(folder / f".{name}.lock")
    try:
        lock.acquire(timeout=timeout)
    except Timeout:
        try:
            note = json.loads(_note(folder, name).read_text(encoding="utf-8"))
            holder = f"process {note['pid']} on {note['host']} (since {note['since']}: {note['command']})"
        except (OSError, ValueError, KeyError, TypeError):  # it has the lock, but has not written its note yet
            holder = "another run"
        raise UsageError(f"{folder}: {holder} is using this folder; wait for it, or name another --out") from None
    return lock


def _note(folder: Path, name: str) -> Path:
    return folder / f".{name}.holder.json"
