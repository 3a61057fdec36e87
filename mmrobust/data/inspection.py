"""Inspecting a data set: what it contains, and whether every sample of it can be decoded."""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmrobust.configuration import plain
from mmrobust.data.dataset import Dataset, Sample, Split, is_number
from mmrobust.data.decoding import decode
from mmrobust.data.format import INFO_FILE
from mmrobust.data.writing import Fingerprint
from mmrobust.errors import DataError
from mmrobust.runtime.progress import Progress, no_progress
from mmrobust.storage.tasks import REGRESSION

DESCRIBED = (
    *(
        "name",
        "folder",
        "modalities",
        "kinds",
        "task",
        "classes",
        "headline_metric",
        "licence",
        "source",
        "fingerprint",
    ),
    *("format_version", "left_out", "notes", "files", "splits"),
)
"""The keys of a description, in order."""
NUMBERS = ("mean", "std", "min", "median", "max")
"""What is said of labels that are numbers."""


def describe(dataset: Dataset) -> dict[str, Any]:
    """Describe ``dataset`` in values that JSON can hold. Reads ids, labels and presence, no media.

    They are what ``dataset.json`` says, the ``folder``, and for each of the ``splits`` its number of ``samples``, the
    ``class_balance`` (class → samples that have it, for every class; of a regression task ``label``, with the ``mean``,
    ``std``, ``min``, ``median`` and ``max`` of the numbers), ``naturally_missing`` (modality → ``samples``
    without it and their ``share``, 0 to 1) and ``complete`` (samples that have every modality). Raises as
    :meth:`Dataset.split`.
    """
    facts = {
        **plain(dataset.info),
        "folder": str(dataset.folder),
        "splits": {name: _describe_split(dataset.split(name)) for name in dataset.splits},
    }
    return {key: facts[key] for key in DESCRIBED}


def _describe_split(split: Split) -> dict[str, Any]:
    if split.info.task == REGRESSION:
        values = np.asarray(split.labels, dtype=np.float64)
        facts: dict[str, Any] = {name: float(getattr(np, name)(values)) for name in NUMBERS}
        labels = {"label": facts}
    else:
        counts = Counter(label for labels in split.labels for label in labels)
        labels = {"class_balance": {name: counts[label] for label, name in enumerate(split.info.classes)}}
    missing = {modality: int((~present).sum()) for modality, present in split.presence.items()}
    return {
        "samples": len(split),
        **labels,
        "naturally_missing": {m: {"samples": n, "share": n / len(split)} for m, n in missing.items()},
        "complete": int(np.stack(list(split.presence.values())).all(axis=0).sum()),
    }


@dataclass(frozen=True)
class Fault:
    """Something wrong with a data set. ``str(fault)`` is the line that says so."""

    split: str
    """Empty where the whole data set is concerned."""
    id: str
    """Id of the sample; empty where part of a file cannot be read."""
    part: str
    """A modality, ``id``, ``label``, ``modalities``, ``file`` or ``fingerprint``."""
    message: str

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True)
class Verification:
    """The result of :func:`verify`."""

    folder: str
    samples: int
    """Number of samples that were read."""
    faults: tuple[Fault, ...]

    def as_dict(self) -> dict[str, Any]:
        """The result in values that JSON can hold."""
        return {"ok": not self.faults, **dataclasses.asdict(self)}


def verify(dataset: Dataset, progress: Progress = no_progress) -> Verification:
    """Read and decode every sample of ``dataset``, a row group at a time.

    Besides media that cannot be decoded, these are faults: an id that appears twice, a label that is not a class (or
    not a finite number), a sample without any modality, a part of a file that cannot be read, and a fingerprint other
    than that in ``dataset.json`` (the files are then not those that were prepared). Missing modalities and empty texts
    are not faults.
    """
    faults: list[Fault] = []
    fingerprint, ids = Fingerprint(dataset.info.modalities), set[str]()
    declared = sum(dataset.info.splits.values())
    with progress(f"verify {dataset.info.name}", declared) as advance:
        for name in dataset.splits:
            try:
                split = dataset.split(name)
            except DataError as error:
                faults.append(Fault(name, "", "file", str(error)))
                continue
            for group in range(split.row_groups):
                try:
                    for position, sample in zip(split.rows_of_group(group), split.read_row_group(group), strict=True):
                        faults += _faults(split, position, sample, ids)
                        if sample.id is None:  # against its type, but the file may come from anywhere
                            continue
                        fingerprint.add(name, sample)
                        ids.add(sample.id)
                except DataError as error:
                    faults.append(Fault(name, "", "file", str(error)))
                advance(len(split.rows_of_group(group)))
    samples = sum(fingerprint.rows.values())
    if samples == declared and fingerprint.hexdigest() != dataset.info.fingerprint:
        message = f"{dataset.folder}: its content does not match the fingerprint in {INFO_FILE}; prepare it again"
        faults.append(Fault("", "", "fingerprint", message))
    return Verification(str(dataset.folder), samples, tuple(faults))


def _faults(split: Split, position: int, sample: Sample, ids: set[str]) -> list[Fault]:
    """The faults of the sample at ``position``."""
    origin = f"sample '{sample.id}' of {sample.origin}"
    found: list[tuple[str, str]] = []
    if sample.id is None:
        found.append(("id", f"{sample.origin}: has no id"))
    elif sample.id in ids:
        found.append(("id", f"{origin}: another sample has the same id"))
    classes = len(split.info.classes)
    if split.info.task == REGRESSION:
        if not is_number(sample.label[0]):
            found.append(("label", f"{origin}: label {sample.label[0]} is not a finite number"))
    elif wrong := [label for label in sample.label if label is None or not 0 <= label < classes]:
        found.append(("label", f"{origin}: label {wrong[0]} is not one of the {classes} classes"))
    if all(medium is None for medium in sample.media.values()):
        found.append(("modalities", f"{origin}: has no {' and no '.join(split.info.modalities)}"))
    for modality, kind in split.info.kinds.items():
        if kind == "text" or (sample.media[modality] is None and not split.presence[modality][position]):
            continue
        if sample.media[modality] is None:
            found.append((modality, f"{origin}: its {modality} has a path but no bytes"))
            continue
        try:
            decode(sample, modality)
        except DataError as error:
            found.append((modality, str(error)))
    return [Fault(split.name, sample.id or "", part, message) for part, message in found]
