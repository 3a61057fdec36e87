"""The missing tables behind the cells of a grid: each drawn once, and each different one stored once.

Both halves of an evaluation read the same tables: the plan takes from them which samples must be predicted in which
case, the join which prediction of a sample a cell takes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
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
    """Which case each of N samples is in, in each of K cells."""

    cells: tuple[Cell, ...]
    cases: tuple[str, ...]
    tables: tuple[npt.NDArray[np.uint8], ...]
    """The different tables: for each sample the index of its case [N]."""
    keys: tuple[tuple[int, str], ...]
    """The different (table, prompting): cells of the same key have the same value."""
    of_cell: npt.NDArray[np.int64]
    """[K]: which of the ``keys`` each cell is."""
    affected: npt.NDArray[np.int64]
    """[K]: how many samples the scenario of each cell affects."""

    def positions(self) -> dict[str, npt.NDArray[np.int64]]:
        """Case, in the order of ``cases`` → positions, ascending, of the samples that any table puts in it."""
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
        modalities: of the model: they decide what a scenario is.
        natural: the case of each sample before any scenario; ``None`` where all are complete.
        given: missing tables from files, which no scenario can draw.

    Raises:
        UsageError: a scenario that does not fit the modalities.
    """
    cases: dict[str, int] = {}
    tables: list[npt.NDArray[np.uint8]] = []
    index: dict[bytes, int] = {}
    drawn: dict[tuple[str, float, int], tuple[int, int]] = {}
    for scenario, seed, rates, draw in _draws(cells, sample_ids, modalities, natural, given):
        for rate in rates:
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
    wanted = [(number, cell.prompting) for (number, _), cell in zip(of_cells, cells, strict=True)]
    of_cell = np.asarray([keys.setdefault(key, len(keys)) for key in wanted], dtype=np.int64)
    affected = np.asarray([count for _, count in of_cells], dtype=np.int64)
    return CellTables(tuple(cells), tuple(cases), tuple(tables), tuple(keys), of_cell, affected)


def _draws(
    cells: Sequence[Cell],
    sample_ids: Sequence[str],
    modalities: Sequence[str],
    natural: Sequence[Case] | None,
    given: Iterable[GivenTable],
) -> Iterator[tuple[str, int, list[float], ScenarioDraw | GivenDraw]]:
    """(scenario, seed, rates, draw); rates ascending, so that neighbouring tables differ least."""
    from_files = {table.name: table for table in given}
    rates: dict[tuple[str, int], set[float]] = {}
    for cell in cells:
        rates.setdefault((cell.scenario, cell.seed), set()).add(cell.missing_rate)
    for (name, seed), found in rates.items():
        if name in from_files:
            yield name, seed, sorted(found), from_files[name].over(sample_ids)
        else:
            scenario = Scenario.parse(name, modalities)
            yield name, seed, sorted(found), ScenarioDraw(sample_ids, scenario, seed, natural)
