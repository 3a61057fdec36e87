"""What each sample contributes to the metrics of one model's cells, and how far it lies from the others of its case.

A missing table decides by the ids of the samples alone, and puts the same number of them in each case whatever the
samples are. The sampling error of a cell is therefore that within its cases: the difference between the means of the
cases adds nothing (stratified sampling: Cochran, Sampling Techniques, 1977, chapter 5). Samples that lack an input by
nature, and those of a table from a file, are one group, since who is in which case may depend on the sample.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from mmrobust.cases import Case
from mmrobust.errors import DataError, UsageError
from mmrobust.runtime.threads import on_every_core
from mmrobust.scenarios.draws import CellTables
from mmrobust.scenarios.missing_tables import is_given
from mmrobust.scoring import Floats
from mmrobust.scoring.calibration import calibration_pseudo_values, confidences_in
from mmrobust.scoring.metrics import RANKED, metrics_of, numbers_of
from mmrobust.scoring.predictions import Predictions
from mmrobust.scoring.pseudo_values import OF_COUNTS, Decisions, PseudoValues, Ranking, share_of_some, worst_class
from mmrobust.scoring.regression import OF_NUMBERS
from mmrobust.storage.tasks import REGRESSION

FIGURES = ("ece", "worst_class", "flip_rate")
"""Figures of a cell beside the metrics of the task, all in [0, 1]. ``ece``: the expected calibration error
(:mod:`mmrobust.scoring.calibration`), less is better. ``worst_class``: the lowest F1 of a class, more is better.
``flip_rate``: of the samples that lack an input they have by nature, the share whose prediction (multi-label: any of
whose predicted classes) is another than with it, less is better; not defined where none lacks one."""
_KEYS_AT_ONCE = 16


@dataclass(frozen=True)
class Contributions:
    """A figure of N samples in one cell, or a sum of such figures."""

    value: float
    """NaN where it is not defined."""
    centre: float
    """The value, corrected for its bias."""
    deviations: Floats
    """[N]: by how much each sample's pseudo-value differs from the mean of its case."""


@dataclass(frozen=True)
class CellContributions:
    """Computes the contributions to metrics in the cells of one model.

    Raises:
        DataError: a prediction that a cell needs is missing.
    """

    predictions: Predictions
    tables: CellTables
    _predicted: dict[str, npt.NDArray[np.generic]] = field(default_factory=dict, repr=False)
    """Prompting → for each case, the predicted class [cases, N]; multi-label: whether each is [cases, N, C]."""
    _rankings: dict[str, list[Ranking]] = field(default_factory=dict, repr=False)
    """Prompting → for each class of which the score counts, the ranking of all samples in all cases."""

    def __post_init__(self) -> None:
        promptings = dict.fromkeys(prompting for _, prompting in self.tables.keys)
        for case, needed in self.tables.positions().items():
            for prompting in promptings:
                self.predictions.require(needed, case, prompting)

    def of_keys(self, keys: Sequence[int], metrics: Sequence[str]) -> Iterator[list[Contributions]]:
        """For each of ``keys`` of the tables, the contributions to each of ``metrics``; computed on every core.

        Args:
            keys: their indices.
            metrics: names of metrics of the task, or of :data:`FIGURES`.

        Raises:
            UsageError: there is no such metric or figure, or it is one of classes, which a regression task has not.
        """
        if self.predictions.truth.task == REGRESSION and (figures := [name for name in metrics if name in FIGURES]):
            raise UsageError(f"{figures[0]} is a figure of classes, and a {REGRESSION} task has none")
        metrics_of(self.predictions.truth.task, [name for name in metrics if name not in FIGURES])
        for key in keys:  # what the keys share is made before they are computed side by side
            self._prepare(self.predictions.prompting(self.tables.keys[key][1]), metrics)
        for start in range(0, len(keys), _KEYS_AT_ONCE):  # so that few are in memory at a time
            yield from on_every_core(lambda key: self._of_key(key, metrics), keys[start : start + _KEYS_AT_ONCE])

    def _prepare(self, prompting: str, metrics: Sequence[str]) -> None:
        truth = self.predictions.truth
        counts = prompting not in self._predicted and not {*OF_COUNTS, *FIGURES}.isdisjoint(metrics)
        ranks = prompting not in self._rankings and not RANKED.keys().isdisjoint(metrics)
        logits = [self.predictions.get(case, prompting) for case in self.tables.cases] if counts or ranks else []
        if counts:
            several = truth.task == "multi-label"
            self._predicted[prompting] = np.stack(
                [self.predictions.predicted(z) if several else z.argmax(axis=1) for z in logits]
            )
        if ranks:
            # In a binary task by the difference of the logits: the softmax is a monotone function, but saturates.
            binary = truth.task == "binary"
            columns = (1,) if binary else range(truth.classes)

            def rank(column: int) -> Ranking:
                scores = [z[:, 1].astype(np.float64) - z[:, 0] if binary else z[:, column] for z in logits]
                return Ranking.of(scores, truth.targets[:, column])

            self._rankings[prompting] = list(on_every_core(rank, columns))

    def _of_key(self, key: int, metrics: Sequence[str]) -> list[Contributions]:
        number, prompting = self.tables.keys[key]
        table, prompting = self.tables.tables[number], self.predictions.prompting(prompting)
        groups = table if key in self._drawn else np.zeros_like(table)
        decisions = self._decisions(table, prompting) if prompting in self._predicted else None
        made = []
        for name in metrics:
            if name in OF_NUMBERS:
                logits = self.predictions.of_table(self.tables, number, prompting)
                found = OF_NUMBERS[name](*numbers_of(logits, self.predictions.truth.targets))
            elif name in RANKED:
                found = _RANKED[name](self._rankings[prompting], table)
            elif name == "ece":
                found = self._calibration(number, prompting)
            elif name == "flip_rate":
                found = self._flips(table, prompting)
            else:
                assert decisions is not None  # prepared
                found = worst_class(decisions) if name == "worst_class" else OF_COUNTS[name](decisions)
            centre = float(found.of_sample.mean())
            made.append(Contributions(found.value, centre, deviations_within(groups, found.of_sample)))
        return made

    @functools.cached_property
    def _drawn(self) -> frozenset[int]:
        """The keys whose cases were drawn, for samples that are all complete by nature."""
        keys = zip(self.tables.cells, self.tables.of_cell.tolist(), strict=True)
        given = {key for cell, key in keys if is_given(cell.scenario)}
        natural = self.predictions.truth.natural is not None
        return frozenset() if natural else frozenset(range(len(self.tables.keys))) - given

    def _decisions(self, table: npt.NDArray[np.uint8], prompting: str) -> Decisions:
        truth = self.predictions.truth
        predicted = self._predicted[prompting][table, np.arange(len(table))]
        actual = truth.targets if truth.task == "multi-label" else self._labels
        return Decisions(predicted, actual, truth.classes, self.predictions.settings.f1_absent == "skip")

    def _calibration(self, number: int, prompting: str) -> PseudoValues:
        truth = self.predictions.truth
        logits = self.predictions.of_table(self.tables, number, prompting)
        return calibration_pseudo_values(*confidences_in(logits, truth.targets, truth.task), len(truth.ids))

    def _flips(self, table: npt.NDArray[np.uint8], prompting: str) -> PseudoValues:
        predicted, whole = self._predicted[prompting], self._whole(prompting)
        of_samples = np.arange(len(table))
        differs = predicted[table, of_samples] != whole
        flipped = differs if differs.ndim == 1 else differs.any(axis=1)
        names = np.asarray(self.tables.cases)[table]
        return share_of_some(flipped.astype(np.float64), names != self._natural)

    @functools.cached_property
    def _natural(self) -> npt.NDArray[np.str_]:
        """[N]: the name of the case that each sample is in by nature."""
        truth = self.predictions.truth
        natural = truth.natural or (Case.complete(truth.modalities),) * len(truth.ids)
        return np.asarray([case.name for case in natural])

    def _whole(self, prompting: str) -> npt.NDArray[np.generic]:
        """What is predicted for each sample in the case that it is in by nature: [N], or [N, C]."""
        truth = self.predictions.truth
        logits = np.empty((len(truth.ids), truth.classes), dtype=np.float32)
        for name in np.unique(self._natural).tolist():
            rows = self._natural == name
            logits[rows] = self.predictions.get(name, prompting)[rows]
        if np.isnan(logits).any():
            raise DataError(f"predictions of some complete samples under prompting '{prompting}' are missing")
        predicted = self.predictions.predicted(logits) if truth.task == "multi-label" else logits.argmax(axis=1)
        return np.asarray(predicted)

    @functools.cached_property
    def _labels(self) -> npt.NDArray[np.int64]:
        return np.asarray(self.predictions.truth.targets.argmax(axis=1))


def _mean_average_precision(rankings: Sequence[Ranking], table: npt.NDArray[np.uint8]) -> PseudoValues:
    """Macro mean of the classes' average precision; a class without a positive sample counts 0."""
    value, of_sample = 0.0, np.zeros(len(table))
    for ranking in rankings:
        value += ranking.of_cell(table).add_average_precision(of_sample)
    return PseudoValues(value / len(rankings), of_sample / len(rankings))


def _auroc(rankings: Sequence[Ranking], table: npt.NDArray[np.uint8]) -> PseudoValues:
    return rankings[0].of_cell(table).auroc()


_RANKED = {"map": _mean_average_precision, "auroc": _auroc}


def deviations_within(groups: npt.NDArray[np.uint8], pseudo: Floats) -> Floats:
    """By how much each pseudo-value [N] differs from the mean of its group.

    They are stretched by √(n / (n − 1)) in a group of n, so that the sum of their squares is unbiased. A group of one
    is measured from the mean of all.
    """
    sizes = np.bincount(groups)
    means = np.bincount(groups, pseudo) / np.maximum(sizes, 1)
    means[sizes == 1] = pseudo.mean()
    stretch = np.sqrt(sizes / np.maximum(sizes - 1, 1))
    return np.asarray((pseudo - means[groups]) * stretch[groups])
