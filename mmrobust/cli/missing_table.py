"""``mmrobust data missing-table``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from mmrobust.cli import console
from mmrobust.cli.options import listed

EXAMPLE = "Try: mmrobust data missing-table data/digits --scenario missing-both --missing-rate 0.7 --out table.csv"


def missing_table(
    folder: Annotated[Path, typer.Argument(help="A data set folder.", metavar="DIR")],
    scenario: Annotated[str, typer.Option(help="The scenario, as for eval: missing-both, noisy-image:blur@3 …")],
    missing_rate: Annotated[float, typer.Option(help="Share of the samples to affect, 0 to 1.")],
    seed: Annotated[int, typer.Option(help="The mask seed.")] = 0,
    split: Annotated[str, typer.Option(help="Split of the data set.")] = "test",
    modalities: Annotated[
        list[str] | None, typer.Option(help="Modalities of the model, if the data set has more.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="A .parquet, .csv or .pt file (.pt for the papers' code). \\[default: print CSV]"),
    ] = None,
) -> None:
    """Write which sample is in which case under a scenario, as used by eval and train, for other programs."""
    from mmrobust.data.affected_split import apply_scenario
    from mmrobust.data.dataset import Dataset
    from mmrobust.scenarios.missing_tables import check_suffix, write_csv, write_missing_table

    if out is not None:
        check_suffix(out)
    affected = apply_scenario(Dataset(folder), split, scenario, missing_rate, seed, listed(modalities, "--modalities"))
    if out is None:
        write_csv(sys.stdout, affected.table)
        console.remark(str(affected))
    else:
        write_missing_table(out, affected.table, affected.provenance)
        console.out().print(f"{out}: {affected}", markup=False)
