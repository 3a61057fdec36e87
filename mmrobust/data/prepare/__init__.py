"""Preparers: each turns one kind of raw data into the canonical data set.

A preparer is a module with a function that lists the samples of its source, decorated with
:func:`mmrobust.data.prepare.preparer.preparer`, and a line in :data:`PREPARERS`. Its own settings become options of
``mmrobust data prepare`` in ``cli/prepare.py``.
"""

from __future__ import annotations

from mmrobust.data.prepare.av_digits import prepare_av_digits
from mmrobust.data.prepare.av_mnist import prepare_av_mnist
from mmrobust.data.prepare.cav_mae_json import prepare_cav_mae_json
from mmrobust.data.prepare.cifar10_av import prepare_cifar10_av
from mmrobust.data.prepare.digits import prepare_digits
from mmrobust.data.prepare.food101 import prepare_food101
from mmrobust.data.prepare.hateful_memes import prepare_hateful_memes
from mmrobust.data.prepare.hf import prepare_hf
from mmrobust.data.prepare.manifest import ManifestColumns, prepare_manifest
from mmrobust.data.prepare.mmimdb import prepare_mmimdb
from mmrobust.data.prepare.mmp_arrow import prepare_mmp_arrow
from mmrobust.data.prepare.preparer import Preparer
from mmrobust.data.prepare.urbansound8k_av import prepare_urbansound8k_av

__all__ = ["PREPARERS", "ManifestColumns", "Preparer"]

PREPARERS: dict[str, Preparer] = {
    "digits": prepare_digits,
    "av-digits": prepare_av_digits,
    "mmimdb": prepare_mmimdb,
    "food101": prepare_food101,
    "hateful-memes": prepare_hateful_memes,
    "urbansound8k-av": prepare_urbansound8k_av,
    "cifar10-av": prepare_cifar10_av,
    "av-mnist": prepare_av_mnist,
    "manifest": prepare_manifest,
    "mmp-arrow": prepare_mmp_arrow,
    "cav-mae-json": prepare_cav_mae_json,
    "hf": prepare_hf,
}
