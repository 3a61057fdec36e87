"""Score results again from predictions alone, at other rates, seeds, metrics or thresholds.

No model, no data set, no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from mmrobust.cases import PROMPTINGS
from mmrobust.errors import check_name
from mmrobust.runtime.progress import Progress, Say, no_progress, say_nothing
from mmrobust.scenarios.grid import (
    DEFAULT_RATES,
    DEFAULT_SEEDS,
    Cell,
    Grid,
    availability_of,
    check_rate,
    is_availability,
    mask_seeds,
)
from mmrobust.scenarios.missing_tables import GivenTable, is_given, keep_table, kept_table, read_missing_table
from mmrobust.scenarios.scenario import Scenario, scenario_names
from mmrobust.scoring.dependence import affected_shares, merged_shares
from mmrobust.scoring.join import ScoringSettings, score
from mmrobust.scoring.predictions import Predictions
from mmrobust.scoring.store import IMPORTED, import_command, read_predictions
from mmrobust.storage.files import is_there
from mmrobust.storage.locks import hold_whole
from mmrobust.storage.provenance import now, results_provenance
from mmrobust.storage.results import RESULTS_FILE, Results, identified, read_results, write_results


@dataclass(frozen=True)
class CellChoice:
    """The cells to score. An axis that is ``None`` stays as the results have it.

    Raises:
        UsageError: a rate, a prompting or the number of seeds is out of range.
    """

    scenarios: tuple[str, ...] | None = None
    rates: tuple[float, ...] | None = None
    seeds: int | None = None
    """How many mask seeds."""
    promptings: tuple[str, ...] | None = None
    metrics: tuple[str, ...] | None = None
    tables: tuple[Path, ...] = ()
    """Files with further missing tables, of all the samples that were evaluated."""

    def __post_init__(self) -> None:
        for rate in self.rates or ():
            check_rate(rate)
        for prompting in self.promptings or ():
            check_name("prompting", prompting, PROMPTINGS)
        if self.seeds is not None:
            mask_seeds(self.seeds)


def rescore(
    folder: Path,
    choice: CellChoice,
    settings: ScoringSettings,
    *,
    out: Path | None = None,
    progress: Progress = no_progress,
    say: Say = say_nothing,
) -> Results:
    """Write ``results.parquet`` of ``folder`` again, from its predictions, and return the results as written.

    The evaluation may be unfinished. The new results replace the old, or go to the folder ``out``. ``progress`` counts
    scored tables, and ``say`` is called with a message for each shard that cannot be used, and
    with what a scenario like ``65/65`` is taken for.

    Raises:
        MmrobustError: a prediction that a cell needs is missing, or a name is unknown.
    """
    started, target = now(), out or folder
    earlier = read_results(folder) if is_there(folder / RESULTS_FILE) else None
    frames, shares = [], []
    checkpoints: dict[str, dict[str, Any]] = {}
    dataset: dict[str, Any] = {}
    noise: Mapping[str, Any] | None = None
    for predictions in read_predictions(folder, earlier, say):
        cells, given = _cells(predictions, choice, folder, say)
        tables = predictions.truth.draw(sorted(cells), given)
        shares.append(affected_shares(tables, predictions.truth))
        frame = score(
            predictions,
            tables,
            settings,
            metrics=choice.metrics,
            remedy=_remedy(predictions, cells, folder),
            progress=progress,
        )
        frames.append(identified(frame, predictions.name, predictions.described, predictions.dataset))
        for table in given:
            keep_table(target, table, predictions.truth.ids)
        checkpoints[predictions.name] = dict(predictions.described)
        dataset, noise = dataset or dict(predictions.dataset), noise or predictions.noise
    provenance = (earlier.provenance if earlier else {}) | results_provenance(
        started,
        dataset=dataset,
        checkpoints=checkpoints,
        noise=noise,
        scoring=settings,
        **merged_shares(*shares),
    )
    with hold_whole(target):
        write_results(target / RESULTS_FILE, pd.concat(frames), provenance)
    return read_results(target)


def _cells(predictions: Predictions, choice: CellChoice, folder: Path, say: Say) -> tuple[list[Cell], list[GivenTable]]:
    """The cells of the results with the chosen axes replaced, and the missing tables from files among them.

    A results table may have grown by several evaluations, each with its own rates, seeds and promptings, so every
    scenario keeps its own. A scenario that is new takes those of another, or the defaults.
    """
    truth = predictions.truth
    of_scenario: dict[str, list[Cell]] = {}
    for cell in predictions.cells:
        of_scenario.setdefault(cell.scenario, []).append(cell)
    drawn = [name for name in of_scenario if not is_given(name)]
    usual = Grid(("",), DEFAULT_RATES, DEFAULT_SEEDS, predictions.answered)
    default = of_scenario[drawn[-1]] if drawn else list(usual.cells())
    cells: dict[Cell, None] = {}
    given = []
    for called in choice.scenarios or of_scenario or scenario_names(truth.modalities):
        name, point = availability_of(called, truth.modalities, say) if is_availability(called) else (called, None)
        old = of_scenario.get(name, default)
        rates, seeds = choice.rates, None if choice.seeds is None else mask_seeds(choice.seeds)
        if is_given(name):  # has one rate and the seed 0, whatever is chosen
            table = kept_table(folder, name, truth.ids, truth.modalities, truth.natural)
            if name in of_scenario:
                table = replace(table, rate=min(cell.missing_rate for cell in old))
            given.append(table)
            rates, seeds = (table.rate,), (0,)
        else:
            own = Scenario.parse(name, truth.modalities).rate
            point = own if own is not None else point
        if point is not None:
            rates = (point,)
        cells |= {
            Cell(name, rate, seed, prompting): None
            for cell in old
            for rate in rates or (cell.missing_rate,)
            for seed in seeds or (cell.seed,)
            for prompting in choice.promptings or (cell.prompting,)
        }
    for file in choice.tables:
        table = read_missing_table(file, truth.ids, truth.modalities, truth.natural, truth.groups)
        given.append(table)
        for prompting in choice.promptings or predictions.answered:
            cells[Cell(table.name, table.rate, 0, prompting)] = None
    return list(cells), given


def _remedy(predictions: Predictions, cells: Sequence[Cell], folder: Path) -> str:
    """How the predictions that ``cells`` need are made: the lowest and the highest rate need all that others do."""
    flags, prompting = grid_flags(cells, ends=True)
    if predictions.described.get("method") == IMPORTED:
        plan = f"mmrobust plan --data DIR {flags} --out PLAN"
        return f"list what is needed with: {plan}; then: {import_command(predictions.name, folder)}"
    return f"make it with: mmrobust eval CHECKPOINT --data DIR {flags} {prompting} --out {folder}"


def grid_flags(cells: Sequence[Cell], *, ends: bool = False) -> tuple[str, str]:
    """The flags of ``eval`` that give ``cells``, and beside them that of the prompting, which ``plan`` does not have.

    With ``ends``, only the lowest and the highest of the rates.
    """
    drawn = [cell for cell in cells if not is_given(cell.scenario)]
    flags = []
    if drawn:
        rates = sorted({cell.missing_rate for cell in drawn})
        rates = sorted({rates[0], rates[-1]}) if ends else rates
        flags += [
            f"--scenario {','.join(dict.fromkeys(cell.scenario for cell in drawn))}",
            f"--missing-rate {','.join(f'{rate:g}' for rate in rates)}",
            f"--seeds {max(cell.seed for cell in drawn) + 1}",
        ]
    if len(drawn) < len(cells):
        flags.append("--missing-table FILE")
    promptings = {cell.prompting for cell in cells}
    return " ".join(flags), f"--prompting {','.join(name for name in PROMPTINGS if name in promptings)}"
