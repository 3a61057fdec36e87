"""``mmrobust plan``."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import Annotated

import typer

from mmrobust.cli import console
from mmrobust.cli.options import RATES, TABLES, AsJson, DataFolder, OnBadSample, listed, listed_paths

EXAMPLE = "Example: mmrobust plan --data data/digits --inputs --out plan"


def plan(
    data: DataFolder,
    out: Annotated[Path, typer.Option(help="Folder to make: plan.parquet, plan.csv, plan.json, inputs/.")],
    split: Annotated[str, typer.Option(help="Split to evaluate on.")] = "test",
    modalities: Annotated[
        list[str] | None,
        typer.Option(help="Those of the model, in its order. Default: the data set's, or image,text of three."),
    ] = None,
    scenario: Annotated[
        list[str] | None,
        typer.Option(
            help="Names, including noisy-* and noisy-image:blur@3. "
            "Default: every missing-*; none if --missing-table is given."
        ),
    ] = None,
    missing_table: Annotated[
        list[str] | None,
        typer.Option(metavar="PATH", help=f"Missing tables to evaluate: {TABLES}"),
    ] = None,
    missing_rate: Annotated[list[str] | None, typer.Option(help=f"{RATES} Default: 0:1:0.1.")] = None,
    seeds: Annotated[int, typer.Option(help="Number of mask seeds.")] = 3,
    limit: Annotated[int | None, typer.Option(help="Use only the first N samples.")] = None,
    inputs: Annotated[
        bool, typer.Option("--inputs", help="Write the samples as each case has them, as PNG, WAV and text.")
    ] = False,
    noise_profile: Annotated[str, typer.Option(help="Noise of noisy-* scenarios: default or released.")] = "default",
    noise_seed: Annotated[int, typer.Option(help="Seed of the noise, independent of the mask seeds.")] = 0,
    on_bad_sample: OnBadSample = "error",
    json: AsJson = False,
) -> None:
    """List what a grid needs of a model that runs elsewhere: every sample in every case that some cell has it in.

    Its predictions come back with `mmrobust import predictions`. The same flags give the pairs that eval would predict.
    """
    from mmrobust.data.dataset import Dataset
    from mmrobust.data.format import choose_modalities
    from mmrobust.degradations import Noise
    from mmrobust.evaluation.written_plan import write_plan
    from mmrobust.scenarios.grid import DEFAULT_RATES, Grid, mask_seeds, parse_grid

    dataset = Dataset(data)
    scenarios, rates = parse_grid(listed(scenario, "--scenario"), missing_rate)
    chosen = choose_modalities(dataset.info, listed(modalities, "--modalities"))
    about = write_plan(
        dataset,
        Grid(scenarios, rates or DEFAULT_RATES, mask_seeds(seeds)),
        out,
        modalities=chosen,
        split=split,
        limit=limit,
        missing_tables=listed_paths(missing_table, "--missing-table"),
        noise=Noise(noise_profile, noise_seed),
        on_bad_sample=on_bad_sample,
        inputs=inputs,
        progress=console.progress_bar,
        say=console.remark,
    )
    console.remark_left_aside(dataset.info, chosen, modalities)
    if bad := about["bad_samples"]["summary"]:
        console.remark(bad)
    if json:
        console.print_json(json_module.dumps(about, indent=2, ensure_ascii=False))
        return
    cases = ", ".join(f"{name} {pairs:,}" for name, pairs in about["cases"].items())
    files = f"; {about['files']:,} files of inputs" if inputs else ""
    console.print_line(f"{about['pairs']:,} pairs: {cases}{files}   {out}")
