"""``mmrobust score``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmrobust.cli import console
from mmrobust.cli.options import RATES, TABLES, AsJson, F1Absent, flag, listed, listed_paths

EXAMPLE = "Example: mmrobust score runs/grid --missing-rate 0:1:0.05 --seeds 10 --metric macro_f1 --f1-absent skip"


def score(
    folder: Annotated[Path, typer.Argument(help="Results folder of mmrobust eval.", metavar="DIR")],
    scenario: Annotated[list[str] | None, flag("Names. Default: those of the results.")] = None,
    missing_rate: Annotated[list[str] | None, flag(f"{RATES} Default: those of the results.")] = None,
    missing_table: Annotated[
        list[str] | None, flag(f"Further missing tables to score: {TABLES}", metavar="PATH")
    ] = None,
    seeds: Annotated[int | None, flag("Number of mask seeds. Default: those of the results.")] = None,
    prompting: Annotated[list[str] | None, flag("situation, concat. Default: those of the results.")] = None,
    metric: Annotated[list[str] | None, flag("Names. Default: all of the task's.")] = None,
    threshold: Annotated[float, flag("Probability from which a multi-label class is predicted.")] = 0.5,
    f1_absent: F1Absent = "zero",
    resamples: Annotated[int, flag("0: no intervals. They take no resamples, so other numbers are alike.")] = 1000,
    bootstrap_seed: Annotated[int, flag("Has no effect any more: intervals take no resamples.")] = 0,
    out: Annotated[Path | None, flag("Folder for the new results.parquet. Default: DIR.")] = None,
    json: AsJson = False,
) -> None:
    """Rescore from stored predictions at other rates, seeds or metrics; needs no model and no torch."""
    from mmrobust.scenarios.grid import parse_grid
    from mmrobust.scoring.join import ScoringSettings
    from mmrobust.scoring.rescore import CellChoice, rescore

    scenarios, rates = parse_grid(listed(scenario, "--scenario"), missing_rate)
    choice = CellChoice(
        scenarios=scenarios or None,
        rates=rates or None,
        tables=listed_paths(missing_table, "--missing-table"),
        seeds=seeds,
        promptings=listed(prompting, "--prompting"),
        metrics=listed(metric, "--metric"),
    )
    results = rescore(
        folder,
        choice,
        ScoringSettings(threshold, f1_absent, resamples, bootstrap_seed),
        out=out,
        progress=console.progress_bar,
        say=console.remark,
    )
    if out is not None and out.resolve() != folder.resolve():
        console.remark(f"{out}: the predictions stay in {folder}; without them, check judges by limits alone")
    console.show_results(results, out or folder, json)
