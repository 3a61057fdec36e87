"""Predictions of schema 1, which record neither the positions nor the natural cases of the samples."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from mmrobust.cases import Case
from mmrobust.errors import DataError
from mmrobust.scoring.truth import Logits
from mmrobust.storage.shards import ShardHeader, read_shard


def refuse(headers: Sequence[ShardHeader]) -> None:
    """Raise a ``DataError`` if one of these shards lacks what scoring without results needs."""
    if old := [header for header in headers if not header.placed or "described" not in header.provenance]:
        raise DataError(
            f"{old[0].path}: predictions of schema 1 lack metadata that scoring needs; run the mmrobust eval that made "
            "them once more to bring them up to date"
        )


def places_of(paths: Sequence[Path], size: int, what: str) -> dict[str, int]:
    """Sample id → position, in the order in which the shards list the samples.

    Raises:
        DataError: a shard cannot be read, or they do not have ``size`` samples; the message calls them ``what``.
    """
    ids = dict.fromkeys(sample for path in paths for sample in read_shard(path).id.to_pylist())
    if len(ids) != size:
        raise DataError(f"{paths[0].parent}: {what} are of {len(ids)} samples, its results of {size}")
    return {sample: place for place, sample in enumerate(ids)}


def natural_cases(rows: pd.DataFrame, modalities: Sequence[str], size: int, logits: Logits) -> tuple[Case, ...] | None:
    """The natural case of each sample: of the cases that it was predicted in, the one with the most modalities.

    That is correct wherever some cell left the sample unaffected. Where none did, a cell scored again differs from the
    results (``rows``), which callers that pair predictions check. ``None`` where all samples are complete.
    """
    if not int(rows["n_naturally_missing"].max()):
        return None
    cases = {name: Case.parse(name, modalities) for name, _ in logits}
    natural: list[Case] = [Case.complete(modalities)] * size
    for name in sorted(cases, key=lambda name: (len(cases[name].present), not cases[name].degraded)):
        for (other, _), values in logits.items():
            if other == name:
                for position in np.flatnonzero(~np.isnan(values[:, 0])):
                    natural[position] = cases[name].without_noise()
    return tuple(natural)
