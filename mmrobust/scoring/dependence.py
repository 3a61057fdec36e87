"""Missing not at random: how much of each class the scenarios that depend on labels or groups affect."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mmrobust.scenarios.draws import CellTables
from mmrobust.scoring.truth import SplitTruth
from mmrobust.storage.tasks import REGRESSION

Shares = dict[str, dict[str, dict[str, float]]]
"""Scenario → missing rate → class → share of its samples that are affected, from 0 to 1."""


def affected_shares(tables: CellTables, truth: SplitTruth) -> Shares:
    """The share of each class that is affected, mean over mask seeds, of the scenarios that depend on something.

    Classes without samples are left out. Empty where no scenario depends on anything.
    """
    dependent = [number for number, cell in enumerate(tables.cells) if "^" in cell.scenario]
    if not dependent or truth.task == REGRESSION:
        return {}
    place = {case: index for index, case in enumerate(tables.cases)}
    names = ["complete"] * len(truth.ids) if truth.natural is None else [case.name for case in truth.natural]
    before = np.asarray([place.get(name, -1) for name in names])
    of_class = {name: members for name, members in zip(truth.names, truth.targets.T, strict=True) if members.any()}
    seen: dict[tuple[str, float], dict[int, dict[str, float]]] = {}
    for number in dependent:
        cell, (table, _) = tables.cells[number], tables.keys[tables.of_cell[number]]
        affected = tables.tables[table] != before
        shares = {name: float(affected[members].mean()) for name, members in of_class.items()}
        seen.setdefault((cell.scenario, cell.missing_rate), {})[cell.seed] = shares
    found: Shares = {}
    for (scenario, rate), by_seed in sorted(seen.items()):
        means = {name: float(np.mean([shares[name] for shares in by_seed.values()])) for name in of_class}
        found.setdefault(scenario, {})[f"{rate:g}"] = means
    return found


def merged_shares(*parts: Mapping[str, Mapping[str, Mapping[str, float]]]) -> dict[str, Shares]:
    """What provenance records of several shares, the latest counting: nothing where there are none."""
    joined: Shares = {}
    for part in parts:
        for scenario, rates in part.items():
            joined.setdefault(scenario, {}).update({rate: dict(shares) for rate, shares in rates.items()})
    return {"affected_shares": joined} if joined else {}
