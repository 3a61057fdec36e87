"""The truth about the samples of a split, and the types of predictions of them."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mmrobust.cases import Case
from mmrobust.errors import DataError
from mmrobust.scenarios.draws import CellTables, Traits, draw_tables
from mmrobust.scenarios.grid import Cell, Grid
from mmrobust.scenarios.missing_tables import GivenTable
from mmrobust.scoring import Targets
from mmrobust.scoring.metrics import target_matrix
from mmrobust.storage.tasks import REGRESSION, Label

Key = tuple[str, str]
"""(case name, prompting)."""
Plan = Mapping[Key, npt.NDArray[np.int64]]
"""(case, prompting) → positions of the samples to predict, ascending."""
PredictedRows = Mapping[Key, tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]]
"""(case, prompting) → positions [n] of samples, and their logits [n, C]."""
Logits = Mapping[Key, npt.NDArray[np.float32]]
"""(case, prompting) → logits [N, C] in the split's order; a row is NaN where the sample was not predicted."""

DRAWN_AT_ONCE = 4
"""How many sets of missing tables are kept for whoever asks for them again: one takes N bytes a table."""


@dataclass(frozen=True)
class SplitTruth:
    """What scoring needs to know about the samples of a split: everything but their media.

    Raises:
        DataError: there is no sample, the number of labels, natural cases or groups is not that of the samples, or a
            single-label sample does not have exactly one class.
    """

    ids: tuple[str, ...]
    """Sample ids, in the split's order."""
    labels: tuple[Label, ...]
    """The class of each sample; in a multi-label task, any number of classes; in a regression task, the number."""
    modalities: tuple[str, ...]
    """The modalities of the model, which scenarios refer to."""
    classes: int
    """How many; 1 in a regression task."""
    task: str
    """One of :data:`mmrobust.storage.tasks.TASKS`."""
    natural: tuple[Case, ...] | None = None
    """The natural case of each sample, before any scenario; ``None`` where all are complete."""
    tables: tuple[GivenTable, ...] = ()
    """Missing tables from files, which no scenario can draw."""
    groups: tuple[str, ...] | None = None
    """The group of each sample; ``None``: each is its own."""
    names: tuple[str, ...] = ()
    """The names of the classes, or of the number, where scenarios depend on them."""

    def __post_init__(self) -> None:
        if not self.ids:
            raise DataError("there is no sample to score")
        for what, values in (("labels", self.labels), ("natural cases", self.natural), ("groups", self.groups)):
            if values is not None and len(values) != len(self.ids):
                raise DataError(f"{len(self.ids)} samples, but {len(values)} {what}")
        if self.task != "multi-label":
            for sample, label in zip(self.ids, self.labels, strict=True):
                if len(label) != 1:
                    raise DataError(f"sample '{sample}' has {len(label)} classes; a {self.task} task needs exactly one")

    @functools.cached_property
    def targets(self) -> Targets:
        """[N, C]: whether each sample belongs to each class; in a regression task, the numbers [N, 1]."""
        if self.task == REGRESSION:
            return np.asarray(self.labels, dtype=np.float64)
        return target_matrix(self.labels, self.classes)

    def draw(self, cells: Sequence[Cell], given: Iterable[GivenTable] = ()) -> CellTables:
        """Draw the missing tables of ``cells``; ``given`` are further ones from files.

        See :func:`mmrobust.scenarios.draws.draw_tables`.
        """
        traits = Traits(self.groups, None if self.task == REGRESSION else self.labels, self.names)
        files = (*self.tables, *given)
        if files:
            return draw_tables(cells, self.ids, self.modalities, self.natural, files, traits)
        if (wanted := tuple(cells)) not in self._drawn:  # several analyses in a row ask for the same
            if len(self._drawn) == DRAWN_AT_ONCE:
                del self._drawn[next(iter(self._drawn))]
            self._drawn[wanted] = draw_tables(wanted, self.ids, self.modalities, self.natural, (), traits)
        return self._drawn[wanted]

    @functools.cached_property
    def _drawn(self) -> dict[tuple[Cell, ...], CellTables]:
        """Cells → their missing tables, those drawn last."""
        return {}

    def draw_grid(self, grid: Grid) -> CellTables:
        """Draw the missing tables of every cell of ``grid``, sorted."""
        return self.draw(sorted(grid.cells()), grid.tables)
