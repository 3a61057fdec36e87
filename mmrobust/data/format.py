"""The format of a canonical data set: ``dataset.json``, and the schema of its Parquet files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mmrobust.cases import KINDS, check_modality
from mmrobust.configuration import from_mapping
from mmrobust.degradations import Standard
from mmrobust.errors import DataError, NewerFormatError, UsageError, check_name
from mmrobust.storage.files import read_json
from mmrobust.storage.tasks import REGRESSION, TASK_METRICS, TASKS

FORMAT_VERSION = 4
"""Format 2 added ``left_out``, ``notes`` and ``files`` to ``dataset.json``; format 3 modalities of any name, with their
``kinds`` and ``features``, and groups; format 4 labels that are numbers. Folders of formats 1 to 3 are still read, and
data sets of classes are still written as format 3."""
INFO_FILE = "dataset.json"
SPLITS = ("train", "validation", "test")


GROUP = "group"
"""The column of groups, which a data set may have: scenarios treat the samples of a group alike."""


@dataclass(frozen=True)
class FeatureFacts:
    """What a data set records about a modality of kind ``features``."""

    steps: bool
    """Whether a sample has an array [T, D], along time, rather than one vector [D]."""
    mean: tuple[float, ...]
    """Mean of each dimension [D] over the training split (or the first there is), all time steps counted alike."""
    std: tuple[float, ...]
    """Standard deviation likewise; 0 where a dimension never varies."""

    @property
    def standard(self) -> Standard:
        """What the features are standardised by."""
        std = np.asarray(self.std, dtype=np.float64)
        return Standard(np.asarray(self.mean, dtype=np.float64), np.where(std > 0, std, 1.0))


@dataclass(frozen=True)
class DatasetInfo:
    """The content of ``dataset.json``; a ``DataError`` where a field contradicts the format."""

    name: str
    modalities: tuple[str, ...]
    classes: tuple[str, ...]
    """Of a regression task, the name of the number alone."""
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
    kinds: dict[str, str] = field(default_factory=dict)
    """Modality → its kind. One that is not there is called as its kind, as all were before format 3."""
    features: dict[str, Any] = field(default_factory=dict)
    """Modality of kind ``features`` → its :class:`FeatureFacts`, which may be given as a mapping."""
    grouped: bool = False
    """Whether the samples have a ``group``."""
    format_version: int = 3

    def __post_init__(self) -> None:
        for name in ("modalities", "classes", "notes"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not self.modalities:
            raise DataError(f"data set {self.name}: has no modalities")
        object.__setattr__(self, "kinds", {m: self.kinds.get(m, m) for m in self.modalities})
        for modality, kind in self.kinds.items():
            try:
                check_modality(modality)
            except UsageError as cause:
                raise DataError(f"data set {self.name}: {cause}") from cause
            if kind not in KINDS:
                raise DataError(f"data set {self.name}: {modality} is of kind '{kind}', none of {', '.join(KINDS)}")
        facts = {
            name: of if isinstance(of, FeatureFacts) else from_mapping(FeatureFacts, of)
            for name, of in self.features.items()
        }
        object.__setattr__(self, "features", facts)
        if set(facts) != {modality for modality, kind in self.kinds.items() if kind == "features"}:
            raise DataError(
                f"data set {self.name}: must have the facts of every modality of kind features, and no others"
            )
        if any(not of.mean or len(of.mean) != len(of.std) for of in facts.values()):
            raise DataError(f"data set {self.name}: features need a mean and a standard deviation of each dimension")
        if len(set(self.modalities)) < len(self.modalities):
            raise DataError(f"data set {self.name}: modalities {self.modalities} name one twice")
        if unknown := [split for split, rows in self.splits.items() if split not in SPLITS or rows < 0]:
            raise DataError(f"data set {self.name}: splits {unknown[0]!r} are not among {', '.join(SPLITS)}")
        if self.task not in TASKS:
            raise DataError(f"data set {self.name}: task '{self.task}' is none of {', '.join(TASKS)}")
        if self.headline_metric not in TASK_METRICS[self.task]:
            known = ", ".join(TASK_METRICS[self.task])
            raise DataError(f"data set {self.name}: metric '{self.headline_metric}' does not fit {self.task}: {known}")
        if self.task == REGRESSION:
            if len(self.classes) != 1:
                raise DataError(f"data set {self.name}: classes of a regression task are the name of its number alone")
        elif len(self.classes) < 2 or len(set(self.classes)) < len(self.classes):
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


def parquet_schema(
    modalities: Sequence[str],
    classes: Sequence[str],
    task: str,
    kinds: Mapping[str, str] | None = None,
    steps: Mapping[str, bool] | None = None,
    grouped: bool = False,
) -> pa.Schema:
    """The schema of a split's Parquet files, with Hugging Face's feature metadata.

    Args:
        modalities: in order.
        classes: of the labels; of a regression task, the name of the number.
        task: of the data set.
        kinds: modality → its kind; one that is not there is called as its kind.
        steps: modality of kind ``features`` → whether it is [T, D] rather than [D].
        grouped: whether there is a column of groups.
    """
    media = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    text = {"dtype": "string", "_type": "Value"}
    columns: dict[str, pa.DataType] = {"id": pa.string()}
    features: dict[str, Any] = {"id": text}
    described: dict[str, Any]
    for modality in modalities:
        kind = (kinds or {}).get(modality, modality)
        if kind == "features":
            column, described = (
                pa.list_(pa.float32()),
                {"feature": {"dtype": "float32", "_type": "Value"}, "_type": "Sequence"},
            )
            if (steps or {}).get(modality):
                column, described = pa.list_(column), {"feature": described, "_type": "Sequence"}
        elif kind == "text":
            column, described = pa.string(), text
        else:
            column, described = media, {"_type": kind.capitalize()}
        columns[modality], features[modality] = column, described
    if grouped:
        columns[GROUP], features[GROUP] = pa.string(), text
    label = {"names": list(classes), "_type": "ClassLabel"}
    multi = task == "multi-label"
    features["label"] = {"feature": label, "_type": "Sequence"} if multi else label
    columns["label"] = pa.list_(pa.int64()) if multi else pa.int64()
    if task == REGRESSION:
        features["label"], columns["label"] = {"dtype": "float64", "_type": "Value"}, pa.float64()
    return pa.schema(
        [pa.field(name, column, nullable=name != "id") for name, column in columns.items()],
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )


def choose_modalities(info: DatasetInfo, wanted: Sequence[str] | None) -> tuple[str, ...]:
    """The modalities that a model uses: those ``wanted``, or by default the data set's.

    Of more than two with image and text among them, the default is these (:func:`left_aside` names the others).

    Raises:
        UsageError: the data set does not have one that was asked for, or one is named twice.
    """
    if wanted is None:
        usual = len(info.modalities) > 2 and {"image", "text"} <= set(info.modalities)
        return ("image", "text") if usual else info.modalities
    for modality in wanted:
        check_name(f"modality of {info.name}", modality, info.modalities)
    if len(set(wanted)) < len(wanted):
        raise UsageError(f"--modalities {','.join(wanted)} names one twice")
    return tuple(wanted)


def left_aside(info: DatasetInfo, chosen: Sequence[str]) -> str:
    """A line that names the modalities of the data set that are not ``chosen``; empty where all are."""
    others = [modality for modality in info.modalities if modality not in chosen]
    if not others:
        return ""
    return (
        f"{info.name} has {', '.join(info.modalities)}: only {' and '.join(chosen)} used, {' and '.join(others)} left "
        f"aside; --modalities chooses"
    )


def choose_headline(task: str, wanted: str | None) -> str:
    """The headline metric of a task: the one ``wanted``, or the first of the task's metrics.

    Raises:
        UsageError: the task is unknown, or the metric is not one of the task's.
    """
    check_name("task", task, TASKS)
    metric = wanted or TASK_METRICS[task][0]
    check_name(f"metric of the task {task}", metric, TASK_METRICS[task])
    return metric
