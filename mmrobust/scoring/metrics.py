"""Metrics over weighted samples, so that the value and its bootstrap are one computation.

Every metric is a function of :class:`Outcomes` (the logits of N samples, their truth, and R rows of sample weights)
and gives R values. Weights of one give the metric itself; the counts of R bootstrap resamples give its R bootstrap
values. Nothing here loops over samples or resamples.

Adding a metric: one function, one line in ``_METRICS``, and its name in ``mmrobust/storage/tasks.py`` for each task
that it fits. What a metric of a ranking costs is shared by the cells of a grid: those of :data:`RANKED` are computed
for many cells at once.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmrobust.errors import DataError, NotComparableError, UsageError, unknown_name
from mmrobust.runtime.progress import Advance
from mmrobust.scoring import Bools, Floats, Targets, ranking, regression
from mmrobust.scoring.ranking import RankedCells
from mmrobust.storage.tasks import TASK_METRICS

ZERO, SKIP = ABSENT = ("zero", "skip")
"""How a class that neither occurs nor is predicted counts in a macro mean."""


@dataclass(frozen=True)
class MetricSettings:
    """The choices that the definitions of the metrics leave open.

    Raises:
        UsageError: the threshold is not a probability, or ``f1_absent`` is not in :data:`ABSENT`.
    """

    threshold: float = 0.5
    """A class of a multi-label task is predicted where the sigmoid of its logit is not below this."""
    f1_absent: str = ZERO
    """``zero``: an absent class counts 0 in macro F1 (scikit-learn). ``skip``: it is left out (torchmetrics 0.9)."""

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1:
            raise UsageError(f"--threshold {self.threshold:g}: give a probability between 0 and 1")
        if self.f1_absent not in ABSENT:
            raise unknown_name("--f1-absent", self.f1_absent, ABSENT)


def metric_settings(provenance: Mapping[str, Any]) -> MetricSettings:
    """The metric settings of results, from their provenance; the defaults where it does not record them."""
    recorded = provenance.get("scoring") or {}
    return MetricSettings(**{key: recorded[key] for key in ("threshold", "f1_absent") if key in recorded})


def refuse_other_settings(settings: MetricSettings, other: MetricSettings, whose: str, others: str) -> None:
    """Raise ``NotComparableError`` unless two results, ``whose`` and ``others``, have the same metric settings."""
    for field, name in (("threshold", "the threshold"), ("f1_absent", "the treatment of absent classes")):
        own, theirs = getattr(settings, field), getattr(other, field)
        if own != theirs:
            raise NotComparableError(
                f"{name} differs: {whose} {own}, {others} {theirs}; score both in the same way (mmrobust score)"
            )


@dataclass(frozen=True)
class WeightedTruth:
    """The true labels of N samples with R rows of weights. The cells of one split share it."""

    targets: Targets
    """[N, C]: whether the sample belongs to the class; in a regression task, its number [N, 1]."""
    weights: Floats
    """[R, N], not negative: how often a resample drew the sample. Float32 sums are exact up to 2**24 samples. Fastest
    where the R weights of a sample are adjacent in memory (``weights.T`` is C-contiguous)."""

    @functools.cached_property
    def actual(self) -> Floats:
        """[R, C]: total weight of the samples of each class."""
        return self.weights @ self.targets.astype(self.weights.dtype)

    @functools.cached_property
    def total(self) -> Floats:
        """[R]: total weight of all samples."""
        return np.asarray(self.weights.sum(axis=1, dtype=np.float64))


@dataclass(frozen=True)
class Tally:
    """The decisions about each sample, and their weighted counts."""

    decisions: Bools
    """[N, 2 C]: whether each class is predicted and true, then whether it is predicted."""
    sums: Floats
    """[R, 2 C]: the total weight of each column."""


@dataclass(frozen=True)
class Outcomes:
    """The logits of N samples with their truth: what a metric is computed from."""

    logits: Floats
    """[N, C], finite; in a regression task, the predicted numbers [N, 1]."""
    truth: WeightedTruth
    several: bool
    """Whether a sample may belong to several classes (multi-label)."""
    settings: MetricSettings = MetricSettings()
    similar: Tally | None = None
    """A tally over the same truth, probably with many of the same decisions: only what differs is counted again.

    Only for weights that are whole numbers, whose sums are exact in any order.
    """

    @functools.cached_property
    def predicted(self) -> Bools:
        """[N, C]: whether the class is predicted.

        Multi-label: sigmoid(logit) ≥ threshold t, that is logit ≥ log(t / (1 − t)). Otherwise the class with the
        largest logit; of equal ones, the first.
        """
        if self.several:
            threshold = self.settings.threshold
            return self.logits >= np.float32(np.log(threshold / (1 - threshold)))
        return np.asarray(self.logits.argmax(axis=1)[:, None] == np.arange(self.logits.shape[1]))

    @functools.cached_property
    def counts(self) -> tuple[Floats, Floats, Floats]:
        """Three [R, C]: weight of the true positives, the predicted members and the actual members of each class."""
        classes, sums = self.logits.shape[1], self.tally.sums
        return sums[:, :classes], sums[:, classes:], self.truth.actual

    @functools.cached_property
    def tally(self) -> Tally:
        """The decisions and their weights: counted in one product, or by the difference from ``similar``."""
        weights = self.truth.weights
        decisions = np.concatenate([self.predicted & self.truth.targets, self.predicted], axis=1)
        if self.similar is not None:
            changed = np.flatnonzero((decisions != self.similar.decisions).any(axis=1))
            if len(changed) < len(decisions) / 2:
                change = decisions[changed].astype(weights.dtype) - self.similar.decisions[changed]
                return Tally(decisions, self.similar.sums + weights.T[changed].T @ change)
        return Tally(decisions, weights @ decisions.astype(weights.dtype))

    @functools.cached_property
    def class_f1(self) -> Floats:
        """[R, C]: F1 of each class, 2 TP / (predicted + actual); 0 where it neither occurs nor is predicted."""
        hits, predicted, actual = self.counts
        return _ratio(2 * hits, predicted + actual)


Metric = Callable[[Outcomes], Floats]
"""A metric: [R] values in its range of :data:`mmrobust.storage.tasks.RANGES`; NaN where it is not defined."""


def accuracy(outcomes: Outcomes) -> Floats:
    """Share of the samples whose predicted class is correct."""
    hits, _, _ = outcomes.counts
    return _ratio(hits.sum(axis=1, dtype=np.float64), outcomes.truth.total)


def macro_f1(outcomes: Outcomes) -> Floats:
    """Mean of the classes' F1. A class that neither occurs nor is predicted counts 0, or is skipped.

    Counting it 0 is scikit-learn's ``f1_score(average="macro", labels=range(C), zero_division=0)``: every class of the
    data set counts, so that all cells and resamples average over the same classes. Skipping it is what torchmetrics 0.9
    does, which the papers used.
    """
    if outcomes.settings.f1_absent == SKIP:
        _, predicted, actual = outcomes.counts
        classes = (predicted + actual > 0).sum(axis=1, dtype=np.float64)
        return _ratio(outcomes.class_f1.sum(axis=1, dtype=np.float64), classes)
    return np.asarray(outcomes.class_f1.mean(axis=1, dtype=np.float64))


def micro_f1(outcomes: Outcomes) -> Floats:
    """F1 of all (sample, class) decisions together: 2 ΣTP / (Σpredicted + Σactual)."""
    hits, predicted, actual = (counts.sum(axis=1, dtype=np.float64) for counts in outcomes.counts)
    return _ratio(2 * hits, predicted + actual)


def weighted_f1(outcomes: Outcomes) -> Floats:
    """Mean of the classes' F1, weighted by the true number of samples of each; 0 where there are none."""
    actual = outcomes.truth.actual.astype(np.float64)
    return _ratio((outcomes.class_f1 * actual).sum(axis=1), actual.sum(axis=1))


def samples_f1(outcomes: Outcomes) -> Floats:
    """Mean over samples of the F1 of predicted against true classes; a sample with neither counts 0."""
    predicted, targets = outcomes.predicted, outcomes.truth.targets
    hits = (predicted & targets).sum(axis=1)
    f1 = _ratio(2.0 * hits, (predicted.sum(axis=1) + targets.sum(axis=1)).astype(np.float64))
    weights = outcomes.truth.weights
    return _ratio((weights @ f1.astype(weights.dtype)).astype(np.float64), outcomes.truth.total)


RANKED: dict[str, Callable[[RankedCells, Advance | None], Floats]] = {
    "map": ranking.mean_average_precision,
    "auroc": ranking.auroc,
}
"""The metrics that are computed for many cells at once; each gives [T, R] values."""


def _of_one_cell(name: str) -> Metric:
    def ranked(outcomes: Outcomes) -> Floats:
        table = np.zeros((1, len(outcomes.logits)), dtype=np.uint8)
        cell = RankedCells((outcomes.logits,), table, outcomes.truth.targets, outcomes.truth.weights)
        return np.asarray(RANKED[name](cell, None)[0])

    return ranked


def _of_numbers(function: Callable[[Floats, Floats, Floats], Floats]) -> Metric:
    def metric(outcomes: Outcomes) -> Floats:
        return function(*numbers_of(outcomes.logits, outcomes.truth.targets), outcomes.truth.weights)

    return metric


def numbers_of(logits: Floats, targets: Targets) -> tuple[Floats, Floats]:
    """The predicted and the true numbers, each [N], of a regression task."""
    return logits[:, 0].astype(np.float64), targets[:, 0]


_METRICS: dict[str, Metric] = {
    "accuracy": accuracy,
    "macro_f1": macro_f1,
    "micro_f1": micro_f1,
    "weighted_f1": weighted_f1,
    "samples_f1": samples_f1,
    **{name: _of_one_cell(name) for name in RANKED},
    "mae": _of_numbers(regression.mae),
    "rmse": _of_numbers(regression.rmse),
    "pearson": _of_numbers(regression.pearson),
}
METRICS = {task: {name: _METRICS[name] for name in names} for task, names in TASK_METRICS.items()}
"""Task → name → metric. All metrics of the task are computed unless some are named."""


def metrics_of(task: str, names: Sequence[str] | None = None) -> dict[str, Metric]:
    """The metrics of a ``task`` with these ``names``; ``None``: all of them.

    Raises:
        UsageError: there is no such task, or it has no such metric.
    """
    if task not in METRICS:
        raise unknown_name("task", task, METRICS)
    known = METRICS[task]
    for name in names or ():
        if name not in known:
            raise unknown_name(f"metric of a {task} task", name, known)
    return {name: known[name] for name in (known if names is None else names)}


def target_matrix(labels: Sequence[Sequence[int]], classes: int) -> Bools:
    """[N, C]: whether each sample belongs to each class, from the list of classes of each sample.

    Raises:
        DataError: a label is out of range.
    """
    lengths = np.fromiter(map(len, labels), dtype=np.int64, count=len(labels))
    members = np.fromiter((c for label in labels for c in label), dtype=np.int64, count=int(lengths.sum()))
    if members.size and (members.min() < 0 or members.max() >= classes):
        wrong = members[(members < 0) | (members >= classes)][0]
        raise DataError(f"label {wrong} is out of range: there are {classes} classes, 0 to {classes - 1}")
    targets = np.zeros((len(labels), classes), dtype=np.bool_)
    targets[np.repeat(np.arange(len(labels)), lengths), members] = True
    return targets


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    """Quotient, 0 where the denominator is 0."""
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator != 0)
