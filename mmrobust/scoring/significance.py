"""Tests of a difference between two classifiers on the same samples, corrected for multiple comparisons.

Every function takes arrays of K comparisons at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import bdtr, ndtr, stdtr  # scipy.stats has the same, and takes seconds to import

from mmrobust.scoring import Bools, Floats
from mmrobust.scoring.intervals import student

POWER = 0.8
"""The power with which a test must detect a difference for it to count as detectable."""
CORRECTIONS = ("holm", "none")
"""The corrections for multiple comparisons to choose from."""


def mcnemar(lost: npt.ArrayLike, gained: npt.ArrayLike, *, two_sided: bool = True, mid_p: bool = True) -> Floats:
    """p-values [K] of McNemar's test of equal accuracy; one-sided: small where more is lost than gained.

    Of the samples on which the two differ, only the first is right on ``lost`` [K] and only the second on ``gained``
    [K]; if both are equally good, each is a fair coin toss. Exact: p = 2 P(X ≤ min), X ~ Binomial(lost + gained, ½),
    at most 1. Mid-p counts the observed split half, which is less conservative and still keeps its level: Fagerland,
    Lydersen, Laake, The McNemar test for binary matched-pairs data, BMC Medical Research Methodology 13, 2013.
    """
    lost, gained = (np.asarray(count, dtype=np.int64) for count in (lost, gained))
    fewer, both = np.minimum(lost, gained) if two_sided else gained, lost + gained
    p = bdtr(fewer, both, 0.5)  # P(X ≤ fewer)
    if mid_p:
        p = (p + np.where(fewer > 0, bdtr(np.maximum(fewer - 1, 0), both, 0.5), 0.0)) / 2
    return np.asarray(np.minimum(2 * p, 1.0) if two_sided else p)


@dataclass(frozen=True)
class Placements:
    """The rank of each sample's score among those of the other class, from which DeLong's variance is computed."""

    positives: Floats
    """[P]: the share of negatives that each positive beats, ties counting half."""
    negatives: Floats
    """[Q]: the share of positives that beat each negative."""

    @property
    def auroc(self) -> float:
        """Area under the ROC curve: the mean of either array."""
        return float(self.positives.mean())

    @classmethod
    def mean(cls, several: Sequence[Placements]) -> Placements:
        """Means over several scores of the same samples, such as those of mask seeds."""
        positives = np.mean([one.positives for one in several], axis=0)
        return cls(positives, np.mean([one.negatives for one in several], axis=0))


def placements(scores: Floats, positive: Bools) -> Placements:
    """The placements of ``scores`` [N], by midranks: Sun & Xu, Fast Implementation of DeLong's Algorithm, 2014."""
    ranks, above = midranks(scores), np.empty(len(scores))
    for of_class in (positive, ~positive):
        above[of_class] = ranks[of_class] - midranks(scores[of_class])
    p, q = int(positive.sum()), int((~positive).sum())
    return Placements(above[positive] / q, 1 - above[~positive] / p)


def midranks(values: Floats) -> Floats:
    """The ranks [N] of ``values`` [N], from 1; those of equal values are their mean."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((count.cumsum() - (count - 1) / 2)[place])


def delong(first: Placements, second: Placements) -> tuple[float, float]:
    """Standard error of AUROC(second) − AUROC(first) on the same samples, and the two-sided p-value.

    var = s²(D⁺) / P + s²(D⁻) / Q, with D the differences of the placements of positives and of negatives: DeLong,
    DeLong, Clarke-Pearson, Comparing the areas under two or more correlated ROC curves, Biometrics 44, 1988. It also
    holds for means of placements over mask seeds, which are U-statistics too.
    """
    differences = (second.positives - first.positives, second.negatives - first.negatives)
    error = float(np.sqrt(sum(of_class.var(ddof=1) / len(of_class) for of_class in differences)))
    difference = second.auroc - first.auroc
    if error == 0:
        return error, float(difference == 0)
    return error, float(2 * ndtr(-abs(difference) / error))


def p_values(difference: Floats, error: Floats, degrees: Floats, *, two_sided: bool) -> Floats:
    """p-values [K] of differences with these standard errors and degrees of freedom, by Student's t; NaN stays NaN.

    One-sided: the probability of a difference this low or lower by chance alone. A tail can be as small as a correction
    over many cells requires; counting resamples could not go below 1 / R.
    """
    certain = np.select([difference < 0, difference > 0], [-np.inf, np.inf], 0.0)  # every sample agrees
    certain[np.isnan(difference) | np.isnan(error)] = np.nan
    t = np.divide(difference, error, out=certain, where=error > 0)
    return np.asarray(np.minimum(2 * stdtr(degrees, -np.abs(t)), 1.0) if two_sided else stdtr(degrees, t))


def holm(p: Floats) -> Floats:
    """p-values [K] corrected for K comparisons, without the limit at 1. NaN stays NaN and does not count in K.

    Corrected p_(k) = max over j ≤ k of (K − j + 1) p_(j), p_(1) the smallest. Rejecting where it is at most α keeps the
    probability of any false rejection at or below α, whatever the dependence between the comparisons: Holm, A Simple
    Sequentially Rejective Multiple Test Procedure, Scandinavian Journal of Statistics 6, 1979.
    """
    p = np.asarray(p)
    count = int((~np.isnan(p)).sum())
    order = np.argsort(p, kind="stable")[:count]  # NaN sorts last
    corrected = np.full(len(p), np.nan)
    corrected[order] = np.maximum.accumulate(np.arange(count, 0, -1) * p[order])
    return corrected


def upper_ends(difference: Floats, error: Floats, degrees: Floats, level: Floats) -> Floats:
    """Upper ends [K] of one-sided intervals, each at its own level α: below zero exactly where p is below α.

    difference + t_{1−α} · error, with the quantile of Student's distribution.
    """
    return np.asarray(difference + student(1 - level, degrees) * error)


def detectable(error: Floats, degrees: Floats, size: Floats, level: float, power: float = POWER) -> Floats:
    """The smallest true drop [K] that a one-sided test at ``level`` finds with this power.

    The smallest D with D = t √(e² + D / n), t = t_{1−level} + t_{power}: e is the standard error that was observed, and
    D / n the variance that losing the share D of ``size`` n samples adds to it (Connor, Sample Size for Testing
    Differences in Proportions for the Paired-Sample Design, Biometrics 43, 1987). So two sides that happen to agree on
    a few samples, e = 0, still cannot show less than t² / n. For a two-sided test, ``level`` is half its α. See also
    Card et al., With Little Power Comes Great Responsibility, EMNLP 2020.
    """
    t = student(1 - level, degrees) + student(power, degrees)
    return np.asarray((t**2 / size + np.sqrt((t**2 / size) ** 2 + 4 * (t * error) ** 2)) / 2)


def rules_out(difference: Floats, error: Floats, degrees: Floats, size: Floats, drop: Floats, level: float) -> Bools:
    """Whether differences [K] rule out a true ``drop`` [K], in a one-sided test at ``level``.

    d + D ≥ t_{1−level} √(e² + D / n), with the variance that :func:`detectable` has for a true drop D: a test of
    non-inferiority (Tango, Equivalence Test and Confidence Interval for the Difference in Proportions for the
    Paired-Sample Design, Statistics in Medicine 17, 1998). Nothing rules out a drop of 0.
    """
    bound = student(1 - level, degrees) * np.sqrt(error**2 + np.maximum(drop, 0) / size)
    return np.asarray((drop > 0) & (difference + drop >= bound))
