"""Which classes break first: the F1 of every class as the missing rate grows. Needs the predictions."""

from __future__ import annotations

import numpy as np
import pandas as pd

from mmrobust.scoring.metrics import WeightedTruth, target_matrix
from mmrobust.scoring.predictions import Predictions

BREAKS = 0.1
"""A class is broken where its F1 lies more than this below its complete one: ten points."""
_KEYS = ["scenario", "prompting", "missing_rate"]


def class_curves(stored: Predictions, classes: tuple[str, ...]) -> pd.DataFrame:
    """F1 of each class at each missing rate, mean over mask seeds.

    Args:
        stored: the predictions of one checkpoint.
        classes: their names.

    Returns:
        One row per scenario, prompting, missing rate and ``class``, with ``support`` (samples of the class) and ``f1``;
        a class that is neither there nor predicted has F1 0.
    """
    truth, tables = stored.truth, stored.truth.draw(stored.cells)
    targets = target_matrix(truth.labels, truth.classes)
    weighted = WeightedTruth(targets, np.ones((1, len(truth.ids))))
    f1 = np.stack(
        [stored.outcomes(stored.chosen(tables, key), weighted).class_f1[0] for key in range(len(tables.keys))]
    )
    frame = pd.DataFrame([(c.scenario, c.prompting, c.missing_rate) for c in stored.cells], columns=_KEYS)
    wide = pd.concat([frame, pd.DataFrame(f1[tables.of_cell], columns=list(classes))], axis=1)
    means = wide.groupby(_KEYS, sort=True, observed=True).mean().reset_index()
    long = means.melt(id_vars=_KEYS, var_name="class", value_name="f1").sort_values(_KEYS, kind="stable")
    long = long.reset_index(drop=True)
    return long.assign(support=long["class"].map(dict(zip(classes, targets.sum(axis=0).tolist(), strict=True))))


def broken_first(curves: pd.DataFrame) -> pd.DataFrame:
    """The classes of each scenario and prompting, those that break at the lowest missing rate first.

    Args:
        curves: as :func:`class_curves` gives them.

    Returns:
        One row per scenario, prompting and class: ``support``, ``complete`` (F1 at the lowest rate), ``last`` (at the
        highest), ``lost`` (complete − last) and ``breaks_at``: the lowest rate at which F1 lies more than ten points
        below the complete one, NaN where there is none. Broken first first; then by what is lost.
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
