"""Results again from predictions alone: other rates, seeds, metrics, thresholds; no model, no data set, no torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from mmrobust.runtime.progress import Progress, Say, no_progress, say_nothing
from mmrobust.scenarios.grid import DEFAULT_RATES, DEFAULT_SEEDS, Grid, make_grid, mask_seeds
from mmrobust.scenarios.missing_tables import is_given, keep_table, kept_table
from mmrobust.scenarios.scenario import Scenario, scenario_names
from mmrobust.scoring.join import ScoringSettings, score
from mmrobust.scoring.predictions import Predictions
from mmrobust.scoring.store import read_predictions
from mmrobust.storage.locks import hold_whole
from mmrobust.storage.provenance import command_line, git_state, now, versions
from mmrobust.storage.results import RESULTS_FILE, Results, identified, read_results, write_results


@dataclass(frozen=True)
class CellChoice:
    """The cells to score; ``None`` wherever it is to stay as the results have it.

    Raises:
        UsageError: no seed.
    """

    scenarios: tuple[str, ...] | None = None
    rates: tuple[float, ...] | None = None
    seeds: int | None = None
    promptings: tuple[str, ...] | None = None
    metrics: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.seeds is not None:
            mask_seeds(self.seeds)


def rescore(
    folder: Path,
    asked: CellChoice,
    settings: ScoringSettings,
    *,
    out: Path | None = None,
    progress: Progress = no_progress,
    say: Say = say_nothing,
) -> Results:
    """``results.parquet`` of ``folder`` again, from its predictions.

    Args:
        folder: results folder of an evaluation, finished or not.
        asked: the cells.
        settings: how they are scored.
        out: folder for the new results; ``None``: ``folder``, where they take the place of the old ones.
        progress: shows how far it is.
        say: told of shards that cannot be used.

    Returns:
        The new results, as they were written.

    Raises:
        MmrobustError: predictions that a cell needs are not there, or names that do not exist.
    """
    started = now()
    earlier = read_results(folder) if (folder / RESULTS_FILE).is_file() else None
    frames = []
    checkpoints: dict[str, dict[str, Any]] = {}
    dataset: dict[str, Any] = {}
    noise: Mapping[str, Any] | None = None
    for predictions in read_predictions(folder, earlier, say):
        for grid in _grids(predictions, asked, folder, earlier.frame if earlier else None):
            frame = score(
                predictions,
                predictions.truth.draw_grid(grid),
                settings,
                metrics=asked.metrics,
                way_out=_way_out(folder, grid),
                progress=progress,
            )
            frames.append(identified(frame, predictions.name, predictions.described, predictions.dataset))
            for table in grid.tables:
                keep_table(out or folder, table, predictions.truth.ids)
        checkpoints[predictions.name] = dict(predictions.described)
        dataset, noise = dataset or dict(predictions.dataset), noise or predictions.noise
    provenance: dict[str, Any] = {
        **(earlier.provenance if earlier else {}),
        "dataset": dataset,
        "noise": noise,
        "checkpoints": checkpoints,
        "scoring": dataclasses.asdict(settings),
        "versions": versions(),
        "git": git_state(),
        **{key: next(iter(checkpoints.values()))[key] for key in ("device", "dtype")},
        "command": command_line(),
        "started": started,
        "finished": now(),
    }
    target = out or folder
    with hold_whole(target):
        write_results(target / RESULTS_FILE, pd.concat(frames), provenance)
    return read_results(target)


_Axes = dict[tuple[float, str], tuple[int, ...]]
"""(Missing rate, prompting) → mask seeds: the cells of a scenario."""


def _grids(predictions: Predictions, asked: CellChoice, folder: Path, results: pd.DataFrame | None) -> list[Grid]:
    """What to score: the cells of the results, with what is asked in place of each axis that is named.

    A results table may have grown by several evaluations, each with rates, seeds and promptings of its own; what is
    alike makes one grid.
    """
    modalities = predictions.truth.modalities
    default: _Axes = {(rate, prompting): DEFAULT_SEEDS for rate in DEFAULT_RATES for prompting in predictions.answered}
    of_scenario: dict[str, _Axes] = {}
    if results is not None:
        own = results[results["checkpoint"] == predictions.name]
        for name, rows in own.groupby("scenario", sort=False, observed=True):
            of_scenario[str(name)] = _axes_of(rows)
            default = default if is_given(str(name)) else of_scenario[str(name)]
    grids: dict[tuple[tuple[float, ...], tuple[int, ...], tuple[str, ...]], list[str]] = {}
    given = []
    for name in asked.scenarios or of_scenario or scenario_names(modalities):
        axes = of_scenario.get(name, default)
        if is_given(name):
            table = kept_table(folder, name, predictions.truth.ids, modalities, predictions.truth.natural)
            rate = min(axes)[0] if name in of_scenario else table.rate
            told = asked.promptings or _promptings(axes)
            given.append(Grid((), (rate,), (0,), told, (replace(table, rate=rate),)))
            continue
        Scenario.parse(name, modalities)
        for alike in _alike(_changed(axes, asked)):
            grids.setdefault(alike, []).append(name)
    return [make_grid(modalities, names, *axes) for axes, names in grids.items()] + given


def _axes_of(rows: pd.DataFrame) -> _Axes:
    axes: _Axes = {}
    for rate, prompting, seed in sorted(set(zip(rows["missing_rate"], rows["prompting"], rows["seed"], strict=True))):
        axes[rate, prompting] = (*axes.get((rate, prompting), ()), seed)
    return axes


def _changed(axes: _Axes, asked: CellChoice) -> _Axes:
    """``axes`` with what is asked: of a new rate or prompting, the mask seeds that there are of any."""

    def seeds(at: int, value: float | str) -> tuple[int, ...]:
        return tuple(sorted({seed for key, found in axes.items() if key[at] == value for seed in found}))

    if asked.rates:
        axes = {(rate, prompting): seeds(1, prompting) for rate in asked.rates for prompting in _promptings(axes)}
    if asked.promptings:
        axes = {(rate, prompting): seeds(0, rate) for rate, _ in axes for prompting in asked.promptings}
    return axes if asked.seeds is None else dict.fromkeys(axes, mask_seeds(asked.seeds))


def _alike(axes: _Axes) -> list[tuple[tuple[float, ...], tuple[int, ...], tuple[str, ...]]]:
    """Rates, seeds and promptings of as few grids as have the same cells."""
    rates: dict[tuple[str, tuple[int, ...]], list[float]] = {}
    for (rate, prompting), seeds in axes.items():
        rates.setdefault((prompting, seeds), []).append(rate)
    promptings: dict[tuple[tuple[float, ...], tuple[int, ...]], list[str]] = {}
    for (prompting, seeds), found in sorted(rates.items(), reverse=True):
        promptings.setdefault((tuple(found), seeds), []).append(prompting)
    return [(*key, tuple(told)) for key, told in promptings.items()]


def _promptings(axes: _Axes) -> tuple[str, ...]:
    return tuple(sorted({prompting for _, prompting in axes}, reverse=True))


def _way_out(folder: Path, grid: Grid) -> str:
    """The evaluation that makes what the grid needs: the lowest and the highest rate need all that others do."""
    if not grid.scenarios:
        return (
            "make it with: mmrobust eval CHECKPOINT --data DIR --missing-table FILE "
            f"--prompting {','.join(grid.promptings)} --out {folder}"
        )
    rates = ",".join(f"{rate:g}" for rate in dict.fromkeys((grid.rates[0], grid.rates[-1])))
    return (
        f"make it with: mmrobust eval CHECKPOINT --data DIR --scenario {','.join(grid.scenarios)} "
        f"--missing-rate {rates} --seeds {max(grid.seeds) + 1} --prompting {','.join(grid.promptings)} --out {folder}"
    )
