"""Read files from anywhere with care, and write files and folders that appear whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import json
import math
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
    partial = _partial(path)
    try:
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as cause:
        if cause.filename is None:  # the system names no file when the disk is full
            cause.filename = str(path)
        raise
    finally:
        partial.unlink(missing_ok=True)


def _partial(path: Path) -> Path:
    """Return a name beside ``path`` that no other process takes. Process ids would not do: containers share them."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")


def remove_partial(*folders: Path) -> None:
    """Remove what a killed process left half written in ``folders``. Call it only while holding their lock."""
    for partial in (file for folder in folders for file in folder.glob(".*.partial")):
        if partial.is_file():
            partial.unlink(missing_ok=True)


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
        found = re.search(r"os error (\d+)", str(cause)) if type(cause).__name__ == "SafetensorError" else None
        if found is None:
            raise
        raise DataError(f"{place}: cannot be written ({os.strerror(int(found[1]))}); {way_out}") from cause


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
    partial, earlier = _partial(folder), _partial(folder)
    partial.mkdir()
    try:
        yield partial
        if replace and folder.exists():  # a rename does not replace a folder with content
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
    with atomic_file(path) as partial:
        partial.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def strict_json(value: Any) -> Any:
    """Return ``value`` as strict JSON can hold it: keys as strings, tuples as lists, NaN and infinities as null."""
    if isinstance(value, dict):
        return {str(key): strict_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [strict_json(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def is_file(path: str | Path) -> bool:
    """Whether ``path`` is a file; false where its folder may not be entered or its name is too long."""
    try:
        return Path(path).is_file()
    except (OSError, ValueError):
        return False


def check_file(path: Path, what: str, error: type[MmrobustError] = DataError, most_bytes: int | None = None) -> None:
    """Check ``path`` before it is opened: a pipe would hang, and a device has no end.

    Raises:
        MmrobustError: of the type ``error``: there is no such file, or it is not a regular file or too large; ``what``
            says what was expected.
    """
    try:
        exists, regular = path.exists(), path.is_file()
    except (OSError, ValueError) as cause:  # a name that the system does not accept
        raise error(f"{path}: cannot be opened ({cause}); expected the {what}") from cause
    if not regular:
        raise error(f"{path}: {'is not a regular file' if exists else 'no such file'}; expected the {what}")
    if most_bytes is not None and (size := path.stat().st_size) > most_bytes:
        raise error(f"{path}: is {size:,} bytes, larger than any {what} ({most_bytes:,})")


def read_text(path: Path, what: str, error: type[MmrobustError] = DataError, most_bytes: int = MOST_JSON_BYTES) -> str:
    """Read the UTF-8 text in ``path``; raises as :func:`check_file`, or where it is not text."""
    check_file(path, what, error, most_bytes)
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as cause:
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
