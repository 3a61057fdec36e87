"""The missing tables of a choice of cells, every different one held once: what cells are scored from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mmrobust.errors import DataError
from mmrobust.scenarios.draws import ScenarioDraw
from mmrobust.scenarios.grid import Cell
from mmrobust.scenarios.missing_tables import GivenDraw, GivenTable
from mmrobust.scenarios.scenario import Scenario
from mmrobust.scoring.truth import Logits, SplitTruth


@dataclass(frozen=True)
class CellTables:
    """Which case each sample has in each of K cells."""

    cells: tuple[Cell, ...]
    cases: tuple[str, ...]
    tables: tuple[npt.NDArray[np.uint8], ...]
    """The different tables: for each sample the index of its case [N]."""
    keys: tuple[tuple[int, str], ...]
    """The different (table, prompting): what is scored once."""
    of_cell: npt.NDArray[np.int64]
    """[K]: which of the ``keys`` each cell is."""
    affected: npt.NDArray[np.int64]
    """[K]: how many samples the scenario of each cell affects."""

    def chosen(self, logits: Logits, key: int) -> npt.NDArray[np.float32]:
        """The logits [N, C] of each sample in the case that a key gives it.

        Raises:
            DataError: a prediction that it needs is not there.
        """
        number, prompting = self.keys[key]
        chosen = self.choose(logits, number, prompting)
        if np.isnan(chosen).any():
            raise DataError(f"there is not a prediction of every sample under prompting '{prompting}'")
        return chosen

    def choose(self, logits: Logits, number: int, prompting: str) -> npt.NDArray[np.float32]:
        """The logits [N, C] of each sample in the case that a table gives it; NaN where a sample was not predicted.

        Raises:
            DataError: nothing was predicted in one of its cases.
        """
        table = self.tables[number]
        rows = []
        for case, name in enumerate(self.cases):
            where = table == case
            if where.any():
                if (name, prompting) not in logits:
                    raise DataError(f"there is no prediction in case '{name}' under prompting '{prompting}'")
                rows.append((where, logits[name, prompting]))
        chosen = np.empty_like(rows[0][1])
        for where, values in rows:
            chosen[where] = values[where]
        return chosen


def cell_tables(truth: SplitTruth, cells: Sequence[Cell], given: Sequence[GivenTable] = ()) -> CellTables:
    """The missing tables of ``cells`` over the samples of a split; who is missing is drawn once per scenario and seed.

    Args:
        truth: the samples, and the missing tables that came with them.
        cells: what is asked.
        given: further missing tables that no scenario can draw.

    Raises:
        UsageError: a scenario that does not fit the modalities.
    """
    cases: dict[str, int] = {}
    tables: list[npt.NDArray[np.uint8]] = []
    index: dict[bytes, int] = {}
    of_draw: dict[tuple[str, float, int], tuple[int, int]] = {}
    for scenario, seed, rates, draw in _draws(truth, cells, given):
        for rate in rates:
            names = draw.table(rate)
            table = np.empty(len(truth.ids), dtype=np.uint8)
            for case in sorted(set(names)):
                table[names == case] = cases.setdefault(case, len(cases))
            number = index.setdefault(table.tobytes(), len(tables))
            if number == len(tables):
                tables.append(table)
            of_draw[scenario, rate, seed] = (number, len(draw.affected(rate)))
    drawn = [of_draw[cell.scenario, cell.missing_rate, cell.seed] for cell in cells]
    keys: dict[tuple[int, str], int] = {}
    wanted = [(number, cell.prompting) for (number, _), cell in zip(drawn, cells, strict=True)]
    of_cell = np.asarray([keys.setdefault(key, len(keys)) for key in wanted], dtype=np.int64)
    affected = np.asarray([count for _, count in drawn], dtype=np.int64)
    return CellTables(tuple(cells), tuple(cases), tuple(tables), tuple(keys), of_cell, affected)


def _draws(
    truth: SplitTruth, cells: Sequence[Cell], given: Sequence[GivenTable]
) -> Iterator[tuple[str, int, list[float], ScenarioDraw | GivenDraw]]:
    """(scenario, seed, rates, draw); rates ascending, so that tables beside each other differ least."""
    known = {table.name: table for table in (*truth.tables, *given)}
    rates: dict[tuple[str, int], set[float]] = {}
    for cell in cells:
        rates.setdefault((cell.scenario, cell.seed), set()).add(cell.missing_rate)
    for (name, seed), found in rates.items():
        if name in known:
            yield name, seed, sorted(found), known[name].over(truth.ids)
        else:
            scenario = Scenario.parse(name, truth.modalities)
            yield name, seed, sorted(found), ScenarioDraw(truth.ids, scenario, seed, truth.natural)
