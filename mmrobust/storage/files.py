"""Read files from anywhere with care, and write files and folders that appear whole or not at all."""

from __future__ import annotations

import errno
import fnmatch
import hashlib
import itertools
import json
import math
import os
import re
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mmrobust.errors import DataError, MmrobustError, ReadError, UsageError
from mmrobust.storage.partial import earlier_of, partial_of, remove_abandoned

_NO_NAME = (errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL)
MOST_JSON_BYTES = 2**24
"""The most bytes a JSON, YAML or TOML file may have: reading a larger one would only fill the memory."""


@contextmanager
def atomic_file(path: Path, *, through: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` to write to; move it onto ``path`` (fsync, rename) if the block succeeds.

    With ``through``, it is written straight into a pipe or device at ``path``, which a rename would replace.

    Raises:
        UsageError: ``path`` is a folder, or (without ``through``) a pipe or device.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and not path.is_file():
        if path.is_dir() or not through:
            raise UsageError(f"{path}: already exists and is not a regular file; choose another name")
        yield path
        return
    try:
        with partial_of(path) as partial:
            partial.touch()
            mode = partial.stat().st_mode
            yield partial
            _set_mode(partial, mode)
            with partial.open("rb+") as file:
                os.fsync(file.fileno())
            partial.replace(path)
    except OSError as cause:
        if cause.filename is None:  # the system names no file when the disk is full
            cause.filename = str(path)
        raise


def _set_mode(file: Path, mode: int) -> None:
    """Give ``file`` the permissions that the system gave when it was made: by the umask, or what the folder rules.

    safetensors puts a file of its own in its place, which only its owner may read.
    """
    if file.stat().st_mode != mode:
        with suppress(PermissionError, NotImplementedError):  # a disk without permissions
            file.chmod(stat.S_IMODE(mode))


def follow_umask(folder: Path) -> None:
    """Give every file in ``folder`` the permissions that the system gives a new one there; see :func:`atomic_file`."""
    with partial_of(folder / "permissions") as probe:
        probe.touch()
        mode = probe.stat().st_mode
    for file in folder.iterdir():
        if file.is_file():
            _set_mode(file, mode)


def remove_partial(*folders: Path) -> None:
    """Remove what killed processes left half written in ``folders``. Call it only while holding their lock."""
    for folder in folders:
        remove_abandoned(folder, unlocked=True)


_CANNOT_WRITE = ("ENOSPC", "EDQUOT", "EROFS", "EACCES", "EPERM", "EFBIG", "EIO")


@contextmanager
def writing(place: Path, way_out: str) -> Iterator[None]:
    """Turn a full disk or missing permission in the block into a :class:`DataError`.

    Its message ends with the ``way_out``: what was kept and what to do.
    """
    try:
        yield
    except OSError as cause:
        if errno.errorcode.get(cause.errno or 0) not in _CANNOT_WRITE:
            raise
        raise DataError(f"{place}: cannot be written ({os.strerror(cause.errno or 0)}); {way_out}") from cause
    except Exception as cause:  # safetensors wraps the system's error in one of its own
        if type(cause).__name__ != "SafetensorError" or not (why := system_failure(cause)):
            raise
        raise DataError(f"{place}: cannot be written ({why}); {way_out}") from cause


@contextmanager
def atomic_folder(folder: Path, what: str, *, replace: bool = False) -> Iterator[Path]:
    """Yield a temporary folder beside ``folder`` to fill; rename it to ``folder`` if the block succeeds.

    With ``replace``, an existing folder makes way for it once it is complete. Messages call the content ``what``.

    Raises:
        UsageError: ``folder`` contains files and ``replace`` is false, or it is an empty one that cannot be renamed
            over.
    """
    replace = replace and folder.is_dir()
    if not replace:
        refuse_to_overwrite(folder, what)
        _remove_empty(folder, what)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with partial_of(folder) as partial:
        partial.mkdir()
        yield partial
        if not (replace and folder.exists()):
            partial.rename(folder)
        elif not _exchange(partial, folder):  # a rename does not replace a folder with content
            _move_away_and_rename(partial, folder)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two folders in one step, so that there is always one of the name; false where the system cannot."""
    import ctypes

    library: Any = ctypes.CDLL(None, use_errno=True) if sys.platform in ("linux", "darwin") else None
    names, swap = (os.fsencode(one), os.fsencode(other)), 2  # RENAME_EXCHANGE, RENAME_SWAP
    if hasattr(library, "renameat2"):
        here = -100  # AT_FDCWD
        failed = library.renameat2(here, names[0], here, names[1], swap)
    elif hasattr(library, "renamex_np"):
        failed = library.renamex_np(*names, swap)
    else:
        return False
    return not failed


def _move_away_and_rename(partial: Path, folder: Path) -> None:
    """Replace ``folder`` in two steps. If the process is killed between them, the next one puts ``folder`` back."""
    earlier = earlier_of(partial)
    folder.rename(earlier)
    try:
        partial.rename(folder)
    except BaseException:
        earlier.rename(folder)
        raise
    shutil.rmtree(earlier, ignore_errors=True)


def _remove_empty(folder: Path, what: str) -> None:
    """Remove an empty folder so that another can be renamed to it; before the work, so that a failure costs none."""
    if not folder.is_dir():
        return
    try:
        folder.rmdir()
    except OSError as cause:
        if cause.errno not in (errno.EBUSY, errno.ENOTDIR, errno.EINVAL):
            raise
        kind = "a link, a mount point or the current folder"
        raise UsageError(f"{folder}: is {kind}; name a folder inside it for the {what}") from cause


def refuse_to_overwrite(folder: Path, what: str) -> None:
    """Raise if ``folder`` is a file or already contains something."""
    if folder.is_file():
        raise UsageError(f"{folder}: is a file; name a folder for the {what}")
    if folder.is_dir() and any(folder.iterdir()):
        raise UsageError(f"{folder}: already contains files; name another folder for the {what}, or remove this one")


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically."""
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    with atomic_file(path) as partial:
        # Bytes of a path that are no UTF-8 become JSON's own escapes, which are read as the same path.
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")


def strict_json(value: Any) -> Any:
    """Return ``value`` as strict JSON can hold it: keys as strings, tuples as lists, NaN and infinities as null."""
    if isinstance(value, dict):
        return {str(key): strict_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [strict_json(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def system_failure(cause: BaseException) -> str:
    """Return what the system said where it failed to read, which tells nothing of a file's content; else nothing.

    What a damaged file makes the libraries raise has no error number of the system.
    """
    if isinstance(cause, MemoryError):
        return "too little memory"
    number = cause.errno if isinstance(cause, OSError) else None
    if isinstance(cause, FileNotFoundError) and not number:
        return "it could not be opened"  # safetensors says so whatever the reason
    if type(cause).__name__ == "SafetensorError" and (told := re.search(r"os error (\d+)", str(cause))):
        number = int(told[1])
    return os.strerror(number) if number else ""


def read_error(place: object, why: str) -> ReadError:
    """Make the error for a file that the system did not read."""
    return ReadError(f"{place}: the system could not read it ({why}); it may well be intact, and is left as it is")


def is_there(path: Path) -> bool:
    """Whether there is anything at ``path``. Only that there is nothing counts as such, no other failure.

    ``Path.exists`` and ``Path.is_file`` do not tell the two apart since Python 3.14.

    Raises:
        ReadError: the system cannot say.
    """
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as cause:
        raise read_error(path, os.strerror(cause.errno or 0)) from cause
    return True


def files_in(folder: Path, pattern: str) -> list[Path]:
    """Return the entries of ``folder`` whose names match ``pattern``, sorted; none where there is no such folder.

    ``Path.glob`` finds nothing in a folder that may not be read.

    Raises:
        ReadError: the system cannot say what is in it.
    """
    try:
        names = [entry.name for entry in folder.iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as cause:
        raise read_error(folder, os.strerror(cause.errno or 0)) from cause
    return sorted(folder / name for name in fnmatch.filter(names, pattern))


def move_aside(path: Path, ending: str) -> Path:
    """Rename ``path`` so that its name has this ``ending`` (and a number, if there is one of that name); return it."""
    for number in itertools.count(1):
        target = path.with_name(f"{path.name}.{ending}{'' if number == 1 else f'-{number}'}")
        if not is_there(target):
            break
    return path.rename(target)


def is_file(path: str | Path) -> bool:
    """Whether ``path`` is a file; false where its folder may not be entered or its name is too long."""
    try:
        return Path(path).is_file()
    except (OSError, ValueError):
        return False


def is_utf8(path: str | Path) -> bool:
    """Whether a path is UTF-8. On Linux it need not be, and libraries in C++ and Rust open no other."""
    return not any("\ud800" <= char <= "\udfff" for char in str(path))


def check_file(path: Path, what: str, error: type[MmrobustError] = DataError, most_bytes: int | None = None) -> None:
    """Check ``path`` before it is opened: a pipe would hang, and a device has no end.

    Raises:
        MmrobustError: of the type ``error``: there is no such file, or it is not a regular file or too large; ``what``
            says what was expected.
    """
    try:
        exists = is_there(path)
        regular = exists and path.is_file()
    except (ReadError, ValueError) as failure:
        cause = failure.__cause__ if isinstance(failure, ReadError) else failure
        if isinstance(cause, OSError) and cause.errno not in _NO_NAME:
            raise
        reason = getattr(cause, "strerror", None) or cause
        raise error(f"{path}: cannot be opened ({reason}); expected the {what}") from cause
    if not regular:
        raise error(f"{path}: {'is not a regular file' if exists else 'no such file'}; expected the {what}")
    if most_bytes is not None and (size := path.stat().st_size) > most_bytes:
        raise error(f"{path}: is {size:,} bytes, larger than any {what} ({most_bytes:,})")


def read_text(path: Path, what: str, error: type[MmrobustError] = DataError, most_bytes: int = MOST_JSON_BYTES) -> str:
    """Read the UTF-8 text in ``path``; raises as :func:`check_file`, or where it is not text.

    Raises:
        ReadError: the system could not read it.
    """
    check_file(path, what, error, most_bytes)
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError, MemoryError) as cause:
        if why := system_failure(cause):
            raise read_error(path, why) from cause
        raise error(f"{path}: cannot be read as the {what} ({cause})") from cause


def read_json(
    path: Path, what: str, error: type[MmrobustError] = DataError, most_bytes: int = MOST_JSON_BYTES
) -> dict[str, Any]:
    """Read the JSON object in ``path``; raises as :func:`check_file`, or where it is not one."""
    text = read_text(path, what, error, most_bytes)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as cause:
        raise error(f"{path}: cannot be read as the {what} ({cause})") from cause
    if not isinstance(value, dict):
        raise error(f"{path}: is not the {what} (a JSON object was expected)")
    return value


def sha256(file: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        while block := opened.read(2**20):
            digest.update(block)
    return digest.hexdigest()
