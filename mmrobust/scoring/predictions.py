"""Predictions in memory: the logits of one model on the samples of a split, in every case that was predicted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from mmrobust.cases import PROMPTINGS
from mmrobust.errors import DataError
from mmrobust.scenarios.draws import CellTables
from mmrobust.scenarios.grid import Cell
from mmrobust.scoring import Bools, Floats
from mmrobust.scoring.metrics import MetricSettings, Outcomes, Tally, WeightedTruth
from mmrobust.scoring.truth import Key, Logits, SplitTruth


@dataclass(frozen=True)
class Predictions:
    """The predictions of one model, with the truth of the samples and the metadata of the model."""

    truth: SplitTruth
    logits: Logits
    cells: tuple[Cell, ...] = ()
    """The cells of the results made from these predictions; empty where there are no results."""
    promptings: tuple[str, ...] = PROMPTINGS
    """The promptings that the model tells apart: one where its predictions do not depend on prompting."""
    settings: MetricSettings = field(default_factory=MetricSettings)
    """The metric settings of these results."""
    name: str = ""
    """The name under which the model was evaluated."""
    described: Mapping[str, Any] = field(default_factory=dict)
    """The model, as the provenance of results describes it."""
    dataset: Mapping[str, Any] = field(default_factory=dict)
    """The data, as the provenance of results describes them."""
    noise: Mapping[str, Any] | None = None
    """Profile and seed of the noise of the degraded cases; ``None`` where there are none."""

    @property
    def answered(self) -> tuple[str, ...]:
        """The promptings under which there are predictions."""
        predicted = {prompting for _, prompting in self.logits}
        return tuple(prompting for prompting in PROMPTINGS if self.prompting(prompting) in predicted)

    @property
    def keys(self) -> list[Key]:
        """Every (case, prompting) that :meth:`get` has predictions for, sorted."""
        cases = {case for case, _ in self.logits}
        return sorted((c, p) for c in cases for p in self.answered if (c, self.prompting(p)) in self.logits)

    def prompting(self, requested: str) -> str:
        """The prompting whose predictions stand for ``requested``."""
        return requested if requested in self.promptings else self.promptings[0]

    def get(self, case: str, prompting: str) -> npt.NDArray[np.float32]:
        """Logits [N, C] in ``case`` under ``prompting``; a row is NaN where the sample was not predicted.

        A model that does not depend on prompting gives every prompting the same predictions.

        Raises:
            DataError: nothing was predicted there.
        """
        logits = self.logits.get((case, self.prompting(prompting)))
        if logits is None:
            raise DataError(f"there is no prediction in case '{case}' under prompting '{prompting}'")
        return logits

    def chosen(self, tables: CellTables, key: int) -> npt.NDArray[np.float32]:
        """The logits [N, C] of the cells of a key: those of each sample in the case that the table assigns it.

        Raises:
            DataError: a prediction is missing.
        """
        number, prompting = tables.keys[key]
        logits = self.of_table(tables, number, prompting)
        _refuse_unpredicted(logits, prompting)
        return logits

    def require(self, rows: npt.NDArray[Any], case: str, prompting: str) -> None:
        """Raise unless there is a prediction of these samples in ``case`` under ``prompting``.

        Args:
            rows: whether each is meant [N], or their positions.
            case: name of the case.
            prompting: as for :meth:`get`.

        Raises:
            DataError: a prediction is missing.
        """
        _refuse_unpredicted(self.get(case, prompting), prompting, rows)

    def of_table(self, tables: CellTables, number: int, prompting: str) -> npt.NDArray[np.float32]:
        """The logits [N, C] of each sample in the case that a table assigns it; NaN where it was not predicted.

        Raises:
            DataError: nothing was predicted in one of its cases.
        """
        table = tables.tables[number]
        logits = np.empty((len(table), self.truth.classes), dtype=np.float32)
        for index in np.flatnonzero(np.bincount(table)):
            rows = table == index
            logits[rows] = self.get(tables.cases[index], prompting)[rows]
        return logits

    def outcomes(self, logits: Floats, weighted: WeightedTruth, similar: Tally | None = None) -> Outcomes:
        """What a metric takes: ``logits`` [N, C] with the truth. ``similar`` is that of :class:`Outcomes`."""
        return Outcomes(logits, weighted, self.truth.task == "multi-label", self.settings, similar)

    def predicted(self, logits: Floats) -> Bools:
        """[N, C]: whether each class is predicted."""
        unweighted = WeightedTruth(np.empty((0, self.truth.classes), dtype=np.bool_), np.empty((0, 0)))
        return self.outcomes(logits, unweighted).predicted

    def ordered_as(self, ids: Sequence[str]) -> Predictions:
        """The predictions with the samples in the order of ``ids``.

        Raises:
            DataError: they are of other samples.
        """
        if tuple(ids) == self.truth.ids:
            return self
        place = {sample: position for position, sample in enumerate(self.truth.ids)}
        absent = [sample for sample in ids if sample not in place]
        if absent or len(ids) != len(place):
            why = f"sample '{absent[0]}' is not among them" if absent else f"they are of {len(place)}, not {len(ids)}"
            raise DataError(f"the predictions are of other samples: {why}")
        order = [place[sample] for sample in ids]
        natural = self.truth.natural
        truth = replace(
            self.truth,
            ids=tuple(ids),
            labels=tuple(self.truth.labels[i] for i in order),
            natural=None if natural is None else tuple(natural[i] for i in order),
            groups=None if self.truth.groups is None else tuple(self.truth.groups[i] for i in order),
        )
        return replace(self, truth=truth, logits={key: values[order] for key, values in self.logits.items()})

    def aligned_with(self, other: Predictions) -> Predictions:
        """The predictions with the samples in the order of ``other``'s.

        Raises:
            DataError: they are of other samples, or disagree with ``other`` about them.
        """
        ordered = self.ordered_as(other.truth.ids)
        for what in ("labels", "natural", "groups", "task", "modalities"):
            if getattr(ordered.truth, what) != getattr(other.truth, what):
                of = f" of '{self.name}'" if self.name else ""
                raise DataError(f"the predictions{of} are not of the same samples: their {what} differ")
        return ordered


def _refuse_unpredicted(logits: Floats, prompting: str, rows: npt.NDArray[Any] | slice = slice(None)) -> None:
    # The largest of some numbers is NaN where one of them is: that needs no second matrix in memory.
    if np.isnan(logits.max(axis=1)[rows]).any():
        raise DataError(f"predictions of some samples under prompting '{prompting}' are missing")


class LogitMatrices:
    """(case, prompting) → logits [N, C], filled in row by row; NaN where nothing was predicted."""

    def __init__(self, samples: int, classes: int) -> None:
        self.samples, self.classes = samples, classes
        self.by_key: dict[Key, npt.NDArray[np.float32]] = {}

    def fill(self, rows: Iterable[tuple[Key, tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]]]) -> None:
        """Fill in some rows: the items of :data:`mmrobust.scoring.truth.PredictedRows`."""
        for key, (positions, values) in rows:
            if key not in self.by_key:
                self.by_key[key] = np.full((self.samples, self.classes), np.nan, dtype=np.float32)
            self.by_key[key][positions] = values
