"""Which cells can be scored from predictions that another program made."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mmrobust.cases import Case
from mmrobust.errors import UsageError
from mmrobust.scenarios.draws import CellTables
from mmrobust.scenarios.grid import Cell, Grid
from mmrobust.scenarios.missing_tables import GivenTable, is_given, kept_table
from mmrobust.scenarios.scenario import Scenario, scenario_names
from mmrobust.scoring.predictions import Predictions
from mmrobust.scoring.truth import Plan


def predicted_promptings(predictions: Predictions) -> tuple[str, ...]:
    """The promptings that the model tells apart and has predictions under."""
    there = {prompting for _, prompting in predictions.logits}
    return tuple(prompting for prompting in predictions.promptings if prompting in there)


def wanted_cells(
    predictions: Predictions, grid: Grid, given: Sequence[GivenTable], earlier: Sequence[Cell], out: Path
) -> tuple[list[Cell], list[GivenTable]]:
    """The cells to score once all of their predictions are there, sorted, and the missing tables from files among them.

    They are those of the grid and of the earlier results, under the promptings that there are predictions for.
    """
    truth = predictions.truth
    scenarios = grid.scenarios
    if not scenarios and not given and not grid.points:
        scenarios = tuple(dict.fromkeys((*scenario_names(truth.modalities), *_scenarios_of_cases(predictions))))
    cells = set(dataclasses.replace(grid, scenarios=scenarios, tables=tuple(given)).cells()) | set(earlier)
    tables = {table.name: table for table in given}
    for scenario in {cell.scenario for cell in earlier if is_given(cell.scenario)} - tables.keys():
        tables[scenario] = kept_table(out, scenario, truth.ids, truth.modalities, truth.natural)
    chosen = (cell for cell in cells if predictions.prompting(cell.prompting) in predicted_promptings(predictions))
    return sorted(chosen), list(tables.values())


def _scenarios_of_cases(predictions: Predictions) -> list[str]:
    """The scenarios that put a complete sample into one of the cases that were predicted."""
    truth, found = predictions.truth, []
    for (name, _), logits in predictions.logits.items():
        case = Case.parse(name, truth.modalities)
        rows = np.flatnonzero(~np.isnan(logits[:, 0]))
        of_complete = truth.natural is None or any(truth.natural[row].name == "complete" for row in rows)
        try:
            if of_complete and Scenario.parse(name, truth.modalities).cases == (case,):
                found.append(name)
        except UsageError:  # only part of what a scenario can do to a sample, such as one modality of a sample of three
            continue
    return sorted(set(found))


def complete_cells(drawn: CellTables, lacking: Plan, predictions: Predictions) -> list[Cell]:
    """The cells that lack no prediction."""
    number = {case: index for index, case in enumerate(drawn.cases)}
    incomplete = {
        (table, prompting)
        for table, prompting in drawn.keys
        for (case, under), positions in lacking.items()
        if under == predictions.prompting(prompting) and (drawn.tables[table][positions] == number[case]).any()
    }
    return [cell for cell, key in zip(drawn.cells, drawn.of_cell, strict=True) if drawn.keys[key] not in incomplete]
