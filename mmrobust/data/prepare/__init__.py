"""Preparers: each turns one kind of raw data into the canonical data set.

A preparer is a module with one function that takes its source and settings, lists its samples for an
:class:`mmrobust.data.prepare.intake.Intake`, and gives the rows to :func:`mmrobust.data.writing.write_dataset`. Adding
one is a new module here and a line in :data:`PREPARERS`; settings that the command line is to offer become options of
``mmrobust data prepare`` in ``cli/prepare.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mmrobust.data.format import DatasetInfo
from mmrobust.data.prepare.av_digits import prepare_av_digits
from mmrobust.data.prepare.av_mnist import prepare_av_mnist
from mmrobust.data.prepare.cav_mae_json import prepare_cav_mae_json
from mmrobust.data.prepare.cifar10_av import prepare_cifar10_av
from mmrobust.data.prepare.digits import prepare_digits
from mmrobust.data.prepare.entries import ManifestColumns
from mmrobust.data.prepare.food101 import prepare_food101
from mmrobust.data.prepare.hateful_memes import prepare_hateful_memes
from mmrobust.data.prepare.hf import prepare_hf
from mmrobust.data.prepare.manifest import prepare_manifest
from mmrobust.data.prepare.mmimdb import prepare_mmimdb
from mmrobust.data.prepare.mmp_arrow import prepare_mmp_arrow
from mmrobust.data.prepare.urbansound8k_av import prepare_urbansound8k_av

__all__ = ["PREPARERS", "ManifestColumns", "Preparer"]


@dataclass(frozen=True)
class Preparer:
    """A function that prepares a data set, and what it is to be given as its source."""

    prepare: Callable[..., DatasetInfo]
    """Takes ``out``, ``limit`` and ``progress``, ``source`` unless it is embedded, and settings of its own."""
    source: str | None
    """What ``--source`` is to name; ``None`` where the data are embedded."""


PREPARERS: dict[str, Preparer] = {
    "digits": Preparer(prepare_digits, source=None),
    "av-digits": Preparer(prepare_av_digits, source="the folder with pairs.csv, the recordings and MNIST's t10k files"),
    "mmimdb": Preparer(prepare_mmimdb, source="the folder with split.json, the posters and the labels"),
    "food101": Preparer(prepare_food101, source="the folder with images, titles, class_idx.json and split.json"),
    "hateful-memes": Preparer(prepare_hateful_memes, source="the folder with img and train.jsonl"),
    "urbansound8k-av": Preparer(prepare_urbansound8k_av, source="the folder with the classes' recordings and pictures"),
    "cifar10-av": Preparer(prepare_cifar10_av, source="the folder with the classes' recordings and pictures"),
    "av-mnist": Preparer(prepare_av_mnist, source="the folder with MNIST's idx files and recordings of spoken digits"),
    "manifest": Preparer(prepare_manifest, source="a CSV, JSONL or Parquet file of paths, texts, labels and splits"),
    "mmp-arrow": Preparer(prepare_mmp_arrow, source="the folder with the arrow files of MMP's make_arrow.py"),
    "cav-mae-json": Preparer(prepare_cav_mae_json, source="the folder with train.json, test.json and the label CSV"),
    "hf": Preparer(prepare_hf, source="a folder or repository id that Hugging Face's datasets opens"),
}
