"""The format of a canonical data set: ``dataset.json``, and the schema of its Parquet files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from mmrobust.cases import MODALITIES
from mmrobust.configuration import from_mapping
from mmrobust.errors import DataError, NewerFormatError, UsageError, check_name
from mmrobust.storage.files import read_json
from mmrobust.storage.tasks import TASK_METRICS, TASKS

FORMAT_VERSION = 2
"""Format 2 added ``left_out``, ``notes`` and ``files`` to ``dataset.json``. Folders of format 1 are still read."""
INFO_FILE = "dataset.json"
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class DatasetInfo:
    """The content of ``dataset.json``; a ``DataError`` where a field contradicts the format."""

    name: str
    modalities: tuple[str, ...]
    classes: tuple[str, ...]
    task: str
    headline_metric: str
    splits: dict[str, int]
    """Number of rows of each split."""
    fingerprint: str
    """Hash over every id, label and byte of every split."""
    licence: str = "unknown"
    source: str = "unknown"
    left_out: dict[str, int] = field(default_factory=dict)
    """Reason → number of samples of the source that were left out when it was prepared."""
    notes: tuple[str, ...] = ()
    """What readers of results on this data set should know: sizes other than the release's, choices that were made."""
    files: dict[str, str] = field(default_factory=dict)
    """The annotation files that it was made from, each with its SHA-256."""
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        for name in ("modalities", "classes", "notes"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not self.modalities or any(m not in MODALITIES for m in self.modalities):
            raise DataError(f"data set {self.name}: modalities {self.modalities} are not among {', '.join(MODALITIES)}")
        if len(set(self.modalities)) < len(self.modalities):
            raise DataError(f"data set {self.name}: modalities {self.modalities} name one twice")
        if unknown := [split for split, rows in self.splits.items() if split not in SPLITS or rows < 0]:
            raise DataError(f"data set {self.name}: splits {unknown[0]!r} are not among {', '.join(SPLITS)}")
        if self.task not in TASKS:
            raise DataError(f"data set {self.name}: task '{self.task}' is none of {', '.join(TASKS)}")
        if self.headline_metric not in TASK_METRICS[self.task]:
            known = ", ".join(TASK_METRICS[self.task])
            raise DataError(f"data set {self.name}: metric '{self.headline_metric}' does not fit {self.task}: {known}")
        if len(self.classes) < 2 or len(set(self.classes)) < len(self.classes):
            raise DataError(f"data set {self.name}: needs two or more classes, each named once")
        if self.task == "binary" and len(self.classes) != 2:
            raise DataError(f"data set {self.name}: a binary task has two classes, not {len(self.classes)}")

    @classmethod
    def read(cls, folder: Path) -> DatasetInfo:
        """Read the ``dataset.json`` of ``folder``; a ``DataError`` where there is none, or none of this format."""
        if not folder.is_dir():
            command = f"mmrobust data prepare NAME --out {folder}"
            raise DataError(f"{folder}: no such folder; make a data set with: {command}")
        file = folder / INFO_FILE
        if not file.is_file():
            raise DataError(f"{folder}: holds no {INFO_FILE}; make a data set with: mmrobust data prepare --help")
        values = read_json(file, "description of a data set")
        if isinstance(values.get("format_version"), int) and values["format_version"] > FORMAT_VERSION:
            said = f"data set format {values['format_version']} is newer than this mmrobust reads ({FORMAT_VERSION})"
            raise NewerFormatError(f"{file}: {said}; upgrade it")
        try:
            return from_mapping(cls, {key: value for key, value in values.items() if value is not None})
        except (UsageError, DataError) as cause:
            raise DataError(f"{file}: {cause}") from cause


def parquet_schema(modalities: Sequence[str], classes: Sequence[str], task: str) -> pa.Schema:
    """The schema of a split's Parquet files, with Hugging Face's feature metadata."""
    media = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns = {"image": media, "audio": media, "text": pa.string()}
    text = {"dtype": "string", "_type": "Value"}
    kinds = {"image": {"_type": "Image"}, "audio": {"_type": "Audio"}, "text": text}
    features: dict[str, Any] = {"id": text, **{modality: kinds[modality] for modality in modalities}}
    label = {"names": list(classes), "_type": "ClassLabel"}
    multi = task == "multi-label"
    features["label"] = {"feature": label, "_type": "Sequence"} if multi else label
    return pa.schema(
        [
            pa.field("id", pa.string(), nullable=False),
            *(pa.field(modality, columns[modality]) for modality in modalities),
            pa.field("label", pa.list_(pa.int64()) if multi else pa.int64()),
        ],
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )


def choose_modalities(info: DatasetInfo, wanted: Sequence[str] | None) -> tuple[str, ...]:
    """The modalities that a model uses: those ``wanted``; ``None``: the data set's, or image and text of more than two.

    Raises:
        UsageError: the data set does not have one that was asked for, or one is named twice.
    """
    if wanted is None:
        return info.modalities if len(info.modalities) <= 2 else ("image", "text")
    for modality in wanted:
        check_name(f"modality of {info.name}", modality, info.modalities)
    if len(set(wanted)) < len(wanted):
        raise UsageError(f"--modalities {','.join(wanted)} names one twice")
    return tuple(wanted)


def choose_headline(task: str, wanted: str | None) -> str:
    """The headline metric of a task: the one ``wanted``, or the first of the task's metrics.

    Raises:
        UsageError: the task is unknown, or the metric is not one of the task's.
    """
    check_name("task", task, TASKS)
    metric = wanted or TASK_METRICS[task][0]
    check_name(f"metric of the task {task}", metric, TASK_METRICS[task])
    return metric
