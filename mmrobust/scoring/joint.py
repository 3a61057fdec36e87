"""Several checkpoints in the same bootstrap resamples: how sure it is who stands where. Needs the predictions.

A resample of the samples scores every checkpoint at once, so what makes a sample hard for all of them cancels out, and
how often one wins against the others has an interval of its own (percentile; Efron & Tibshirani, An Introduction to the
Bootstrap, 1993, chapter 13). It is for the choice of samples; mask seeds are averaged over, as in the standings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from mmrobust.errors import DataError
from mmrobust.runtime.progress import Advance, Progress, no_progress
from mmrobust.scenarios.cell_tables import CellTables
from mmrobust.scoring.across import SAME
from mmrobust.scoring.bootstrap import CONFIDENCE, RESAMPLES, percentile_interval, resample_weights
from mmrobust.scoring.cell_values import resampled_values
from mmrobust.scoring.paired import seed_means
from mmrobust.scoring.predictions import Predictions


def joint_standings(
    stored: Mapping[str, Predictions],
    metric: str,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    progress: Progress = no_progress,
) -> pd.DataFrame:
    """The standings of two checkpoints or more, and how sure they are.

    Args:
        stored: name → predictions, all on the same samples.
        metric: of the task.
        resamples: of the bootstrap.
        seed: of the resamples.
        progress: told of scored resamples.

    Returns:
        One row per checkpoint, in their order: ``cells``, ``wins`` (the share of its comparisons with a rival in a
        cell that it wins, equal ones counting half) with the ends ``wins_low``, ``wins_high`` of its 95 % interval,
        and ``clear_wins``, ``clear_losses``: in how many of them the 95 % interval of the paired difference lies above
        zero, or below. With m checkpoints the mean rank is 1 + (m − 1) (1 − wins), and its interval follows.

    Raises:
        DataError: the predictions are of different samples or have no cell in common, or some are lacking.
        UsageError: no such metric of the task.
    """
    sides, tables = _shared(stored)
    average, _ = seed_means(tables)
    cells, count, samples = len(average), len(sides), len(sides[0].truth.ids)

    def scored(weights: npt.NDArray[np.float32], advance: Advance) -> npt.NDArray[np.float64]:
        """[checkpoints, cells, R]."""
        values = np.empty((count, cells, len(weights)))
        for number, side in enumerate(sides):
            values[number] = average @ resampled_values(side, tables, metric, weights)
            advance(len(weights))
        return values

    above = np.zeros((count, count, cells))
    resampled = []
    with progress("standings", count * (resamples + 1)) as advance:
        wins, _ = _won(scored(np.ones((1, samples), dtype=np.float32), advance))
        for weights in resample_weights(samples, resamples, seed):
            won, better = _won(scored(weights, advance))
            resampled.append(won)
            above += better
    low, high = percentile_interval(np.concatenate(resampled, axis=1), CONFIDENCE)
    # The percentile interval of a difference lies above zero where all but the lowest tail of its resamples do.
    clear = above >= resamples * (1 + CONFIDENCE) / 2
    return pd.DataFrame(
        {
            "checkpoint": list(stored),
            "cells": cells,
            "wins": wins[:, 0],
            "wins_low": low,
            "wins_high": high,
            "clear_wins": clear.sum(axis=(1, 2)),
            "clear_losses": clear.sum(axis=(0, 2)),
        }
    )


def _won(values: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Of values [M, K, R]: the share of its comparisons that each wins [M, R]; and how often it is above [M, M, K]."""
    count, cells, resamples = values.shape
    wins, above = np.empty((count, resamples)), np.empty((count, count, cells))
    for own in range(count):  # one after the other: [M, M, K, R] would be gigabytes
        difference = values[own] - values
        better = difference > SAME
        equal = np.abs(difference) <= SAME
        equal[own] = False
        above[own] = better.sum(axis=-1)
        wins[own] = (better.sum(axis=(0, 1)) + 0.5 * equal.sum(axis=(0, 1))) / (cells * (count - 1))
    return wins, above


def _shared(stored: Mapping[str, Predictions]) -> tuple[list[Predictions], CellTables]:
    """The predictions on the same samples in one order, and the tables of the cells that all of them have."""
    first = next(iter(stored.values()))
    sides = [replace(side, name=name).beside(first) for name, side in stored.items()]
    cells = set(first.cells).intersection(*(side.cells for side in sides))
    if not cells:
        raise DataError("the predictions have no cell in common")
    return sides, first.truth.draw(sorted(cells))
