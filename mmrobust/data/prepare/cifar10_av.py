"""The data set ``cifar10-av``: CIFAR-10's pictures, each with a recording of its class, 10 classes (Guo et al., 2023).

Where to get it: Kaggle's ``lingyueguo/cifar10-av``. Terms: CIFAR-10 (Krizhevsky, 2009) names no licence, and neither do
the recordings, which were gathered from the web. The source is a folder with, at any depth, a folder of recordings and
one of pictures for each class (``audio_dataset/dog/….wav``; in a processed form ``train/visual/dog/….png`` and
``train/audio/dog/….wav``). A recording goes with the picture of the same name; see
:mod:`mmrobust.data.prepare.class_folders` for what happens where names differ, and for the splits.

No paper states the number of pairs, so none is checked. Lists in CAV-MAE's JSON in the folder (``train.json``,
``test.json`` and a label CSV) are used as they are.
"""

from __future__ import annotations

from pathlib import Path

from mmrobust.data.prepare.class_folders import list_class_folders
from mmrobust.data.prepare.preparer import Description, Intake, Listing, preparer

DESCRIPTION = Description(
    name="cifar10-av",
    modalities=("audio", "image"),
    classes=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    licence="no licence given: pictures of CIFAR-10 (Krizhevsky, 2009), recordings from the web",
    source="CIFAR10-AV, https://www.kaggle.com/datasets/lingyueguo/cifar10-av",
)


@preparer(source="the folder with the classes' recordings and pictures")
def prepare_cifar10_av(source: Path, intake: Intake) -> Listing:
    """List the pairs in the class folders of ``source``, or those of its lists in CAV-MAE's JSON."""
    return list_class_folders(source, intake, DESCRIPTION)
