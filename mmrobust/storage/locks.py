"""Locks on a folder that say who holds them.

The operating system holds a lock (filelock: flock or LockFileEx), so it ends with its process, however that ended. A
note beside it names the holder, for the error that another run gets; a note that outlived its process is replaced.
"""

from __future__ import annotations

import errno
import json
import os
import platform
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from mmrobust.errors import UsageError
from mmrobust.storage.files import write_json
from mmrobust.storage.provenance import command_line, now

RUN = "run"
"""Name of the lock on a folder as a whole."""
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)
PATIENCE = 1.0
"""Seconds before a lock counts as held: other runs take it for a moment to see whether it is."""


@contextmanager
def hold(folder: Path, name: str = RUN, timeout: float = PATIENCE) -> Iterator[None]:
    """Hold the lock ``name`` on ``folder`` while the block runs.

    Raises:
        UsageError: another process holds it; the message says which, on which host, since when and by which command.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder, name, timeout):
        note = _note(folder, name)
        with suppress(OSError):  # a full disk: then the error that others get says less
            write_json(note, {"pid": os.getpid(), "host": platform.node(), "since": now(), "command": command_line()})
        try:
            yield
        finally:
            note.unlink(missing_ok=True)


@contextmanager
def hold_whole(folder: Path) -> Iterator[None]:
    """Hold ``folder`` against every other run, including those on a part of the work; raises as :func:`hold`."""
    with hold(folder):
        for file in sorted(folder.glob(".part-*.lock")):
            with _locked(folder, file.name.removeprefix(".").removesuffix(".lock")):
                pass
        yield


@contextmanager
def hold_part(folder: Path, index: int, of: int) -> Iterator[None]:
    """Hold part ``index`` of the work on ``folder``: other parts may be held at the same time, the whole may not.

    Raises as :func:`hold`.
    """
    with hold(folder, f"part-{index}-of-{of}"):
        with _locked(folder, RUN):
            pass
        yield


def _locked(folder: Path, name: str, timeout: float = PATIENCE) -> AbstractContextManager[object]:
    """Take the lock ``name`` on ``folder`` for a block, or raise with what its holder's note says."""
    try:
        return FileLock(folder / f".{name}.lock").acquire(timeout=timeout)
    except Timeout:
        try:
            note = json.loads(_note(folder, name).read_text(encoding="utf-8"))
            holder = f"process {note['pid']} on {note['host']} (since {note['since']}: {note['command']})"
        except (OSError, ValueError, KeyError, TypeError):  # it has the lock, but has not written its note yet
            holder = "another run"
        raise UsageError(f"{folder}: {holder} is using this folder; wait for it, or name another --out") from None
    except OSError as cause:  # of network drives without a lock server, or mounted with nolock
        if cause.errno not in _NO_LOCKS:
            raise
        why = f"its disk has no file locks ({os.strerror(cause.errno or 0)})"
        raise UsageError(f"{folder}: {why}; name an --out on another disk, or mount this one with locks") from cause


def _note(folder: Path, name: str) -> Path:
    return folder / f".{name}.holder.json"
