"""Figures across checkpoints: who stands where, and by how much, over all scenarios and missing rates.

All are of the seed means m(η) of :func:`mmrobust.scoring.robustness.curves`, one metric on one split at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from mmrobust.cases import CONCAT, SITUATION
from mmrobust.errors import unknown_name
from mmrobust.scoring.robustness import curves

GROUP_KEYS = ("dataset", "split", "metric")
"""Checkpoints are compared within these."""
SAME = 1e-6
"""Two values that are no farther apart are equal: sums of the same numbers in another order."""
_CELL = ["scenario", "prompting", "missing_rate"]


def standings(results: pd.DataFrame) -> pd.DataFrame:
    """Where each checkpoint stands among the others.

    In every cell (scenario, prompting, missing rate) that all checkpoints of a group have, they are ranked by their
    seed mean, 1 the best, equal ones sharing the mean of their ranks (Demšar, Statistical Comparisons of Classifiers
    over Multiple Data Sets, JMLR 7, 2006). A cell is *clearly* better than a rival's where the two 95 % intervals do
    not overlap: over the same samples that is a stricter demand than a paired test's.

    Args:
        results: rows as ``RESULTS_SCHEMA``.

    Returns:
        One row per ``GROUP_KEYS`` and checkpoint, the best mean rank first: ``cells`` (how many), ``mean_rank``,
        ``wins`` (share of its comparisons with a rival in a cell that it wins, equal ones counting half),
        ``clear_wins`` and ``clear_losses`` (how many of them are clear). Groups of one checkpoint are left out.
    """
    rows = []
    for key, group in curves(results).groupby(list(GROUP_KEYS), sort=False, observed=True):
        tables = {
            name: group.pivot_table(index=_CELL, columns="checkpoint", values=name, dropna=False, observed=True)
            for name in ("value", "ci_low", "ci_high")
        }
        whole = tables["value"].dropna()
        if whole.shape[1] < 2 or whole.empty:
            continue
        value, low, high = (tables[name].reindex(whole.index).to_numpy() for name in tables)
        difference = value[:, :, None] - value[:, None, :]  # [cells, own, rival]
        better, equal = difference > SAME, np.abs(difference) <= SAME
        ranks = 0.5 + (difference < -SAME).sum(axis=2) + 0.5 * equal.sum(axis=2)
        clear = low[:, :, None] > high[:, None, :]
        rivals = len(whole) * (whole.shape[1] - 1)
        wins = (better.sum(axis=(0, 2)) + 0.5 * (equal.sum(axis=(0, 2)) - len(whole))) / rivals
        for column, checkpoint in enumerate(whole.columns):
            rows.append(
                {
                    **dict(zip(GROUP_KEYS, key, strict=True)),
                    "checkpoint": checkpoint,
                    "cells": len(whole),
                    "mean_rank": ranks[:, column].mean(),
                    "wins": wins[column],
                    "clear_wins": int(clear[:, column].sum()),
                    "clear_losses": int(clear[:, :, column].sum()),
                }
            )
    columns = [*GROUP_KEYS, "checkpoint", "cells", "mean_rank", "wins", "clear_wins", "clear_losses"]
    return pd.DataFrame(rows, columns=columns).sort_values(
        [*GROUP_KEYS, "mean_rank", "checkpoint"], kind="stable", ignore_index=True
    )


def prompting_gap(results: pd.DataFrame) -> pd.DataFrame:
    """What knowing the degradation is worth: situation − concat, at each missing rate.

    Args:
        results: rows as ``RESULTS_SCHEMA``.

    Returns:
        One row per checkpoint, dataset, split, scenario, metric and missing rate that has both promptings, with
        ``situation``, ``concat`` and ``gap``; positive where telling the model its case helps.
    """
    keys = ["checkpoint", "dataset", "split", "scenario", "metric", "missing_rate"]
    wide = curves(results).pivot_table(index=keys, columns="prompting", values="value", dropna=True, observed=True)
    if not {SITUATION, CONCAT} <= set(wide.columns):
        return pd.DataFrame(columns=[*keys, SITUATION, CONCAT, "gap"])
    both = wide[[SITUATION, CONCAT]].dropna()
    return both.assign(gap=both[SITUATION] - both[CONCAT]).reset_index().rename_axis(columns=None)


def effective_robustness(results: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """What a checkpoint keeps at a missing rate beyond what its complete value alone would let one expect.

    Taori et al., Measuring Robustness to Natural Distribution Shifts in Image Classification, NeurIPS 2020: ρ = m(η) −
    β(m(0)), where β says what a model without any intervention has under the shift, given its value without it. They
    fit β on the logit scale, where such models lie on a line; one baseline b gives a line of slope 1 through its own
    point: logit β(x) = logit x + logit b(η) − logit b(0). So the baseline's own ρ is 0, and a model that is better in
    all cases alike is not called more robust. Values of 0 and 1 are moved inside by half a sample.

    Args:
        results: rows as ``RESULTS_SCHEMA``.
        baseline: the name of the checkpoint to measure by.

    Returns:
        One row per checkpoint (but the baseline), dataset, split, scenario, prompting, metric and missing rate > 0:
        ``value``, ``expected`` (β), ``effective`` (ρ), and ``gain``: value − the baseline's (Taori's τ).

    Raises:
        UsageError: the results hold no such checkpoint.
    """
    names = sorted(set(results["checkpoint"]))
    if baseline not in names:
        raise unknown_name("checkpoint of these results", baseline, names)
    curve = curves(results)
    keys = ["dataset", "split", "scenario", "prompting", "metric"]
    inside = 0.5 / curve["n"]
    clipped = curve["value"].clip(inside, 1 - inside)
    curve["logit"] = np.log(clipped / (1 - clipped))
    at_zero = curve[curve["missing_rate"] == 0].set_index(["checkpoint", *keys])["logit"].rename("logit_complete")
    curve = curve.join(at_zero, on=["checkpoint", *keys], how="inner")
    own = curve["checkpoint"] == baseline
    at = [*keys, "missing_rate"]
    others = curve[~own & (curve["missing_rate"] > 0)]
    both = others.merge(
        curve.loc[own, [*at, "value", "logit", "logit_complete"]], on=at, how="inner", suffixes=("", "_baseline")
    )
    expected = 1 / (1 + np.exp(-(both["logit_complete"] + both["logit_baseline"] - both["logit_complete_baseline"])))
    figures = both.assign(
        expected=expected, effective=both["value"] - expected, gain=both["value"] - both["value_baseline"]
    )
    return figures[["checkpoint", *at, "value", "expected", "effective", "gain"]]


def train_test_rates(results: pd.DataFrame, checkpoints: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Train rate × test rate: how a checkpoint trained at one missing rate does at every other.

    Args:
        results: rows as ``RESULTS_SCHEMA``.
        checkpoints: name → what the provenance says of it; its ``training`` holds ``scenario`` and ``missing_rate``.

    Returns:
        One row per dataset, split, metric, method, head, ``train_scenario``, scenario, prompting, ``train_rate`` and
        ``missing_rate``, where one method and head was trained under one scenario at two rates or more: ``value``, the
        mean over the checkpoints trained so (``checkpoints``: how many).
    """
    trained = pd.DataFrame(
        [
            (name, training["scenario"], float(training["missing_rate"]))
            for name, about in checkpoints.items()
            if (training := about.get("training") or {}).get("missing_rate") is not None and "scenario" in training
        ],
        columns=["checkpoint", "train_scenario", "train_rate"],
    )
    made = results[["checkpoint", "method", "head"]].drop_duplicates("checkpoint")
    curve = curves(results).merge(made, on="checkpoint").merge(trained, on="checkpoint")
    same = ["dataset", "split", "metric", "method", "head", "train_scenario"]
    several = curve.groupby(same, observed=True)["train_rate"].transform("nunique") > 1
    grouped = curve[several].groupby(
        [*same, "scenario", "prompting", "train_rate", "missing_rate"], sort=True, observed=True
    )
    return grouped.agg(value=("value", "mean"), checkpoints=("checkpoint", "nunique")).reset_index()
