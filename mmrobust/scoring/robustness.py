"""Robustness figures: how a metric changes as the missing rate grows.

For one (checkpoint, scenario, prompting, metric) with seed means m(η) at the rates η_1 < … < η_k:

- *value* at a rate: m(η), the mean over mask seeds, with its interval over samples; its *spread* is the standard
  deviation over seeds (n − 1; not defined for one seed): two different uncertainties;
- *AUC-η* = ∫ m dη / (η_k − η_1), by the trapezoid rule: the mean height of the curve; m(η_1) where there is one rate;
- *complete* = m(0), where the rate 0 is among the rates;
- *relative robustness* = AUC-η / complete: the share of its complete value that the model retains on average;
- *worst cell*: the smallest value of any (rate, seed);
- *drop per 10 points* = −0.1 × the least-squares slope of m over η: the loss per 10 points of missing rate.

Of a metric of which less is better, relative robustness is complete / AUC-η, the worst cell the largest value, and the
drop the rise: so of the figures that compare with the complete value, more robust is the same for all metrics.

The intervals are those that ``score`` computed from the samples. They hold for the cells that were scored together: in
results that were extended cell by cell, rows of one mean or one curve may disagree. Then the ends of a mean are the
means of the seeds' ends, which are too far apart, and a figure has no interval until the table is scored again.

Every ``results`` here has rows as ``RESULTS_SCHEMA``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from mmrobust.cases import CONCAT, SITUATION
from mmrobust.errors import UsageError, unknown_name
from mmrobust.storage.results import ROBUSTNESS_FIGURES
from mmrobust.storage.tasks import is_share, sign_of

CURVE_KEYS = ("checkpoint", "dataset", "split", "scenario", "prompting", "metric")
"""What identifies one curve in a results table."""
_FIGURE_ENDS = tuple(f"{figure}_{end}" for figure in ROBUSTNESS_FIGURES for end in ("low", "high"))


def curves(results: pd.DataFrame) -> pd.DataFrame:
    """The curves of a results table, averaged over mask seeds.

    Returns:
        One row per ``CURVE_KEYS`` and ``missing_rate``, sorted by them: ``value``, ``ci_low``, ``ci_high`` (of the
        mean; NaN where one of its seeds has none), ``few`` (samples of the smallest class, where too few for the
        interval to hold), ``spread`` (NaN for one seed), ``seeds`` (number of seeds) and ``n``.
    """
    keys = [*CURVE_KEYS, "missing_rate"]
    measured = ["value", "ci_low", "ci_high"]
    grouped = results.groupby(keys, sort=True, observed=True)
    means = grouped[measured].mean().where(grouped[measured].count().eq(grouped.size(), axis=0))
    agreed = _agreed(grouped, results, ["mean_low", "mean_high"])
    for end, of_mean in (("ci_low", "mean_low"), ("ci_high", "mean_high")):
        means[end] = agreed[of_mean].fillna(means[end])
    means["few"] = grouped["few"].min() if "few" in results else np.nan
    means["spread"] = grouped["value"].std(ddof=1).where(means["value"].notna())
    means["seeds"] = grouped["seed"].nunique()
    means["n"] = grouped["n"].max()
    return means.reset_index()


_BOTH = ("auc_eta", "complete")


def _signs(metrics: Iterable[str]) -> npt.NDArray[np.float64]:
    """1 for each metric, or −1 where less is better."""
    return np.asarray([sign_of(name) for name in metrics], dtype=np.float64)


def _agreed(grouped: Any, results: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """What all rows of each group say in ``columns``; NaN where they disagree, or do not say."""
    if any(name not in results for name in columns):  # made by hand, or before version 2
        return pd.DataFrame(np.nan, index=grouped.size().index, columns=list(columns))
    least: pd.DataFrame = grouped[list(columns)].min()
    most = grouped[list(columns)].max()
    said = grouped[list(columns)].count().eq(grouped.size(), axis=0)
    return least.where(said & (least == most))


def summarise(results: pd.DataFrame, curve: pd.DataFrame | None = None) -> pd.DataFrame:
    """The robustness figures of every curve of a results table; ``curve`` is its :func:`curves`, if already computed.

    Returns:
        One row per ``CURVE_KEYS``, sorted by them: ``auc_eta``, ``complete``, ``relative_robustness``, ``worst_value``,
        ``worst_rate``, ``worst_seed``, ``drop_per_10_points``; the ends of the intervals, ``auc_eta_low``,
        ``auc_eta_high`` and so on for each of :data:`ROBUSTNESS_FIGURES`; and ``auc_eta_spread``, the standard
        deviation of AUC-η over the mask seeds. NaN where a figure is not defined.
    """
    keys = list(CURVE_KEYS)
    curve = curves(results) if curve is None else curve
    grouped = curve.groupby(keys, sort=True, observed=True)
    offset = curve["missing_rate"] - grouped["missing_rate"].transform("mean")
    steps = curve[keys].assign(product=offset * curve["value"], square=offset**2)
    sums = steps.groupby(keys, sort=True, observed=True)[["product", "square"]].sum()
    # A value that is not defined at one rate leaves all figures of the curve undefined.
    sums = sums.where(grouped["value"].count() == grouped["value"].size())
    figures = pd.DataFrame(index=sums.index)
    figures["auc_eta"] = _areas(curve, keys)
    figures["complete"] = curve[curve["missing_rate"] == 0].set_index(keys)["value"].reindex(sums.index)
    sign = _signs(figures.index.get_level_values("metric").astype(str))
    of, to = (figures[name].where(sign > 0, figures[other]) for name, other in (_BOTH, _BOTH[::-1]))
    figures["relative_robustness"] = of / to.where(to > 0)
    worst = results.dropna(subset=["value"])
    worst = worst.assign(quality=_signs(worst["metric"].astype(str)) * worst["value"])
    worst = worst.sort_values(["quality", "missing_rate", "seed"], kind="stable")
    worst = worst.groupby(keys, sort=True, observed=True)[["value", "missing_rate", "seed"]].first()
    worst.columns = pd.Index(["worst_value", "worst_rate", "worst_seed"])
    figures = figures.join(worst)
    figures["drop_per_10_points"] = sign * -0.1 * sums["product"] / sums["square"].where(sums["square"] > 0, np.nan)
    of_seeds = _areas(results.sort_values("missing_rate", kind="stable"), [*keys, "seed"]).groupby(
        level=keys, observed=True
    )
    figures["auc_eta_spread"] = of_seeds.std(ddof=1).where(of_seeds.count() == of_seeds.size())
    whole = results.groupby(keys, sort=True, observed=True)
    return figures.join(_agreed(whole, results, _FIGURE_ENDS)).reset_index()


def _areas(rows: pd.DataFrame, keys: Sequence[str]) -> pd.Series[float]:
    """AUC-η of each group of ``rows``, which are sorted by missing rate; NaN where a value is not defined."""
    grouped = rows.groupby(list(keys), sort=True, observed=True)
    width = grouped["missing_rate"].diff()
    height = (rows["value"] + grouped["value"].shift()) / 2
    area = rows[list(keys)].assign(area=(width * height).where(width.notna(), 0.0))
    span = grouped["missing_rate"].max() - grouped["missing_rate"].min()
    areas = area.groupby(list(keys), sort=True, observed=True)["area"].sum()
    found = (areas / span.where(span > 0)).where(span > 0, grouped["value"].first())
    return found.where(grouped["value"].count() == grouped["value"].size())


def prompting_gap(results: pd.DataFrame) -> pd.DataFrame:
    """The value of knowing the degradation: situation − concat, at each missing rate.

    Returns:
        One row per checkpoint, dataset, split, scenario, metric and missing rate that has both promptings, with
        ``situation``, ``concat`` and ``gap``; positive where telling the model its case helps (concat − situation where
        less is better).
    """
    keys = ["checkpoint", "dataset", "split", "scenario", "metric", "missing_rate"]
    wide = curves(results).pivot_table(index=keys, columns="prompting", values="value", dropna=True, observed=True)
    if not {SITUATION, CONCAT} <= set(wide.columns):
        return pd.DataFrame(columns=[*keys, SITUATION, CONCAT, "gap"])
    both = wide[[SITUATION, CONCAT]].dropna()
    sign = _signs(both.index.get_level_values("metric").astype(str))
    return both.assign(gap=sign * (both[SITUATION] - both[CONCAT])).reset_index().rename_axis(columns=None)


def effective_robustness(results: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """How far a checkpoint's value at a missing rate exceeds what its complete value alone predicts.

    Taori et al., Measuring Robustness to Natural Distribution Shifts in Image Classification, NeurIPS 2020: ρ = m(η) −
    β(m(0)), where β predicts the value under the shift of a model without any intervention, from its value without
    the shift. They fit β on the logit scale, where such models lie on a line; one baseline b gives a line of slope 1
    through its own point: logit β(x) = logit x + logit b(η) − logit b(0). So the baseline's own ρ is 0, and a model
    that is better by the same amount in every case does not count as more robust. Values of 0 and 1 are moved inside
    by half a sample.

    Returns:
        One row per checkpoint (except the baseline), dataset, split, scenario, prompting, metric and missing rate > 0:
        ``value``, ``expected`` (β), ``effective`` (ρ), and ``gain``: value − the baseline's (Taori's τ).

    Raises:
        UsageError: the results have no such checkpoint, or are of a metric that is no share.
    """
    if others := sorted(metric for metric in set(results["metric"]) if not is_share(metric)):
        raise UsageError(f"effective robustness is defined for shares of 1; {others[0]} is none")
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
    is_baseline = curve["checkpoint"] == baseline
    at = [*keys, "missing_rate"]
    both = curve[~is_baseline & (curve["missing_rate"] > 0)].merge(
        curve.loc[is_baseline, [*at, "value", "logit", "logit_complete"]], on=at, suffixes=("", "_baseline")
    )
    expected = 1 / (1 + np.exp(-(both["logit_complete"] + both["logit_baseline"] - both["logit_complete_baseline"])))
    figures = both.assign(
        expected=expected, effective=both["value"] - expected, gain=both["value"] - both["value_baseline"]
    )
    return figures[["checkpoint", *at, "value", "expected", "effective", "gain"]]


def train_test_rates(results: pd.DataFrame, checkpoints: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Train rate × test rate: how checkpoints trained at one missing rate do at every other.

    ``checkpoints`` are those of the provenance, whose ``training`` holds ``scenario`` and ``missing_rate``.

    Returns:
        One row per dataset, split, metric, method, head, ``train_scenario``, scenario, prompting, ``train_rate`` and
        ``missing_rate``, where one method and head was trained under one scenario at two or more rates: ``value``, the
        mean over the checkpoints trained that way, and ``checkpoints``, their number.
    """
    trained = pd.DataFrame(
        [
            (name, training["scenario"], float(training["missing_rate"]))
            for name, entry in checkpoints.items()
            if (training := entry.get("training") or {}).get("missing_rate") is not None and "scenario" in training
        ],
        columns=["checkpoint", "train_scenario", "train_rate"],
    )
    methods = results[["checkpoint", "method", "head"]].drop_duplicates("checkpoint")
    curve = curves(results).merge(methods, on="checkpoint").merge(trained, on="checkpoint")
    keys = ["dataset", "split", "metric", "method", "head", "train_scenario"]
    several = curve.groupby(keys, observed=True)["train_rate"].transform("nunique") > 1
    keys += ["scenario", "prompting", "train_rate", "missing_rate"]
    grouped = curve[several].groupby(keys, sort=True, observed=True)
    return grouped.agg(value=("value", "mean"), checkpoints=("checkpoint", "nunique")).reset_index()
