"""Robustness figures: what a metric does as the missing rate grows.

For one (checkpoint, scenario, prompting, metric) with seed means m(η) at the rates η_1 < … < η_k:

- *value* at a rate: m(η), the mean over mask seeds; its interval is the mean of the seeds' interval ends (sampling
  error), its *spread* the standard deviation over seeds (n − 1; not defined for one seed): two different uncertainties;
- *AUC-η* = ∫ m dη / (η_k − η_1), by the trapezoid rule: the mean height of the curve; m(η_1) where there is one rate;
- *complete* = m(0), where the rate 0 is among the rates;
- *relative robustness* = AUC-η / complete: the share of its complete value that the model keeps on average;
- *worst cell*: the smallest value of any (rate, seed);
- *drop per 10 points* = −0.1 × the least-squares slope of m over η: how much is lost per 10 points of missing rate.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

CURVE_KEYS = ("checkpoint", "dataset", "split", "scenario", "prompting", "metric")
"""What identifies one curve in a results table."""


def curves(results: pd.DataFrame) -> pd.DataFrame:
    """The curves of a results table, averaged over mask seeds.

    Args:
        results: rows as ``RESULTS_SCHEMA``.

    Returns:
        One row per ``CURVE_KEYS`` and ``missing_rate``, sorted by them: ``value``, ``ci_low``, ``ci_high`` (means over
        seeds, NaN where one of them is), ``spread`` (NaN for one seed), ``seeds`` (how many) and ``n``.
    """
    keys = [*CURVE_KEYS, "missing_rate"]
    measured = ["value", "ci_low", "ci_high"]
    grouped = results.groupby(keys, sort=True, observed=True)
    means = grouped[measured].mean()
    undefined = results[measured].isna().groupby([results[key] for key in keys], sort=True, observed=True).any()
    means = means.mask(undefined)
    means["spread"] = grouped["value"].std(ddof=1).where(means["value"].notna())
    means["seeds"] = grouped["seed"].nunique()
    means["n"] = grouped["n"].max()
    return means.reset_index()


def summarise(results: pd.DataFrame, curve: pd.DataFrame | None = None) -> pd.DataFrame:
    """The robustness figures of every curve of a results table.

    Args:
        results: rows as ``RESULTS_SCHEMA``.
        curve: their :func:`curves`, where they are known already.

    Returns:
        One row per ``CURVE_KEYS``, sorted by them: ``auc_eta``, ``complete``, ``relative_robustness``, ``worst_value``,
        ``worst_rate``, ``worst_seed``, ``drop_per_10_points``; NaN where a figure is not defined.
    """
    keys = list(CURVE_KEYS)
    curve = curves(results) if curve is None else curve
    grouped = curve.groupby(keys, sort=True, observed=True)
    width = grouped["missing_rate"].diff()
    height = (curve["value"] + grouped["value"].shift()) / 2
    offset = curve["missing_rate"] - grouped["missing_rate"].transform("mean")
    steps = curve[keys].assign(
        area=(width * height).where(width.notna(), 0.0),
        product=offset * curve["value"],
        square=offset**2,
    )
    sums = steps.groupby(keys, sort=True, observed=True)[["area", "product", "square"]].sum()
    # A value that is not defined at one rate leaves the whole curve's figures undefined.
    sums = sums.where(grouped["value"].count() == grouped["value"].size())
    span = grouped["missing_rate"].max() - grouped["missing_rate"].min()
    figures = pd.DataFrame(index=sums.index)
    figures["auc_eta"] = (sums["area"] / span.where(span > 0)).where(span > 0, grouped["value"].first())
    figures["complete"] = curve[curve["missing_rate"] == 0].set_index(keys)["value"].reindex(sums.index)
    complete = figures["complete"]
    figures["relative_robustness"] = figures["auc_eta"] / complete.where(complete != 0)
    worst = results.dropna(subset=["value"]).sort_values(["value", "missing_rate", "seed"], kind="stable")
    worst = worst.groupby(keys, sort=True, observed=True)[["value", "missing_rate", "seed"]].first()
    worst.columns = pd.Index(["worst_value", "worst_rate", "worst_seed"])
    figures = figures.join(worst)
    square = sums["square"]
    figures["drop_per_10_points"] = -0.1 * sums["product"] / square.where(square > 0, np.nan)
    return figures.reset_index()
