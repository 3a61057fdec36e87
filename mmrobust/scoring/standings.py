"""Rank checkpoints against each other: from results alone, or with intervals from their predictions.

Wins and ranks are over cells (scenario, prompting, missing rate), with mask seeds averaged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd

from mmrobust.runtime.progress import Advance, Progress, no_progress
from mmrobust.scoring import Floats
from mmrobust.scoring.bootstrap import CONFIDENCE, RESAMPLES, percentile_interval, resample_weights
from mmrobust.scoring.cell_values import resampled_values, sample_shares, weighted_means
from mmrobust.scoring.paired import align, seed_means
from mmrobust.scoring.predictions import Predictions
from mmrobust.scoring.robustness import curves
from mmrobust.storage.tasks import sign_of

GROUP_KEYS = ("dataset", "split", "metric")
"""Checkpoints are compared within these."""
SAME = 1e-6
"""Values at most this far apart are equal: they are the same numbers, summed in another order. Of errors in the unit of
the labels it is a share of the largest."""
SHARES_BYTES = 2**29
"""The most memory for what every sample contributes in every cell; with more, it is computed again for every chunk."""
_CELL = ["scenario", "prompting", "missing_rate"]


def standings(results: pd.DataFrame) -> pd.DataFrame:
    """Rank the checkpoints of results by their seed means in every cell that all checkpoints of a group have.

    Rank 1 is the best; equal values share the mean of their ranks (Demšar, Statistical Comparisons of Classifiers
    over Multiple Data Sets, JMLR 7, 2006). A win is *clear* where the two 95 % intervals do not overlap: over the same
    samples that is a stricter criterion than a paired test.

    Returns:
        One row per ``GROUP_KEYS`` and checkpoint, best mean rank first: ``cells`` (number of cells), ``mean_rank``,
        ``wins`` (share of its comparisons with a rival in a cell that it wins, ties counting half), ``clear_wins``
        and ``clear_losses`` (number of clear ones). Groups of one checkpoint are left out.
    """
    rows = []
    for key, group in curves(results).groupby(list(GROUP_KEYS), sort=False, observed=True):
        tables = {
            name: group.pivot_table(index=_CELL, columns="checkpoint", values=name, dropna=False, observed=True)
            for name in ("value", "ci_low", "ci_high")
        }
        shared = tables["value"].dropna()
        cells, checkpoints = shared.shape
        if checkpoints < 2 or not cells:
            continue
        value, low, high = (table.reindex(shared.index).to_numpy().T for table in tables.values())  # [M, K]
        sign = sign_of(str(key[-1]))
        points = _points(value[..., None], sign)
        clear = (low[:, None] > high) if sign > 0 else (high[:, None] < low)  # [M, rival, K]
        figures = (
            checkpoints - points[..., 0].mean(axis=1),
            points.sum(axis=(1, 2)) / (cells * (checkpoints - 1)),
            clear.sum(axis=(1, 2)),
            clear.sum(axis=(0, 2)),
        )
        rows += [(*key, name, cells, *of_one) for name, *of_one in zip(shared.columns, *figures, strict=True)]
    columns = [*GROUP_KEYS, "checkpoint", "cells", "mean_rank", "wins", "clear_wins", "clear_losses"]
    by = [*GROUP_KEYS, "mean_rank", "checkpoint"]
    return pd.DataFrame(rows, columns=columns).sort_values(by, kind="stable", ignore_index=True)


def joint_standings(
    predictions: Mapping[str, Predictions], metric: str, *, resamples: int = RESAMPLES, progress: Progress = no_progress
) -> pd.DataFrame:
    """The standings of two or more checkpoints with intervals, from the same bootstrap resamples of the samples.

    Each resample scores every checkpoint, so what makes a sample hard for all of them cancels out, and the share of
    wins has an interval of its own (percentile; Efron & Tibshirani, An Introduction to the Bootstrap, 1993, chapter
    13). The interval is for the choice of samples.

    Returns:
        One row per checkpoint, in the order given: ``cells``, and ``wins`` (share of its comparisons with a rival in
        a cell that it wins, ties counting half) with the ends ``wins_low``, ``wins_high`` of its 95 % interval. With
        m checkpoints the mean rank is 1 + (m − 1) (1 − wins), and its interval follows.

    Raises:
        DataError: the predictions are of different samples, have no cell in common, or are incomplete.
        UsageError: the task has no such metric.
    """
    aligned, tables = align([replace(one, name=name) for name, one in predictions.items()])
    average, _ = seed_means(tables)
    count, cells, samples = len(aligned), len(average), len(aligned[0].truth.ids)
    # What each sample contributes is the same for every chunk of resamples, and the more samples the more chunks.
    kept = 4 * count * len(tables.keys) * samples <= SHARES_BYTES
    shares = [sample_shares(one, tables, metric) if kept else None for one in aligned]

    def wins_of(weights: Floats, advance: Advance) -> Floats:
        """The share of wins [M, R]."""
        values = np.empty((count, cells, len(weights)))
        for row, (one, own) in enumerate(zip(aligned, shares, strict=True)):
            of_keys = resampled_values(one, tables, metric, weights) if own is None else weighted_means(own, weights)
            values[row] = average @ of_keys
            advance(len(weights))
        wins: Floats = _points(values, sign_of(metric)).sum(axis=1) / (cells * (count - 1))
        return wins

    with progress("standings", count * (resamples + 1)) as advance:
        wins = wins_of(np.ones((1, samples), dtype=np.float32), advance)
        resampled = [wins_of(weights, advance) for weights in resample_weights(samples, resamples)]
    low, high = percentile_interval(np.concatenate(resampled, axis=1), CONFIDENCE)
    figures = {"cells": cells, "wins": wins[:, 0], "wins_low": low, "wins_high": high}
    return pd.DataFrame({"checkpoint": list(predictions), **figures})


def _points(values: Floats, sign: int = 1) -> Floats:
    """Compare M checkpoints in K cells and R resamples, by their values [M, K, R]; ``sign`` −1: less is better.

    Returns:
        The points of each [M, K, R]: one for each rival that it beats, half for each that it equals.
    """
    same = SAME if sign > 0 else SAME * np.nanmax(values)
    points = np.empty(values.shape)
    for row, own in enumerate(values):  # one row at a time: [M, M, K, R] would be gigabytes
        difference = sign * (own - values)
        points[row] = (difference > same).sum(axis=0) + 0.5 * ((np.abs(difference) <= same).sum(axis=0) - 1)
    return points
