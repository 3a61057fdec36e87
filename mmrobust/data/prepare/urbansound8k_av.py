"""The data set ``urbansound8k-av``: city sounds, each with a picture of its class, 10 classes (Guo et al., 2023).

Where to get it: Kaggle's ``lingyueguo/urbansound8k-av``. Terms: the recordings are UrbanSound8K's (Salamon et al.,
2014; CC BY-NC 3.0, each also under its Freesound licence); the pictures were gathered from the web, without a licence.
The source is a folder with, at any depth::

    Dataset_v3_sound/siren/157867-8-0-9.wav …
    Dataset_v3_vision/siren/157867-8-0-9.jpg …

8,732 pairs. The release has no splits; those who use it draw 70 / 30 % of each class at random. So do we (7 of the 70
for validation), with one difference: an UrbanSound8K file is named after the Freesound recording that it was cut from
(157867), and cuts of one recording stay in one split. A random draw puts them on both sides, and measures memory.

With Prompt the Missing's own lists (``train.json``, ``test.json`` and its label CSV in the folder) those are used as
they are, by :mod:`mmrobust.data.prepare.cav_mae_json`.
"""

from __future__ import annotations

from pathlib import Path

from mmrobust.data.format import DatasetInfo
from mmrobust.data.prepare.cav_mae_json import find_lists, prepare_cav_mae_json
from mmrobust.data.prepare.class_folders import write_class_folders
from mmrobust.data.prepare.intake import Intake, Remark, no_remark
from mmrobust.runtime.progress import Progress, no_progress
from mmrobust.storage.files import refuse_to_overwrite

CLASSES = (
    *("air_conditioner", "car_horn", "children_playing", "dog_bark", "drilling"),
    *("engine_idling", "gun_shot", "jackhammer", "siren", "street_music"),
)
PAIRS = 8_732
LICENCE = "recordings: UrbanSound8K, CC BY-NC 3.0 and each its Freesound licence; pictures: no licence given"
SOURCE = "UrbanSound8K-AV, https://www.kaggle.com/datasets/lingyueguo/urbansound8k-av"


def prepare_urbansound8k_av(
    source: Path,
    out: Path,
    *,
    limit: int | None = None,
    allow_incomplete: bool = False,
    progress: Progress = no_progress,
    remark: Remark = no_remark,
) -> DatasetInfo:
    """Write the data set ``urbansound8k-av`` to the folder ``out``.

    Args:
        source: the folder with the class folders, or with the lists of Prompt the Missing; or such a list.
        out: the folder to make.
        limit: keep the first ``limit`` samples of each split.
        allow_incomplete: leave out samples that lack a file, or have one that cannot be decoded.
        progress: told of each sample.
        remark: told how the splits were made, of sizes that are not the release's, of each sample that is left out.

    Raises:
        UsageError: ``out`` holds something already.
        DataError: the source is not of that form, or a file is not there or broken.
    """
    refuse_to_overwrite(out, "data set")
    if find_lists(source):
        return prepare_cav_mae_json(
            source,
            out,
            name="urbansound8k-av",
            licence=LICENCE,
            limit=limit,
            allow_incomplete=allow_incomplete,
            progress=progress,
            remark=remark,
        )
    intake = Intake(
        "urbansound8k-av",
        pairs=PAIRS,
        limit=limit,
        allow_incomplete=allow_incomplete,
        progress=progress,
        remark=remark,
    )
    return write_class_folders(
        source, out, CLASSES, intake, licence=LICENCE, described_as=SOURCE, group=freesound_recording
    )


def freesound_recording(sample_id: str) -> str:
    """The number of the Freesound recording that a sample was cut from: ``siren/157867-8-0-9`` → ``157867``."""
    return sample_id.rpartition("/")[2].partition("-")[0]
