"""The data set ``cifar10-av``: CIFAR-10's pictures, each with a recording of its class, 10 classes (Guo et al., 2023).

Where to get it: Kaggle's ``lingyueguo/cifar10-av``. Terms: CIFAR-10 (Krizhevsky, 2009) names no licence; the recordings
were gathered from the web, without one. The source is a folder with, at any depth, a folder of recordings and one of
pictures for each class (``audio_dataset/dog/….wav``; in a processed form ``train/visual/dog/….png`` and
``train/audio/dog/….wav``). A recording goes with the picture of the same name; see
:mod:`mmrobust.data.prepare.class_folders` for what happens where names differ, and for the splits.

No paper states the number of pairs, so none is checked. With lists in CAV-MAE's JSON in the folder (``train.json``,
``test.json`` and a label CSV) those are used as they are.
"""

from __future__ import annotations

from pathlib import Path

from mmrobust.data.format import DatasetInfo
from mmrobust.data.prepare.cav_mae_json import find_lists, prepare_cav_mae_json
from mmrobust.data.prepare.class_folders import write_class_folders
from mmrobust.data.prepare.intake import Intake, Remark, no_remark
from mmrobust.runtime.progress import Progress, no_progress
from mmrobust.storage.files import refuse_to_overwrite

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
LICENCE = "no licence given: pictures of CIFAR-10 (Krizhevsky, 2009), recordings from the web"
SOURCE = "CIFAR10-AV, https://www.kaggle.com/datasets/lingyueguo/cifar10-av"


def prepare_cifar10_av(
    source: Path,
    out: Path,
    *,
    limit: int | None = None,
    allow_incomplete: bool = False,
    progress: Progress = no_progress,
    remark: Remark = no_remark,
) -> DatasetInfo:
    """Write the data set ``cifar10-av`` to the folder ``out``.

    Args:
        source: the folder with the class folders, or with lists in CAV-MAE's JSON; or such a list.
        out: the folder to make.
        limit: keep the first ``limit`` samples of each split.
        allow_incomplete: leave out samples that lack a file, or have one that cannot be decoded.
        progress: told of each sample.
        remark: told how samples were paired and split, and of each sample that is left out.

    Raises:
        UsageError: ``out`` holds something already.
        DataError: the source is not of that form, or a file is not there or broken.
    """
    refuse_to_overwrite(out, "data set")
    if find_lists(source):
        return prepare_cav_mae_json(
            source,
            out,
            name="cifar10-av",
            licence=LICENCE,
            limit=limit,
            allow_incomplete=allow_incomplete,
            progress=progress,
            remark=remark,
        )
    intake = Intake("cifar10-av", limit=limit, allow_incomplete=allow_incomplete, progress=progress, remark=remark)
    return write_class_folders(
        source, out, CLASSES, intake, licence=LICENCE, described_as=SOURCE, group=lambda sample_id: sample_id
    )
