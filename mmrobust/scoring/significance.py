"""Tests of a difference between two classifiers on the same samples, corrected for asking many times.

Everything works on arrays of K questions at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]

POWER = 0.8
"""How surely a difference is to be found, for it to count as one that the data could show."""


def mcnemar(lost: npt.ArrayLike, gained: npt.ArrayLike, *, mid_p: bool = True) -> Floats:
    """Two-sided p-values [K] of McNemar's test of equal accuracy.

    Of the samples about which the two differ, ``lost`` are right only for the first, ``gained`` only for the second;
    if both are equally good each is a fair coin. Exact: p = 2 P(X ≤ min), X ~ Binomial(lost + gained, ½), at most 1.
    Mid-p counts the observed split half, which is less timid and still keeps its level: Fagerland, Lydersen, Laake,
    The McNemar test for binary matched-pairs data, BMC Medical Research Methodology 13, 2013.

    Args:
        lost: counts [K].
        gained: counts [K].
        mid_p: the mid-p variant; otherwise the exact one.
    """
    from scipy.stats import binom

    lost, gained = np.asarray(lost), np.asarray(gained)
    fewer, both = np.minimum(lost, gained), lost + gained
    p = 2 * binom.cdf(fewer, both, 0.5) - (binom.pmf(fewer, both, 0.5) if mid_p else 0.0)
    return np.asarray(np.minimum(p, 1.0))


@dataclass(frozen=True)
class Placements:
    """Where each sample's score lies among those of the other class: what DeLong's variance is made of."""

    positives: Floats
    """[P]: the share of negatives that each positive beats, equal ones counting half."""
    negatives: Floats
    """[Q]: the share of positives that beat each negative."""

    @property
    def auroc(self) -> float:
        """Area under the ROC curve: the mean of either."""
        return float(self.positives.mean())


def placements(scores: Floats, positive: npt.NDArray[np.bool_]) -> Placements:
    """The placements of ``scores`` [N], by midranks: Sun & Xu, Fast Implementation of DeLong's Algorithm, 2014."""
    from scipy.stats import rankdata

    ranks, above = rankdata(scores), np.empty(len(scores))
    for of_class in (positive, ~positive):
        above[of_class] = ranks[of_class] - rankdata(scores[of_class])
    p, q = int(positive.sum()), int((~positive).sum())
    return Placements(above[positive] / q, 1 - above[~positive] / p)


def delong(first: Placements, second: Placements) -> tuple[float, float]:
    """Standard error of AUROC(second) − AUROC(first) on the same samples, and the two-sided p-value.

    var = s²(D⁺) / P + s²(D⁻) / Q, with D the differences of the placements of positives and of negatives: DeLong,
    DeLong, Clarke-Pearson, Comparing the areas under two or more correlated ROC curves, Biometrics 44, 1988. It holds
    for means of placements over mask seeds as well, as those are U-statistics too.
    """
    from scipy.special import ndtr

    parts = (second.positives - first.positives, second.negatives - first.negatives)
    error = float(np.sqrt(sum(part.var(ddof=1) / len(part) for part in parts)))
    difference = second.auroc - first.auroc
    if error == 0:
        return error, float(difference == 0)
    return error, float(2 * ndtr(-abs(difference) / error))


def normal_p_values(difference: Floats, error: Floats, *, two_sided: bool) -> Floats:
    """p-values [K] of differences with these bootstrap standard errors, by the normal approximation; NaN of a NaN.

    One-sided: how often chance alone would put the difference as low as it is, or lower. A tail taken from the normal
    curve reaches any depth that a correction over many cells asks for; counting resamples could not go below 1 / R.
    """
    from scipy.special import ndtr

    certain = np.select([difference < 0, difference > 0], [-np.inf, np.inf], 0.0)  # every sample says the same
    certain[np.isnan(difference) | np.isnan(error)] = np.nan
    z = np.divide(difference, error, out=certain, where=error > 0)
    return np.asarray(np.minimum(2 * ndtr(-np.abs(z)), 1.0) if two_sided else ndtr(z))


def holm(p: Floats) -> Floats:
    """p-values [K] corrected for asking K questions; not cut at 1. A NaN is no question, and stays.

    Corrected p_(k) = max over j ≤ k of (K − j + 1) p_(j), p_(1) the smallest. Rejecting where it is at most α makes
    any false rejection at all no likelier than α, however the questions hang together: Holm, A Simple Sequentially
    Rejective Multiple Test Procedure, Scandinavian Journal of Statistics 6, 1979.
    """
    p = np.asarray(p)
    asked = int((~np.isnan(p)).sum())
    order = np.argsort(p, kind="stable")[:asked]  # NaN sorts last
    corrected = np.full(len(p), np.nan)
    corrected[order] = np.maximum.accumulate(np.arange(asked, 0, -1) * p[order])
    return corrected


def upper_ends(difference: Floats, error: Floats, level: Floats) -> Floats:
    """Upper ends [K] of one-sided intervals, each at its own level α: below zero exactly where p is below α.

    The normal bootstrap interval, difference + z_{1−α} · error: Davison & Hinkley, Bootstrap Methods and their
    Application, 1997, section 5.2.
    """
    from scipy.special import ndtri

    return np.asarray(difference + ndtri(1 - level) * error)


def smallest_shown(error: Floats, alpha: float, *, two_sided: bool, power: float = POWER) -> Floats:
    """The smallest true difference [K] that a test with these standard errors would find with this power.

    (z_{1−α} + z_{power}) · error, with α / 2 where the test is two-sided: Cohen, Statistical Power Analysis for the
    Behavioral Sciences, 1988; for NLP, Card et al., With Little Power Comes Great Responsibility, EMNLP 2020.
    """
    from scipy.special import ndtri

    level = alpha / 2 if two_sided else alpha
    return np.asarray((ndtri(1 - level) + ndtri(power)) * error)


CORRECTIONS = ("holm", "none")
