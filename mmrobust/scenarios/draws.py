"""Drawing missing tables: a missing table is a pure function of (sample ids, scenario, rate, seed).

Samples are ranked by ``blake2b(f"{seed}/{scenario}/{sample_id}")`` and the first ⌊N·η⌋ are affected, so the table is
the same on every platform, and nested: a sample affected at 30 % is also affected at 70 %. Both halves of an evaluation
use the same tables (:class:`CellTables`): the plan, to see which samples must be predicted in which case, and the join,
to select the prediction of each sample.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from mmrobust.cases import Case
from mmrobust.scenarios.grid import Cell
from mmrobust.scenarios.missing_tables import GivenTable
from mmrobust.scenarios.scenario import Scenario


def affected_count(samples: int, rate: float) -> int:
    """⌊N·η⌋, exact: the rate is read as the decimal number it was written as (0.29 of 100 samples are 29)."""
    return int(samples * Fraction(repr(float(rate))))


def rank_samples(sample_ids: Sequence[str], scenario: str, seed: int) -> npt.NDArray[np.int64]:
    """Positions of the samples in the order in which ``scenario`` affects them under ``seed``."""
    digests = [hashlib.blake2b(f"{seed}/{scenario}/{sample_id}".encode()).digest() for sample_id in sample_ids]
    order = sorted(range(len(sample_ids)), key=lambda i: (digests[i], sample_ids[i]))
    return np.asarray(order, dtype=np.int64)


class ScenarioDraw:
    """One scenario and seed over the samples of a split: the missing table at every rate.

    Args:
        sample_ids: the ids of the split's samples, in the split's order.
        scenario: the rule.
        seed: the mask seed.
        natural: the natural case of each sample (null modalities); ``None`` where all are complete. A sample to which
            the scenario makes no difference is never affected, and does not count in N.
    """

    def __init__(
        self, sample_ids: Sequence[str], scenario: Scenario, seed: int, natural: Sequence[Case] | None = None
    ) -> None:
        modalities = scenario.cases[0].modalities
        complete = Case.complete(modalities)
        numbers = {complete: 0} if natural is None else {case: n for n, case in enumerate(dict.fromkeys(natural))}
        of = np.array([0] * len(sample_ids) if natural is None else [numbers[case] for case in natural], dtype=np.intp)
        outcomes = [[c.within(case) for c in scenario.cases] for case in numbers]
        loses = np.array([all(c not in (None, case) for c in outcomes[n]) for case, n in numbers.items()], dtype=bool)

        ranked = rank_samples(sample_ids, scenario.name, seed)
        self._order: npt.NDArray[np.int64] = ranked[loses[of[ranked]]]
        self._unaffected = np.asarray([case.name for case in numbers], dtype=object)[of]
        names = np.asarray([[case and case.name for case in cases] for cases in outcomes], dtype=object)
        self._affected = self._unaffected.copy()
        self._affected[self._order] = names[of[self._order], np.arange(len(self._order)) % len(scenario.cases)]

    def affected(self, rate: float) -> npt.NDArray[np.int64]:
        """Positions of the ⌊N·η⌋ affected samples, first-affected first."""
        return self._order[: affected_count(len(self._order), rate)]

    def table(self, rate: float) -> npt.NDArray[np.object_]:
        """The missing table: the case name of each sample [N], in the split's order."""
        table = self._unaffected.copy()
        affected = self.affected(rate)
        table[affected] = self._affected[affected]
        return table


def missing_table(
    sample_ids: Sequence[str], scenario: Scenario, rate: float, seed: int, natural: Sequence[Case] | None = None
) -> dict[str, str]:
    """The missing table of one (scenario, rate, seed), sample id → case name; see :class:`ScenarioDraw`."""
    return dict(zip(sample_ids, ScenarioDraw(sample_ids, scenario, seed, natural).table(rate), strict=True))


@dataclass(frozen=True)
class CellTables:
    """The case of each of N samples in each of K cells; each distinct table is stored once."""

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
        cells: of the grid.
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
        draw = None
        if scenario not in from_files:
            draw = ScenarioDraw(sample_ids, Scenario.parse(scenario, modalities), seed, natural)
        for rate in sorted(of_draw):  # ascending, so that neighbouring tables differ least
            if draw is None:
                names, count = from_files[scenario].over(sample_ids)
            else:
                names, count = draw.table(rate), len(draw.affected(rate))
            table = np.empty(len(sample_ids), dtype=np.uint8)
            for case in sorted(set(names)):
                table[names == case] = cases.setdefault(case, len(cases))
            number = index.setdefault(table.tobytes(), len(tables))
            if number == len(tables):
                tables.append(table)
            drawn[scenario, rate, seed] = (number, count)
    of_cells = [drawn[cell.scenario, cell.missing_rate, cell.seed] for cell in cells]
    key_of_cell = [(number, cell.prompting) for (number, _), cell in zip(of_cells, cells, strict=True)]
    keys = {key: place for place, key in enumerate(dict.fromkeys(key_of_cell))}
    of_cell = np.asarray([keys[key] for key in key_of_cell], dtype=np.int64)
    affected = np.asarray([count for _, count in of_cells], dtype=np.int64)
    return CellTables(tuple(cells), tuple(cases), tuple(tables), tuple(keys), of_cell, affected)
