"""Reading a source: its folder, its splits, pictures and recordings, and what makes a sample unusable."""

from __future__ import annotations

import hashlib
import io
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mmrobust.data.decoding import DECODERS, check_features
from mmrobust.errors import DataError
from mmrobust.storage.files import read_json

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
    """The folder that holds the file ``marker``: ``source``, or one of its folders ``inner``, as archives unpack."""
    check_folder(source, f"the folder that holds {marker}")
    for root in (source, *(source / name for name in inner)):
        if (root / marker).is_file():
            return root
    raise DataError(f"{source}: holds no {marker}; --source names the folder that holds it")


def read_media(modality: str, file: Path, where: str = "") -> bytes:
    """Read the picture or recording in ``file``, and check that it can be decoded.

    ``where`` says what refers to it (annotation file and row), for the message.

    Raises:
        UnusableSample: it is missing, or cannot be read or decoded.
    """
    content = _read(modality, file, where)
    check_media(modality, content, f"{where}: {file}" if where else str(file))
    return content


def read_features(modality: str, source: Path | Sequence[Any], where: str) -> npt.NDArray[np.float32]:
    """Features [D] or [T, D]: the numbers of a ``.npy`` file, or those given.

    Raises:
        UnusableSample: the file is missing or no ``.npy``, or they are no finite numbers of that shape.
    """
    try:
        if not isinstance(source, Path):
            return check_features(source, f"{where}: {modality}")
        content = _read(modality, source, where)
        try:
            values = np.load(io.BytesIO(content), allow_pickle=False)
        except Exception as cause:  # on broken files numpy raises nearly anything
            raise DataError(f"{where}: {modality} {source}: cannot be read as a .npy file") from cause
        return check_features(values, f"{where}: {modality} {source}")
    except UnusableSample:
        raise
    except DataError as cause:
        raise UnusableSample(str(cause), f"{modality} unreadable") from cause


def _read(modality: str, file: Path, where: str) -> bytes:
    """The bytes of a regular file; raises ``UnusableSample``."""
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
    return content


def check_media(modality: str, content: bytes, origin: str) -> None:
    """Raise ``UnusableSample`` where ``content`` cannot be decoded; the message begins with ``origin``."""
    try:
        DECODERS[modality](content, origin)
    except DataError as cause:
        raise UnusableSample(str(cause), f"{modality} unreadable") from cause


SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval"), "test"),
}
"""Name of a split in a source, in lower case → our name."""

SHARES = {"train": 0.63, "validation": 0.07, "test": 0.3}
"""Share of each class where an audio-visual release has no splits: 70 / 30 as in its paper and those that followed,
with a tenth of the 70 for validation."""


def split_in(name: str) -> str | None:
    """The split that a file or folder is named after (``val``), or that is a word in its name (``train_relative``)."""
    words = [name.lower(), *re.split(r"[^a-z]+", name.lower())]
    return next((SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES), None)


VALIDATION = {"train": 0.9, "validation": 0.1}
"""Share of each class of a training split beside which there is none for validation."""


def split_by_class(
    classes: Mapping[str, str],
    key: str,
    group: Callable[[str], str] = lambda sample_id: sample_id,
    shares: Mapping[str, float] = SHARES,
) -> dict[str, str]:
    """Split samples that have no split of their own, by the ``shares`` of each class.

    A group (samples cut from one recording) is never divided. Groups are taken in the order of a hash of ``key`` (the
    data set) and their name, which is the same on every machine; each goes to the split that is furthest from its
    share. ``classes`` are by sample id, and so are the splits that are returned.
    """
    members: defaultdict[str, defaultdict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for sample_id, name in classes.items():
        members[name][group(sample_id)].append(sample_id)
    splits: dict[str, str] = {}
    for groups in members.values():
        size = sum(map(len, groups.values()))
        room = {split: share * size for split, share in shares.items()}
        for name in sorted(groups, key=lambda name: hashlib.blake2b(f"{key}/split/{name}".encode()).digest()):
            split = max(room, key=lambda split: room[split])
            splits.update(dict.fromkeys(groups[name], split))
            room[split] -= len(groups[name])
    return splits


def one_per_split(source: Path, names: Sequence[str]) -> dict[str, str]:
    """Split → the one of ``names`` that names it (:func:`split_in`); other names are left out.

    Raises:
        DataError: two of them name the same split.
    """
    found: dict[str, str] = {}
    for name in names:
        split = split_in(name)
        if split in found:
            raise DataError(f"{source}: {found[split]} and {name} both name the split {split}; move one of them away")
        if split is not None:
            found[split] = name
    return found


def read_splits(file: Path) -> dict[str, list[str]]:
    """Read a ``split.json``, which lists the samples of each split. Returns them by our names of the splits."""
    splits: dict[str, list[str]] = {}
    for name, samples in read_json(file, "list of splits").items():
        if name.lower() not in SPLIT_NAMES:
            raise DataError(f"{file}: '{name}' is not a split; expected train, dev (or val) and test")
        if not isinstance(samples, list) or not all(isinstance(sample, str) for sample in samples):
            raise DataError(f"{file}: '{name}' is not a list of names")
        splits.setdefault(SPLIT_NAMES[name.lower()], []).extend(samples)
    return splits
