"""F1 of every class as the missing rate grows, and which classes break first. Needs the predictions."""

from __future__ import annotations

import numpy as np
import pandas as pd

from mmrobust.scoring.cell_values import mean_over_seeds
from mmrobust.scoring.metrics import WeightedTruth
from mmrobust.scoring.predictions import Predictions

BREAKS = 0.1
"""A class breaks where its F1 is more than this (ten points) below its complete F1."""


def class_curves(predictions: Predictions, classes: tuple[str, ...]) -> pd.DataFrame:
    """F1 of each of the ``classes`` of one checkpoint at each missing rate, averaged over mask seeds.

    Returns:
        One row per scenario, prompting, missing rate and ``class``, with ``support`` (samples of the class) and ``f1``;
        a class that neither occurs nor is predicted has F1 0.
    """
    truth, tables = predictions.truth, predictions.truth.draw(predictions.cells)
    weighted = WeightedTruth(truth.targets, np.ones((1, len(truth.ids))))
    logits = (predictions.chosen(tables, key) for key in range(len(tables.keys)))
    f1 = np.stack([predictions.outcomes(of_key, weighted).class_f1[0] for of_key in logits])
    means = mean_over_seeds(tables, pd.DataFrame(f1, columns=list(classes)))
    keys = ["scenario", "prompting", "missing_rate"]
    long = means.melt(id_vars=keys, var_name="class", value_name="f1")
    long = long.sort_values(keys, kind="stable", ignore_index=True)
    return long.assign(support=long["class"].map(dict(zip(classes, truth.targets.sum(axis=0).tolist(), strict=True))))


def earliest_breaking(curves: pd.DataFrame) -> pd.DataFrame:
    """The classes of each scenario and prompting of :func:`class_curves`, earliest-breaking class first.

    Returns:
        One row per scenario, prompting and class: ``support``, ``complete`` (F1 at the lowest rate), ``last`` (at the
        highest), ``lost`` (complete − last) and ``breaks_at``: the lowest rate at which F1 is more than ten points
        below the complete one, NaN where there is none. Sorted by ``breaks_at``, then by ``lost``, largest first.
    """
    keys = ["scenario", "prompting", "class"]
    ordered = curves.sort_values("missing_rate", kind="stable")
    grouped = ordered.groupby(keys, sort=True, observed=True)
    figures = grouped.agg(support=("support", "first"), complete=("f1", "first"), last=("f1", "last"))
    figures["lost"] = figures["complete"] - figures["last"]
    broken = ordered[ordered["f1"] < grouped["f1"].transform("first") - BREAKS - 1e-9]
    figures["breaks_at"] = broken.groupby(keys, observed=True)["missing_rate"].min().reindex(figures.index)
    by = ["scenario", "prompting", "breaks_at", "lost"]
    return figures.reset_index().sort_values(by, ascending=[True, True, True, False], kind="stable", ignore_index=True)
