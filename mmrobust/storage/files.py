"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmrobust.errors import DataError, MmrobustError, UsageError

MOST_JSON_BYTES = 2**24
"""A larger file is no description of anything; reading it would only fill the memory."""


@contextmanager
def atomic_file(path: Path, *, through: bool = False) -> Iterator[Path]:
    """A temporary path beside ``path`` to write to; moved onto ``path`` (fsync, rename) when the block ends well.

    Args:
        path: the file to make, or to replace.
        through: whether what is there and no file (``/dev/stdout``, a pipe) is written to: a rename would replace it.

    Raises:
        UsageError: something else than a file is there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and not path.is_file():
        if path.is_dir() or not through:
            raise UsageError(f"{path}: is there already, and no regular file; name another")
        yield path
        return
    partial = _partial(path)
    try:
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as cause:
        if cause.filename is None:  # of a full disk the system says no name
            cause.filename = str(path)
        raise
    finally:
        partial.unlink(missing_ok=True)


def _partial(path: Path) -> Path:
    """A name beside ``path`` that no other process takes: in containers, nearly all have the same number."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")


def remove_partial(*folders: Path) -> None:
    """Remove what a killed process left half written in ``folders``. Only for who alone writes there."""
    for folder in folders:
        for partial in folder.glob(".*.partial"):
            if partial.is_file():
                partial.unlink(missing_ok=True)


_NO_WRITING = ("ENOSPC", "EDQUOT", "EROFS", "EACCES", "EPERM", "EFBIG", "EIO")


@contextmanager
def writing(place: Path, way_out: str) -> Iterator[None]:
    """Say in one line that ``place`` cannot be written: a full disk, a folder without permission.

    Args:
        place: the file or folder that the block writes.
        way_out: what is there, and what to do, for the message's end.

    Raises:
        DataError: the block failed for want of room or of permission.
    """
    try:
        yield
    except OSError as cause:
        if errno.errorcode.get(cause.errno or 0) not in _NO_WRITING:
            raise
        said = os.strerror(cause.errno or 0)
        raise DataError(f"{place}: cannot be written ({said}); {way_out}") from cause
    except Exception as cause:  # safetensors wraps what the system says in an error of its own
        found = re.search(r"os error (\d+)", str(cause)) if type(cause).__name__ == "SafetensorError" else None
        if found is None:
            raise
        raise DataError(f"{place}: cannot be written ({os.strerror(int(found[1]))}); {way_out}") from cause


@contextmanager
def atomic_folder(folder: Path, what: str, *, replace: bool = False) -> Iterator[Path]:
    """A temporary folder beside ``folder`` to fill; renamed to ``folder`` when the block ends well.

    Args:
        folder: the folder to make.
        what: what it will hold, for the message where it is there already.
        replace: whether it may take the place of what is there, which stays until the new one is whole.

    Raises:
        UsageError: ``folder`` exists and holds something, which is not to be replaced. Or it is empty, but nothing can
            be renamed to it.
    """
    replace = replace and folder.is_dir()
    if not replace:
        refuse_to_overwrite(folder, what)
        _make_way(folder, what)
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial, earlier = _partial(folder), _partial(folder)
    partial.mkdir()
    try:
        yield partial
        if replace and folder.exists():  # a rename replaces no folder that holds something
            folder.rename(earlier)
        try:
            partial.rename(folder)
        except BaseException:
            if earlier.exists():
                earlier.rename(folder)
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(earlier, ignore_errors=True)


def _make_way(folder: Path, what: str) -> None:
    """Remove an empty folder, so that another can be renamed to it; now, and not when the work is done."""
    if not folder.is_dir():
        return
    try:
        folder.rmdir()
    except OSError as cause:
        if cause.errno not in (errno.EBUSY, errno.ENOTDIR, errno.EINVAL):
            raise
        raise UsageError(
            f"{folder}: is a link, a mount point or the current folder; name a folder in it for the {what}"
        ) from cause


def refuse_to_overwrite(folder: Path, what: str) -> None:
    """Raise where ``folder`` is a file or holds something already."""
    if folder.is_file():
        raise UsageError(f"{folder}: is a file; name a folder for the {what}")
    if folder.is_dir() and any(folder.iterdir()):
        raise UsageError(f"{folder}: holds files already; name another folder for the {what}, or remove this one")


def write_json(path: Path, value: Any) -> None:
    """``value`` as indented JSON, atomically."""
    with atomic_file(path) as partial:
        partial.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def is_file(path: str | Path) -> bool:
    """Whether a file can be seen there; no, too, where its folder may not be entered or its name is too long."""
    try:
        return Path(path).is_file()
    except (OSError, ValueError):
        return False


def check_file(path: Path, what: str, error: type[MmrobustError] = DataError, most_bytes: int | None = None) -> None:
    """Look at ``path`` before it is opened: a pipe would hang, a device has no end.

    Raises:
        MmrobustError: of the type ``error``: no such file, not a regular one, or a larger one; ``what`` names what was
            sought.
    """
    try:
        there, regular = path.exists(), path.is_file()
    except (OSError, ValueError) as cause:  # a name that the system does not take
        raise error(f"{path}: cannot be opened ({cause}); it is the {what}") from cause
    if not there:
        raise error(f"{path}: no such file; it is the {what}")
    if not regular:
        raise error(f"{path}: is no regular file; it is the {what}")
    if most_bytes is not None and (size := path.stat().st_size) > most_bytes:
        raise error(f"{path}: holds {size:,} bytes, more than any {what} ({most_bytes:,})")


def read_text(path: Path, what: str, error: type[MmrobustError] = DataError, most_bytes: int = MOST_JSON_BYTES) -> str:
    """The UTF-8 text in ``path``.

    Raises:
        MmrobustError: of the type ``error``: no such file, too large a one, or no text; ``what`` names what was sought.
    """
    check_file(path, what, error, most_bytes)
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as cause:
        raise error(f"{path}: cannot be read as the {what} ({cause})") from cause


def read_json(
    path: Path, what: str, error: type[MmrobustError] = DataError, most_bytes: int = MOST_JSON_BYTES
) -> dict[str, Any]:
    """The JSON object in ``path``.

    Raises:
        MmrobustError: of the type ``error``: no such file, no JSON, or no object; ``what`` names what was sought.
    """
    text = read_text(path, what, error, most_bytes)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as cause:
        raise error(f"{path}: cannot be read as the {what} ({cause})") from cause
    if not isinstance(value, dict):
        raise error(f"{path}: is not the {what} (a JSON object was expected)")
    return value


def sha256(file: Path) -> str:
    """The file's SHA-256, as ``sha256sum`` prints it."""
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        while block := opened.read(2**20):
            digest.update(block)
    return digest.hexdigest()
