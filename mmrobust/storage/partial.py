"""Names for what is being written: taken by no other process, and removed by a later one if their owner was killed.

Beside a half-written ``.NAME.HEX.partial`` lies a lock file, which the operating system holds for its owner (flock). A
lock that can be taken means that the owner is gone. Process ids would not do: containers share them.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    from fcntl import LOCK_EX, LOCK_NB, flock
except ImportError:  # Windows: there what a killed process left stays
    flock = None  # type: ignore[assignment]

LONGEST_NAME = 100
"""Bytes of a name that its partial's name begins with: with what follows, it may not be longer than a name can be."""
_ENDING = ".partial"
_EARLIER = ".earlier"
_LOCK = ".lock"
_NAMED = re.compile(r"\.(?P<start>.*)\.[0-9a-f]{8}\.partial", re.DOTALL)


@contextmanager
def partial_of(path: Path) -> Iterator[Path]:
    """Yield a name beside ``path`` to write to; what is there after the block, which should have moved it, is removed.

    What killed processes left half written of the same ``path`` is removed first.

    Raises:
        OSError: nothing can be written beside ``path``, which the error names.
    """
    remove_abandoned(path.parent, path.name)
    partial, lock = _take(path)
    try:
        yield partial
    finally:
        _remove(partial)
        if lock is not None:
            with suppress(OSError):
                lock_of(partial).unlink()
            os.close(lock)


def earlier_of(partial: Path) -> Path:
    """The name under which what ``partial`` replaces is kept until it is replaced."""
    return partial.with_suffix(_EARLIER)


def lock_of(partial: Path) -> Path:
    """The lock file beside ``partial``."""
    return partial.with_name(partial.name + _LOCK)


def remove_abandoned(folder: Path, name: str | None = None, *, unlocked: bool = False) -> None:
    """Remove from ``folder`` what killed processes left half written, and put back what they had moved away.

    Only of the file or folder of that ``name``, if given. What has no lock file (mmrobust 0.1 made none, and some
    network drives know no locks) stays, as its owner may be alive; with ``unlocked`` it goes too, which is right for
    whoever holds the folder's own lock.
    """
    try:
        with os.scandir(folder) as entries:
            names = {entry.name for entry in entries if entry.name.startswith(".")}
    except OSError:  # a folder that does not exist, or may not be read
        return
    start = None if name is None else _start(name)
    for entry in sorted({found.removesuffix(_LOCK) for found in names}):
        named = _NAMED.fullmatch(entry)
        if named is None or start not in (None, named["start"]):
            continue
        partial = folder / entry
        if entry + _LOCK in names:
            _remove_if_abandoned(partial)
        elif unlocked:
            _remove(partial)


def _take(path: Path) -> tuple[Path, int | None]:
    """A free name beside ``path``, and the descriptor of its lock; ``None`` where there are no locks."""
    while True:
        partial = path.with_name(f".{_start(path.name)}.{secrets.token_hex(4)}{_ENDING}")
        if flock is None:
            return partial, None
        try:
            descriptor = os.open(lock_of(partial), os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            continue
        except OSError as cause:
            cause.filename = str(path)
            raise
        try:
            flock(descriptor, LOCK_EX | LOCK_NB)
        except OSError as cause:
            os.close(descriptor)
            if cause.errno in (errno.EAGAIN, errno.EACCES):  # someone who cleans up was faster
                continue
            lock_of(partial).unlink(missing_ok=True)
            return partial, None
        if _is_at(descriptor, lock_of(partial)):
            return partial, descriptor
        os.close(descriptor)


def _remove_if_abandoned(partial: Path) -> None:
    """Remove ``partial`` and its lock, unless its owner is alive or nothing can be known of it."""
    if flock is None:
        return
    try:
        descriptor = os.open(lock_of(partial), os.O_RDWR)
    except OSError:
        return
    try:
        flock(descriptor, LOCK_EX | LOCK_NB)
        if _is_at(descriptor, lock_of(partial)):
            _put_back(partial)
            _remove(partial)
            lock_of(partial).unlink(missing_ok=True)
    except OSError:
        return
    finally:
        os.close(descriptor)


def _put_back(partial: Path) -> None:
    """Finish what the owner of ``partial`` was killed at: replacing a folder, where that takes two steps."""
    earlier, named = earlier_of(partial), _NAMED.fullmatch(partial.name)
    if not earlier.is_dir() or named is None:
        return
    target = partial.with_name(named["start"])
    if target.exists():
        _remove(earlier)
    elif len(os.fsencode(target.name)) < LONGEST_NAME - 4:  # a longer one may have been cut off, even by a character
        earlier.rename(target)


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether ``path`` still names the open file: it may have been removed before it was locked."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False


def _start(name: str) -> str:
    """The start of the names of partials of ``name``, without cutting through a character."""
    return os.fsencode(name)[:LONGEST_NAME].decode("utf-8", "ignore") if len(os.fsencode(name)) > LONGEST_NAME else name


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
        return
    with suppress(OSError):
        path.unlink()
