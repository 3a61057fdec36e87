"""Reading what a release says about its samples: its folder, its split lists, its JSON annotations."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmrobust.data.prepare.intake import Unusable
from mmrobust.data.prepare.splits import SPLIT_NAMES
from mmrobust.errors import DataError
from mmrobust.storage.files import read_json


def find_root(source: Path, marker: str, *inner: str) -> Path:
    """The folder that holds the file ``marker``: ``source``, or one of its folders ``inner``, as archives unpack.

    Raises:
        DataError: no such folder, or none of them holds it.
    """
    if not source.is_dir():
        raise DataError(f"{source}: no such folder; --source names the folder that holds {marker}")
    for root in (source, *(source / name for name in inner)):
        if (root / marker).is_file():
            return root
    raise DataError(f"{source}: holds no {marker}; --source names the folder that holds it")


def read_splits(file: Path) -> dict[str, list[str]]:
    """A ``split.json``: under each split's name a list of its samples. Returns them by our names of the splits.

    Raises:
        DataError: no such file, another form, or a name that tells no split.
    """
    splits: dict[str, list[str]] = {}
    for name, samples in read_json(file, "list of splits").items():
        if name.lower() not in SPLIT_NAMES:
            raise DataError(f"{file}: '{name}' is no split; expected train, dev (or val) and test")
        if not isinstance(samples, list) or not all(isinstance(sample, str) for sample in samples):
            raise DataError(f"{file}: under '{name}' stands no list of names")
        splits.setdefault(SPLIT_NAMES[name.lower()], []).extend(samples)
    return splits


def read_annotation(file: Path, fields: Mapping[str, type]) -> dict[str, Any]:
    """The JSON object in ``file``, which has these ``fields`` of these types.

    Raises:
        Unusable: no such file, no JSON, or other fields.
    """
    try:
        annotation = read_json(file, "annotation of a sample")
    except DataError as cause:
        state = "unreadable" if file.is_file() else "not there"
        raise Unusable(str(cause), f"annotation {state}") from cause
    for name, kind in fields.items():
        if not isinstance(annotation.get(name), kind):
            raise Unusable(f"{file}: has no {kind.__name__} '{name}'", "annotation unreadable")
    return annotation
