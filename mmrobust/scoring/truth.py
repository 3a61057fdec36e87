"""What scoring knows of the samples of a split, and the form in which it takes predictions of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mmrobust.cases import Case
from mmrobust.errors import DataError
from mmrobust.scenarios.cell_tables import CellTables, draw_tables
from mmrobust.scenarios.grid import Cell, Grid
from mmrobust.scenarios.missing_tables import GivenTable

Key = tuple[str, str]
"""(case name, prompting)."""
Plan = Mapping[Key, npt.NDArray[np.int64]]
"""(case, prompting) → positions of the samples to predict, ascending."""
PredictedRows = Mapping[Key, tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]]
"""(case, prompting) → positions [n] of samples, and their logits [n, C]."""
Logits = Mapping[Key, npt.NDArray[np.float32]]
"""(case, prompting) → logits [N, C] in the split's order; a row is NaN where the sample was not predicted."""


@dataclass(frozen=True)
class SplitTruth:
    """What scoring has to know of the samples of a split: all but their media.

    Raises:
        DataError: another number of labels or natural cases than of samples, or no sample at all.
    """

    ids: tuple[str, ...]
    """Sample ids, in the split's order."""
    labels: tuple[tuple[int, ...], ...]
    """The class of each sample; the classes, maybe none, where the task is multi-label."""
    modalities: tuple[str, ...]
    """The modalities of the model: they decide what a scenario is."""
    classes: int
    task: str
    """``single-label``, ``multi-label`` or ``binary``."""
    natural: tuple[Case, ...] | None = None
    """The case that each sample is in by nature; ``None`` where all are complete."""
    tables: tuple[GivenTable, ...] = ()
    """The missing tables that were given, and that no scenario can draw."""

    def __post_init__(self) -> None:
        if not self.ids:
            raise DataError("there is no sample to score")
        for what, values in (("labels", self.labels), ("natural cases", self.natural)):
            if values is not None and len(values) != len(self.ids):
                raise DataError(f"{len(self.ids)} samples, but {len(values)} {what}")
        if self.task != "multi-label":
            for sample, label in zip(self.ids, self.labels, strict=True):
                if len(label) != 1:
                    raise DataError(f"sample '{sample}' has {len(label)} classes; a {self.task} task wants one")

    def draw(self, cells: Sequence[Cell], given: Iterable[GivenTable] = ()) -> CellTables:
        """The missing tables of ``cells`` over these samples: :func:`mmrobust.scenarios.cell_tables.draw_tables`.

        Args:
            cells: the cells.
            given: further missing tables from files.
        """
        return draw_tables(cells, self.ids, self.modalities, self.natural, (*self.tables, *given))

    def draw_grid(self, grid: Grid) -> CellTables:
        """The missing tables of every cell of ``grid``, sorted."""
        return self.draw(sorted(grid.cells()), grid.tables)
