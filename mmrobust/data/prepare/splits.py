"""Which split a sample belongs to: by the names that sources use for splits, or by a hash where they have none."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from mmrobust.errors import DataError
from mmrobust.storage.files import read_json

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
    "eval": "test",
}
"""Name of a split in a source, in lower case → our name."""

SHARES = {"train": 0.63, "validation": 0.07, "test": 0.3}
"""Share of each class where an audio-visual release has no splits: 70 / 30 as in its paper and those that followed,
with a tenth of the 70 for validation."""


def split_in(name: str) -> str | None:
    """The split that a file or folder is named after (``val``), or that is a word in its name (``train_relative``)."""
    words = [name.lower(), *re.split(r"[^a-z]+", name.lower())]
    return next((SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES), None)


def split_by_class(
    classes: Mapping[str, str], key: str, group: Callable[[str], str] = lambda sample_id: sample_id
) -> dict[str, str]:
    """Split samples that have no split of their own, by the :data:`SHARES` of each class.

    A group (samples cut from one recording) is never divided. Groups are taken in the order of a hash of ``key`` and
    their name, which is the same on every machine; each goes to the split that is furthest from its share.

    Args:
        classes: sample id → class.
        key: hashed too: the name of the data set.
        group: sample id → group.

    Returns:
        Sample id → split.
    """
    members: defaultdict[str, defaultdict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for sample_id, name in classes.items():
        members[name][group(sample_id)].append(sample_id)
    splits: dict[str, str] = {}
    for groups in members.values():
        size = sum(map(len, groups.values()))
        room = {split: share * size for split, share in SHARES.items()}
        for name in sorted(groups, key=lambda name: hashlib.blake2b(f"{key}/split/{name}".encode()).digest()):
            split = max(room, key=lambda split: room[split])
            splits.update(dict.fromkeys(groups[name], split))
            room[split] -= len(groups[name])
    return splits


def one_per_split(source: Path, names: Sequence[str]) -> dict[str, str]:
    """Split → the one of ``names`` that names it (:func:`split_in`); other names are left out.

    Raises:
        DataError: two of them name the same split; the message begins with ``source``.
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
    """Read a ``split.json``, which lists the samples of each split. Returns them by our names of the splits.

    Raises:
        DataError: the file is missing or has another form, or a name is not that of a split.
    """
    splits: dict[str, list[str]] = {}
    for name, samples in read_json(file, "list of splits").items():
        if name.lower() not in SPLIT_NAMES:
            raise DataError(f"{file}: '{name}' is not a split; expected train, dev (or val) and test")
        if not isinstance(samples, list) or not all(isinstance(sample, str) for sample in samples):
            raise DataError(f"{file}: '{name}' is not a list of names")
        splits.setdefault(SPLIT_NAMES[name.lower()], []).extend(samples)
    return splits
