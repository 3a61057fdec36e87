"""The data set ``urbansound8k-av``: city sounds, each with a picture of its class, 10 classes (Guo et al., 2023).

Where to get it: Kaggle's ``lingyueguo/urbansound8k-av``. Terms: the recordings are UrbanSound8K's (Salamon et al.,
2014; CC BY-NC 3.0, each also under its Freesound licence); the pictures were gathered from the web, without a licence.
The source is a folder with, at any depth::

    Dataset_v3_sound/siren/157867-8-0-9.wav …
    Dataset_v3_vision/siren/157867-8-0-9.jpg …

There are 8,732 pairs. The release has no splits; papers draw 70 / 30 % of each class at random. So do we (with 7 of the
70 for validation), with one difference: an UrbanSound8K file is named after the Freesound recording that it was cut
from (157867), and cuts of one recording stay in one split. A random draw would put them on both sides, and so measure
memory.

Prompt the Missing's own lists (``train.json``, ``test.json`` and its label CSV in the folder) are used as they are, by
:mod:`mmrobust.data.prepare.cav_mae_json`.
"""

from __future__ import annotations

from pathlib import Path

from mmrobust.data.prepare.class_folders import list_class_folders
from mmrobust.data.prepare.preparer import Description, Intake, Listing, preparer

DESCRIPTION = Description(
    name="urbansound8k-av",
    modalities=("audio", "image"),
    classes=(
        *("air_conditioner", "car_horn", "children_playing", "dog_bark", "drilling"),
        *("engine_idling", "gun_shot", "jackhammer", "siren", "street_music"),
    ),
    licence="recordings: UrbanSound8K, CC BY-NC 3.0 and each its Freesound licence; pictures: no licence given",
    source="UrbanSound8K-AV, https://www.kaggle.com/datasets/lingyueguo/urbansound8k-av",
    size=8_732,
)


@preparer(source="the folder with the classes' recordings and pictures")
def prepare_urbansound8k_av(source: Path, intake: Intake) -> Listing:
    """List the pairs in the class folders of ``source``, or those of Prompt the Missing's lists (or of such a list)."""
    return list_class_folders(source, intake, DESCRIPTION, group=freesound_recording)


def freesound_recording(sample_id: str) -> str:
    """The number of the Freesound recording that a sample was cut from: ``siren/157867-8-0-9`` → ``157867``."""
    return sample_id.rpartition("/")[2].partition("-")[0]
