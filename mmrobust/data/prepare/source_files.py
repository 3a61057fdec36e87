"""Reading the files of a source: the folder they lie in, pictures, recordings, and what makes a sample unusable."""

from __future__ import annotations

from pathlib import Path

from mmrobust.data.decoding import DECODERS
from mmrobust.errors import DataError

MAX_FILE_BYTES = 2**30
"""Largest picture, recording or list of samples that is read."""


class UnusableSample(DataError):
    """A sample whose files are missing or cannot be decoded; it is counted under ``reason``."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class SkipSample(Exception):  # not an error: it never leaves this package
    """A sample that is incomplete in the source itself, and that the papers leave out too; says what is missing."""


def check_folder(source: Path, what: str) -> None:
    """Raise ``DataError`` where there is no folder ``source``; ``what`` says what ``--source`` should name."""
    if not source.is_dir():
        raise DataError(f"{source}: no such folder; --source names {what}")


def find_root(source: Path, marker: str, *inner: str) -> Path:
    """The folder that holds the file ``marker``: ``source``, or one of its folders ``inner``, as archives unpack.

    Raises:
        DataError: there is no such folder, or none of them holds the file.
    """
    check_folder(source, f"the folder that holds {marker}")
    for root in (source, *(source / name for name in inner)):
        if (root / marker).is_file():
            return root
    raise DataError(f"{source}: holds no {marker}; --source names the folder that holds it")


def read_media(modality: str, file: Path, where: str = "") -> bytes:
    """Read the picture or recording in ``file``, and check that it can be decoded.

    Args:
        modality: ``image`` or ``audio``.
        file: its path.
        where: what refers to it (annotation file and row), for the message.

    Raises:
        UnusableSample: it is missing, or cannot be read or decoded.
    """
    place = f"{where}: " if where else ""
    try:
        if file.exists() and not file.is_file() and not file.is_dir():  # reading a pipe or device would never end
            raise OSError("it is no regular file")
        with file.open("rb") as opened:
            content = opened.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise OSError(f"it holds more than {MAX_FILE_BYTES:,} bytes")
    except (OSError, ValueError) as cause:  # ValueError: a path with a zero byte
        reason = getattr(cause, "strerror", None) or str(cause)
        raise UnusableSample(f"{place}{modality} {file} cannot be read ({reason})", f"{modality} not there") from cause
    check_media(modality, content, f"{place}{file}")
    return content


def check_media(modality: str, content: bytes, origin: str) -> None:
    """Check that the picture or recording ``content`` can be decoded.

    Raises:
        UnusableSample: it cannot; the message begins with ``origin``.
    """
    try:
        DECODERS[modality](content, origin)
    except DataError as cause:
        raise UnusableSample(str(cause), f"{modality} unreadable") from cause
