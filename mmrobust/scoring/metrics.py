"""Metrics over weighted samples, so that the value and its bootstrap are one computation.

Every metric is a function of :class:`Outcomes` (the logits of N samples, their truth, and R rows of sample weights)
and gives R values. Weights of one give the metric itself; the counts of R bootstrap resamples give its R bootstrap
values. Nothing here loops over samples or resamples.

Adding a metric: one function, and one line in :data:`METRICS` for each task that it fits.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mmrobust.errors import DataError, unknown_name

Floats = npt.NDArray[np.floating[Any]]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class WeightedTruth:
    """The true labels of N samples and R rows of weights on them. Cells of one split share it."""

    targets: Bools
    """[N, C]: whether the sample belongs to the class."""
    weights: Floats
    """[R, N], not negative: how often a resample drew the sample. Float32 sums are exact up to 2**24 samples. Fastest
    where a sample's R weights lie side by side (``weights.T`` is C-contiguous)."""

    @functools.cached_property
    def actual(self) -> Floats:
        """[R, C]: weight of the samples that belong to each class."""
        return self.weights @ self.targets.astype(self.weights.dtype)

    @functools.cached_property
    def total(self) -> Floats:
        """[R]: weight of all samples."""
        return np.asarray(self.weights.sum(axis=1, dtype=np.float64))


@dataclass(frozen=True)
class Outcomes:
    """What a classifier said of N samples, beside the truth."""

    logits: Floats
    """[N, C], finite."""
    truth: WeightedTruth
    several: bool
    """Whether a sample may belong to several classes (multi-label)."""

    @functools.cached_property
    def predicted(self) -> Bools:
        """[N, C]: whether the class is predicted.

        Multi-label: sigmoid(logit) ≥ 0.5, that is logit ≥ 0. Otherwise the class of the largest logit, and of several
        that are equal the one of the lowest index.
        """
        if self.several:
            return self.logits >= 0
        chosen: Bools = self.logits.argmax(axis=1)[:, None] == np.arange(self.logits.shape[1])
        return chosen

    @functools.cached_property
    def counts(self) -> tuple[Floats, Floats, Floats]:
        """Three [R, C]: weight of the true positives, of the predicted and of the actual members of each class."""
        weights, classes = self.truth.weights, self.logits.shape[1]
        columns = np.concatenate([self.predicted & self.truth.targets, self.predicted], axis=1)
        sums = weights @ columns.astype(weights.dtype)  # one product: the weights are read once
        return sums[:, :classes], sums[:, classes:], self.truth.actual

    @functools.cached_property
    def class_f1(self) -> Floats:
        """[R, C]: F1 of each class, 2 TP / (predicted + actual); 0 where nothing is predicted and nothing is there."""
        hits, predicted, actual = self.counts
        return _ratio(2 * hits, predicted + actual)


Metric = Callable[[Outcomes], Floats]
"""A metric: [R] values in [0, 1], larger is better; NaN where it is not defined."""


def accuracy(outcomes: Outcomes) -> Floats:
    """Share of the samples whose predicted class is the true one."""
    hits, _, _ = outcomes.counts
    return _ratio(hits.sum(axis=1, dtype=np.float64), outcomes.truth.total)


def macro_f1(outcomes: Outcomes) -> Floats:
    """Mean of the classes' F1. A class with no positive in predictions and truth counts 0.

    That is scikit-learn's ``f1_score(average="macro", labels=range(C), zero_division=0)``: every class of the data set
    counts, so that all cells and resamples average over the same classes.
    """
    return np.asarray(outcomes.class_f1.mean(axis=1, dtype=np.float64))


def micro_f1(outcomes: Outcomes) -> Floats:
    """F1 of all (sample, class) decisions together: 2 ΣTP / (Σpredicted + Σactual)."""
    hits, predicted, actual = (part.sum(axis=1, dtype=np.float64) for part in outcomes.counts)
    return _ratio(2 * hits, predicted + actual)


def weighted_f1(outcomes: Outcomes) -> Floats:
    """Mean of the classes' F1, weighted by how many samples truly belong to each; 0 where none does."""
    actual = outcomes.truth.actual.astype(np.float64)
    return _ratio((outcomes.class_f1 * actual).sum(axis=1), actual.sum(axis=1))


def samples_f1(outcomes: Outcomes) -> Floats:
    """Mean over samples of the F1 between predicted and true classes; a sample with neither counts 0."""
    predicted, targets = outcomes.predicted, outcomes.truth.targets
    hits = (predicted & targets).sum(axis=1)
    f1 = _ratio(2.0 * hits, (predicted.sum(axis=1) + targets.sum(axis=1)).astype(np.float64))
    weights = outcomes.truth.weights
    return _ratio((weights @ f1.astype(weights.dtype)).astype(np.float64), outcomes.truth.total)


def mean_average_precision(outcomes: Outcomes) -> Floats:
    """Macro mean of the classes' average precision; a class without a positive sample counts 0.

    AP = Σ_n (R_n − R_{n−1}) P_n over the distinct scores, scikit-learn's ``average_precision_score``. The logits are
    ranked themselves: the sigmoid does not change their order.
    """
    columns = zip(outcomes.logits.T, outcomes.truth.targets.T, strict=True)
    by_class = [_average_precision(scores, targets, outcomes.truth.weights) for scores, targets in columns]
    return np.asarray(np.mean(by_class, axis=0))


def auroc(outcomes: Outcomes) -> Floats:
    """Area under the ROC curve of the second class of two; NaN where the samples are all of one class.

    P(score of a positive > score of a negative) + ½ P(equal). Ranked by the difference of the two logits, of which the
    softmax is a monotone function, but which does not saturate.
    """
    logits, weights = outcomes.logits.astype(np.float64), outcomes.truth.weights
    order, starts = _ranking(logits[:, 0] - logits[:, 1])
    positive = outcomes.truth.targets[order, 1].astype(weights.dtype)[:, None]
    ranked = weights.T[order]
    positives = np.add.reduceat(ranked * positive, starts, axis=0)  # [groups of equal scores, R], best score first
    negatives = np.add.reduceat(ranked * (1 - positive), starts, axis=0)
    seen = np.cumsum(positives, axis=0)
    beaten = np.einsum("gr,gr->r", (seen - positives / 2).astype(np.float64), negatives.astype(np.float64))
    pairs = seen[-1].astype(np.float64) * negatives.sum(axis=0, dtype=np.float64)
    return np.asarray(np.divide(beaten, pairs, out=np.full_like(pairs, np.nan), where=pairs > 0))


METRICS: dict[str, dict[str, Metric]] = {
    "single-label": {"accuracy": accuracy, "macro_f1": macro_f1},
    "multi-label": {
        "macro_f1": macro_f1,
        "micro_f1": micro_f1,
        "weighted_f1": weighted_f1,
        "samples_f1": samples_f1,
        "map": mean_average_precision,
    },
    "binary": {"auroc": auroc, "accuracy": accuracy},
}
"""Task → name → metric. All of a task's are computed where none is named."""


def metrics_of(task: str, names: Sequence[str] | None = None) -> dict[str, Metric]:
    """The metrics of these ``names`` for a ``task``; all of the task's where ``names`` is ``None``.

    Raises:
        UsageError: no such task, or no such metric for it.
    """
    if task not in METRICS:
        raise unknown_name("task", task, METRICS)
    known = METRICS[task]
    for name in names or ():
        if name not in known:
            raise unknown_name(f"metric of a {task} task", name, known)
    return {name: known[name] for name in (known if names is None else names)}


def target_matrix(labels: Sequence[Sequence[int]], classes: int) -> Bools:
    """[N, C]: whether each sample belongs to each class, from its list of classes.

    Raises:
        DataError: a label that is no class.
    """
    lengths = np.fromiter(map(len, labels), dtype=np.int64, count=len(labels))
    members = np.fromiter((c for label in labels for c in label), dtype=np.int64, count=int(lengths.sum()))
    if members.size and (members.min() < 0 or members.max() >= classes):
        wrong = members[(members < 0) | (members >= classes)][0]
        raise DataError(f"label {wrong} is no class: there are {classes}, from 0 to {classes - 1}")
    targets = np.zeros((len(labels), classes), dtype=np.bool_)
    targets[np.repeat(np.arange(len(labels)), lengths), members] = True
    return targets


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    """Quotient, 0 where the denominator is 0."""
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator != 0)


def _ranking(penalties: Floats) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The order of ascending ``penalties`` [N], and where in it each group of equal ones starts."""
    order = np.argsort(penalties, kind="stable")
    ranked = penalties[order]
    starts = np.flatnonzero(np.concatenate([[True], ranked[1:] != ranked[:-1]]))
    return order, starts


def _average_precision(scores: Floats, targets: Bools, weights: Floats) -> Floats:
    """[R]: average precision of one class. Only groups of equal scores that hold a positive add to it."""
    order, starts = _ranking(-scores)
    hits = targets[order]
    if not hits.any():
        return np.zeros(len(weights))
    ends = np.append(starts[1:], len(order))
    group = np.repeat(np.arange(len(starts)), ends - starts)
    with_hits = np.unique(group[hits])  # [G]
    ranked = weights.T[order[: ends[with_hits[-1]]]]  # what ranks below the last positive does not matter
    # Everything up to the end of each such group, as sums over the stretches between their ends.
    seen = np.add.reduceat(ranked, np.concatenate([[0], ends[with_hits[:-1]]]), axis=0).cumsum(axis=0)  # [G, R]
    firsts = np.searchsorted(group[hits], with_hits)
    found = np.add.reduceat(weights.T[order[hits]], firsts, axis=0)  # [G, R]: positives in the group
    precision = _ratio(found.cumsum(axis=0), seen)
    area = np.einsum("gr,gr->r", found.astype(np.float64), precision.astype(np.float64))
    return _ratio(area, found.sum(axis=0, dtype=np.float64))
