"""The missing tables of the cells of a grid, each drawn once and each distinct one stored once.

Both halves of an evaluation use the same tables: the plan, to see which samples must be predicted in which case, and
the join, to select the prediction of each sample.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mmrobust.cases import Case
from mmrobust.scenarios.draws import ScenarioDraw
from mmrobust.scenarios.grid import Cell
from mmrobust.scenarios.missing_tables import GivenDraw, GivenTable
from mmrobust.scenarios.scenario import Scenario


@dataclass(frozen=True)
class CellTables:
    """The case of each of N samples in each of K cells."""

    cells: tuple[Cell, ...]
    cases: tuple[str, ...]
    tables: tuple[npt.NDArray[np.uint8], ...]
    """The distinct tables: the index in ``cases`` of each sample's case [N]."""
    keys: tuple[tuple[int, str], ...]
    """The distinct (table, prompting); cells with the same key have the same value."""
    of_cell: npt.NDArray[np.int64]
    """[K]: the index in ``keys`` of each cell."""
    affected: npt.NDArray[np.int64]
    """[K]: the number of samples that the scenario of each cell affects."""

    def positions(self) -> dict[str, npt.NDArray[np.int64]]:
        """Case → positions, ascending, of the samples that are in it in any cell."""
        needed = {case: np.zeros(len(self.tables[0]), dtype=np.bool_) for case in self.cases}
        for table in self.tables:
            for number in np.flatnonzero(np.bincount(table)):
                needed[self.cases[number]] |= table == number
        return {case: np.flatnonzero(rows) for case, rows in needed.items()}


def draw_tables(
    cells: Sequence[Cell],
    sample_ids: Sequence[str],
    modalities: Sequence[str],
    natural: Sequence[Case] | None = None,
    given: Iterable[GivenTable] = (),
) -> CellTables:
    """Draw the missing tables of ``cells``; samples are ranked once per scenario and seed.

    Args:
        cells: the cells.
        sample_ids: ids of the samples, in the split's order.
        modalities: of the model, which scenarios refer to.
        natural: the natural case of each sample; ``None`` where all are complete.
        given: missing tables from files, which no scenario can draw.

    Raises:
        UsageError: a scenario does not fit the modalities.
    """
    from_files = {table.name: table for table in given}
    rates: dict[tuple[str, int], set[float]] = {}
    for cell in cells:
        rates.setdefault((cell.scenario, cell.seed), set()).add(cell.missing_rate)
    cases: dict[str, int] = {}
    tables: list[npt.NDArray[np.uint8]] = []
    index: dict[bytes, int] = {}
    drawn: dict[tuple[str, float, int], tuple[int, int]] = {}
    for (scenario, seed), of_draw in rates.items():
        draw: ScenarioDraw | GivenDraw
        if scenario in from_files:
            draw = from_files[scenario].over(sample_ids)
        else:
            draw = ScenarioDraw(sample_ids, Scenario.parse(scenario, modalities), seed, natural)
        for rate in sorted(of_draw):  # ascending, so that neighbouring tables differ least
            names = draw.table(rate)
            table = np.empty(len(sample_ids), dtype=np.uint8)
            for case in sorted(set(names)):
                table[names == case] = cases.setdefault(case, len(cases))
            number = index.setdefault(table.tobytes(), len(tables))
            if number == len(tables):
                tables.append(table)
            drawn[scenario, rate, seed] = (number, len(draw.affected(rate)))
    of_cells = [drawn[cell.scenario, cell.missing_rate, cell.seed] for cell in cells]
    keys: dict[tuple[int, str], int] = {}
    key_of_cell = [(number, cell.prompting) for (number, _), cell in zip(of_cells, cells, strict=True)]
    of_cell = np.asarray([keys.setdefault(key, len(keys)) for key in key_of_cell], dtype=np.int64)
    affected = np.asarray([count for _, count in of_cells], dtype=np.int64)
    return CellTables(tuple(cells), tuple(cases), tuple(tables), tuple(keys), of_cell, affected)
