"""Finding the files that a table names, as spreadsheets, labelling tools and other machines write paths.

A path is absolute, or relative to a folder: the table's own, or another one in which the first paths are found. What is
there under the path as it stands is taken. Otherwise a path may begin with ``~`` or ``file://``, have backslashes or
``%20``, or spell its accents as another system does (decomposed, as on macOS, or composed).
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal
from urllib.parse import unquote

from mmrobust.data.prepare.source_files import UnusableSample
from mmrobust.storage.text_tables import EMPTY_WORDS

MAX_FOLDERS = 100
"""Folders beside a table in which paths are looked for."""
_FORMS: tuple[Literal["NFC", "NFD"], ...] = ("NFC", "NFD")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/{2}")
_DRIVE = re.compile(r"[A-Za-z]:[\\/]")


def find_base(folder: Path, examples: Sequence[str]) -> Path:
    """The folder to which the paths ``examples`` of one modality are relative.

    It is that of the table, ``folder``, where any of them is found there; else the first folder in which all are: a
    folder beside the table, one of the folders above it, or the working folder; else ``folder``.
    """
    if not examples or any(_found(folder, path) for path in examples):
        return folder
    return next((base for base in _candidates(folder) if all(_found(base, path) for path in examples)), folder)


def _candidates(folder: Path) -> Iterator[Path]:
    try:
        inner = sorted(path for path in folder.iterdir() if path.is_dir())
    except OSError:
        inner = []
    yield from inner[:MAX_FOLDERS]
    yield from folder.resolve().parents[:3]
    yield Path.cwd()


def _found(base: Path, written: str) -> bool:
    try:
        return _find(base, written) is not None
    except (OSError, ValueError):  # a path that no system takes, such as one with a zero byte
        return False


def find_file(base: Path, written: str, modality: str, where: str) -> Path:
    """The file that the cell ``written`` names; ``base / written`` where there is none.

    Raises:
        UnusableSample: it is an address, which nothing is fetched from, or only another spelling of it is there.
    """
    if "\0" in written:  # named where it is read
        return base / written
    place = f"{where}: {modality} {written}"
    if written.startswith("data:"):
        short = f"{where}: {modality} {written[:30]}…"
        raise UnusableSample(f"{short} is a data URI, not a path; save it as a file", f"{modality} not there")
    if (scheme := _SCHEME.match(written)) and scheme[0].lower() != "file://":
        raise UnusableSample(
            f"{place} is an address; mmrobust fetches nothing: download the files, and give their paths",
            f"{modality} not there",
        )
    try:
        file = _find(base, written)
        if file is not None:
            return file
        hint = _hint(base, written)
    except (OSError, ValueError):  # named where it is read
        return base / written
    if hint:
        raise UnusableSample(f"{place} is not there{hint}", f"{modality} not there")
    return base / written


def _find(base: Path, written: str) -> Path | None:
    """The file or folder that is there under one of the readings of ``written``."""
    for reading in _readings(written):
        spellings = [reading] if reading.isascii() else [reading, *(unicodedata.normalize(f, reading) for f in _FORMS)]
        for spelling in spellings:
            if (file := base / spelling).exists():
                return file
        if not reading.isascii() and (mixed := _spelt(base, reading)) is not None:
            return mixed
    return None


def _readings(written: str) -> Iterator[str]:
    """The paths that ``written`` can stand for, as it stands first."""
    yield written
    path = written
    if path.lower().startswith("file://"):
        path = unquote(re.sub(r"^file://(localhost)?", "", path, flags=re.IGNORECASE))
        yield path
    if path.startswith("~"):
        path = os.path.expanduser(path)  # noqa: PTH111  # pathlib raises where there is no such user
        yield path
    if "\\" in path and os.sep != "\\":
        path = path.replace("\\", "/")
        yield path
    if "%" in path and (unquoted := unquote(path)) != path:
        yield unquoted


def _spelt(base: Path, path: str) -> Path | None:
    """The file whose path is canonically equivalent to ``path``, part by part: é is one character or two."""
    file = base
    for part in Path(path).parts:
        inner = file / part
        if not inner.exists():
            wanted = unicodedata.normalize("NFC", part)
            names = os.listdir(file) if file.is_dir() else []  # noqa: PTH208  # only the names are needed
            same = next((name for name in sorted(names) if unicodedata.normalize("NFC", name) == wanted), None)
            if same is None:
                return None
            inner = file / same
        file = inner
    return file


def _hint(base: Path, written: str) -> str:
    """What may be meant by a path under which nothing is there; empty where nothing is known."""
    if written.lower() in EMPTY_WORDS:
        return ": where there is none, leave the cell empty"
    if _DRIVE.match(written) and os.name != "nt":
        return ": it is a path of Windows; give paths relative to the manifest"
    if written.startswith("/data/upload/") or written.startswith("/data/local-files/"):
        return ": it is an address in Label Studio; export the files too, and give their paths"
    *_, last = _readings(written)
    file = base / last
    if not file.parent.is_dir():
        return ""
    # Only other capitals and other endings: a name that is merely near is that of the next picture.
    wanted = Path(last.casefold())
    names = sorted(os.listdir(file.parent))  # noqa: PTH208  # only the names are needed
    same = [name for name in names if name.casefold() == wanted.name]
    same += [name for name in names if Path(name.casefold()).stem == wanted.stem]
    return f"; is '{same[0]}' meant?" if same else ""
