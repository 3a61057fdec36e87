"""What each sample contributes to a metric: its jackknife pseudo-value, in closed form.

The pseudo-value of a sample is N m − (N − 1) m₍ᵢ₎, with m the metric and m₍ᵢ₎ the metric without the sample (Tukey
1958; Efron & Tibshirani, An Introduction to the Bootstrap, 1993, chapter 11). For a mean over samples it is the
sample's own value; for AUROC, its placement as DeLong et al. use it (Hanley & Hajian-Tilaki, Academic Radiology 4,
1997). Where figures are added or averaged, so are their pseudo-values, and the error of the sum follows from them
without resampling: :mod:`mmrobust.scoring.intervals`.

Without a sample, only the counts of its own classes change, and a ranking only below its own place. So the N values are
sums over tables of the counts, or cumulative sums down the ranking: none takes longer than the metric itself.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mmrobust.scoring import Bools, Floats

_ENTRIES_AT_ONCE = 2**19
"""Decisions that are turned into numbers at a time."""


@dataclass(frozen=True)
class PseudoValues:
    """A figure of N samples, and what each contributes to it."""

    value: float
    """NaN where it is not defined."""
    of_sample: Floats
    """[N]; their mean is the value, corrected for its bias."""

    @classmethod
    def without_each(cls, value: float, rest: Floats) -> PseudoValues:
        """From the figure, and the figure without each sample [N]."""
        samples = len(rest)
        return cls(value, samples * value - (samples - 1) * rest)


# Metrics of counts.


@dataclass(frozen=True)
class Decisions:
    """What was predicted for N samples, and what is true."""

    predicted: npt.NDArray[Any]
    """[N]: the class; where a sample may have several, [N, C]: whether it has each."""
    actual: npt.NDArray[Any]
    """The same of the truth."""
    classes: int
    skip_absent: bool = False
    """Whether a macro mean leaves out classes that neither occur nor are predicted."""

    @property
    def several(self) -> bool:
        """Whether a sample may belong to several classes."""
        return self.predicted.ndim == 2

    @functools.cached_property
    def hits(self) -> Bools:
        """[N], or [N, C]: whether what was predicted is true."""
        hits = self.predicted & self.actual if self.several else self.predicted == self.actual
        return np.asarray(hits)

    @functools.cached_property
    def by_class(self) -> tuple[Floats, Floats, Floats]:
        """Three [C]: how often each class was predicted and true, was predicted, and was true."""
        if self.several:
            parts: tuple[npt.NDArray[Any], ...] = (self.hits, self.predicted, self.actual)
            counts = [np.count_nonzero(part, axis=0) for part in parts]
        else:
            counts = [
                np.bincount(of, minlength=self.classes) for of in (self.actual[self.hits], self.predicted, self.actual)
            ]
        hits, predicted, actual = (count.astype(np.float64) for count in counts)
        return hits, predicted, actual

    @functools.cached_property
    def by_sample(self) -> tuple[Floats, Floats, Floats]:
        """Three [N]: how many classes of each sample were predicted and true, were predicted, and were true."""
        if self.several:
            parts = (self.hits, self.predicted, self.actual)
            hits, predicted, actual = (np.count_nonzero(part, axis=1).astype(np.float64) for part in parts)
            return hits, predicted, actual
        one = np.ones(len(self.predicted))
        return self.hits.astype(np.float64), one, one

    def change(self, of_class: Callable[[Floats, Floats, Floats], Floats]) -> Floats:
        """[N]: by how much the sum over classes of a function of :attr:`by_class` changes without each sample."""
        hits, predicted, actual = self.by_class
        whole = of_class(hits, predicted, actual)
        was_predicted = of_class(hits, predicted - 1, actual) - whole
        was_true = of_class(hits, predicted, actual - 1) - whole
        was_both = of_class(hits - 1, predicted - 1, actual - 1) - whole - was_predicted - was_true
        if not self.several:
            one = was_predicted[self.predicted] + was_true[self.actual] + self.hits * was_both[self.actual]
            return np.asarray(one)
        change = np.empty(len(self.predicted))
        rows = max(1, _ENTRIES_AT_ONCE // self.classes)
        for start in range(0, len(change), rows):
            part = slice(start, start + rows)
            change[part] = self.predicted[part] @ was_predicted
            change[part] += self.actual[part] @ was_true
            change[part] += self.hits[part] @ was_both
        return change


def ratio(numerator: Floats, denominator: Floats) -> Floats:
    """Quotient, 0 where the denominator is not positive."""
    numerator = np.asarray(numerator, dtype=np.float64)
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)


def _f1(hits: Floats, predicted: Floats, actual: Floats) -> Floats:
    return ratio(2 * hits, predicted + actual)


def _accuracy(decisions: Decisions) -> PseudoValues:
    right, _, _ = decisions.by_sample
    return PseudoValues(float(right.sum() / len(right)), right)


def _macro_f1(decisions: Decisions) -> PseudoValues:
    def occurs(hits: Floats, predicted: Floats, actual: Floats) -> Floats:
        return (predicted + actual > 0).astype(np.float64)

    f1, change = _f1(*decisions.by_class), decisions.change(_f1)
    if not decisions.skip_absent:
        return PseudoValues.without_each(float(f1.mean()), (f1.sum() + change) / decisions.classes)
    classes = occurs(*decisions.by_class).sum()
    rest = ratio(f1.sum() + change, classes + decisions.change(occurs))
    return PseudoValues.without_each(float(ratio(f1.sum(), classes)), rest)


def _micro_f1(decisions: Decisions) -> PseudoValues:
    hits, predicted, actual = (counts.sum() for counts in decisions.by_class)
    own_hits, own_predicted, own_actual = decisions.by_sample
    rest = ratio(2 * (hits - own_hits), predicted - own_predicted + actual - own_actual)
    return PseudoValues.without_each(float(ratio(2 * hits, predicted + actual)), rest)


def _weighted_f1(decisions: Decisions) -> PseudoValues:
    def weighted(hits: Floats, predicted: Floats, actual: Floats) -> Floats:
        return actual * _f1(hits, predicted, actual)

    total, actual = weighted(*decisions.by_class).sum(), decisions.by_class[2].sum()
    rest = ratio(total + decisions.change(weighted), actual - decisions.by_sample[2])
    return PseudoValues.without_each(float(ratio(total, actual)), rest)


def _samples_f1(decisions: Decisions) -> PseudoValues:
    hits, predicted, actual = decisions.by_sample
    f1 = ratio(2 * hits, predicted + actual)
    return PseudoValues(float(f1.sum() / len(f1)), f1)


def worst_class(decisions: Decisions) -> PseudoValues:
    """The lowest F1 of any class; of several, of the first. Classes that a macro mean leaves out do not count."""
    f1, (_, predicted, actual) = _f1(*decisions.by_class), decisions.by_class
    counts = predicted + actual > 0 if decisions.skip_absent else np.ones(decisions.classes, dtype=np.bool_)
    if not counts.any():
        return PseudoValues.without_each(0.0, np.zeros(len(decisions.predicted)))
    worst = int(np.flatnonzero(counts)[f1[counts].argmin()])

    def of_worst(hits: Floats, predicted: Floats, actual: Floats) -> Floats:
        return np.where(np.arange(decisions.classes) == worst, _f1(hits, predicted, actual), 0.0)

    return PseudoValues.without_each(float(f1[worst]), f1[worst] + decisions.change(of_worst))


def share_of_some(shares: Floats, chosen: Bools) -> PseudoValues:
    """The mean of the ``shares`` [N] of the samples that are ``chosen`` [N]; NaN where none is."""
    count = np.count_nonzero(chosen)
    if not count:
        return PseudoValues(float("nan"), np.full(len(shares), np.nan))
    value = float(shares[chosen].mean())
    return PseudoValues(value, value + np.where(chosen, (shares - value) * len(shares) / count, 0.0))


OF_COUNTS: dict[str, Callable[[Decisions], PseudoValues]] = {
    "accuracy": _accuracy,
    "macro_f1": _macro_f1,
    "micro_f1": _micro_f1,
    "weighted_f1": _weighted_f1,
    "samples_f1": _samples_f1,
}
"""Metric of counts → its pseudo-values; the values are those of :mod:`mmrobust.scoring.metrics`."""


# Metrics of a ranking.


@dataclass(frozen=True)
class Ranking:
    """The order of E entries, one per sample and case, by their score; the highest first. All cells share it."""

    samples: npt.NDArray[np.int32]
    """[E]."""
    cases: npt.NDArray[np.uint8]
    """[E]."""
    positive: Bools
    """[E]: whether the sample belongs to the class."""
    new: Bools | None
    """[E]: whether the score is lower than that of the entry before; ``None`` where no two are equal."""

    @classmethod
    def of(cls, scores: Sequence[Floats], targets: Bools) -> Ranking:
        """Rank the scores [N] in each case; ``targets`` [N]: whether each sample belongs to the class."""
        every, count = -np.concatenate(scores), len(targets)
        order = np.argsort(every, kind="stable")
        ordered = every[order]
        new = np.concatenate([[True], ordered[1:] != ordered[:-1]])
        samples, cases = (order % count).astype(np.int32), (order // count).astype(np.uint8)
        return cls(samples, cases, targets[samples], None if new.all() else new)

    def of_cell(self, table: npt.NDArray[np.uint8]) -> CellRanking:
        """The ranking of the N samples in the cases [N] of a table."""
        held = np.flatnonzero(table[self.samples] == self.cases)
        ends = None
        if self.new is not None:
            group = np.cumsum(self.new)[held]
            last = np.flatnonzero(np.concatenate([group[1:] != group[:-1], [True]]))
            ends = (
                np.repeat(last + 1, np.diff(last, prepend=-1)),
                np.repeat(np.concatenate([[0], last[:-1] + 1]), np.diff(last, prepend=-1)),
            )
        return CellRanking(self.samples[held], self.positive[held], *(ends or (None, None)))


@dataclass(frozen=True)
class CellRanking:
    """The order of N samples by their score."""

    samples: npt.NDArray[np.int32]
    positive: Bools
    """[N]: whether each, in this order, belongs to the class."""
    ends: npt.NDArray[np.int64] | None
    """[N]: how many samples have at least the score of each; ``None`` where no two scores are equal."""
    starts: npt.NDArray[np.int64] | None
    """[N]: how many have a higher one."""

    def add_average_precision(self, to: Floats) -> float:
        """The average precision, 0 without a positive sample; adds the pseudo-values of the samples to ``to`` [N].

        AP = Σ over positives of (positives at or above) / (samples at or above) / P. Without sample i, the terms of the
        positives at its score or below have one sample, and if it is positive one positive, fewer above them.
        """
        count, at = len(self.samples), np.flatnonzero(self.positive)
        positives = len(at)
        if not positives:
            return 0.0
        seen = np.concatenate([[0], np.cumsum(self.positive)])
        if self.ends is None or self.starts is None:
            above, higher = at + 1, seen[:-1]
        else:
            above, higher = self.ends[at], seen[self.starts]
        positives_above = seen[above]
        precision = positives_above / above
        fewer = np.maximum(above - 1, 1)
        # Sums over the positives from the k-th on, for k = 0 … P, of the terms with one sample less above them.
        same = _sums_from(positives_above / fewer)
        less = _sums_from(1 / fewer)
        before = np.concatenate([[0.0], np.cumsum(precision)])
        total = before[-1]
        value = total / positives
        rest = ((before + same) / positives)[higher]
        own = (before[higher[at]] + same[higher[at]] - positives_above / fewer) - (less[higher[at]] - 1 / fewer)
        rest[at] = own / max(positives - 1, 1)
        to[self.samples] += count * value - (count - 1) * rest
        return float(value)

    def auroc(self) -> PseudoValues:
        """P(score of a positive > score of a negative) + ½ P(equal); NaN where all samples are of one class.

        From the placements of DeLong, DeLong & Clarke-Pearson, Biometrics 44, 1988: the share of negatives below each
        positive, and of positives above each negative, equal ones counting half.
        """
        count = len(self.samples)
        seen = np.concatenate([[0], np.cumsum(self.positive)])
        positives, negatives = int(seen[-1]), count - int(seen[-1])
        of_sample = np.full(count, np.nan)
        if not positives or not negatives:
            return PseudoValues(float("nan"), of_sample)
        order = np.arange(count + 1)
        ends = order[1:] if self.ends is None else self.ends
        starts = order[:-1] if self.starts is None else self.starts
        # Those above count fully, those with the same score half; so a sample's own score adds nothing.
        positives_above = (seen[starts] + seen[ends]) / 2
        negatives_above = (starts + ends) / 2 - positives_above
        placed = np.where(self.positive, 1 - negatives_above / negatives, positives_above / positives)
        value = float(placed[self.positive].mean())
        of_class = np.where(self.positive, positives, negatives)
        rest = (of_class * value - placed) / np.maximum(of_class - 1, 1)
        of_sample[self.samples] = count * value - (count - 1) * rest
        return PseudoValues(value, of_sample)


def _sums_from(terms: Floats) -> Floats:
    """[P + 1]: the sum of the terms [P] from each place on."""
    return np.concatenate([np.cumsum(terms[::-1])[::-1], [0.0]])
