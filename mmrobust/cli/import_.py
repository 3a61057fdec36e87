"""``mmrobust import``: checkpoints of the papers' own code, and predictions that were made elsewhere."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmrobust.cli import console
from mmrobust.cli.console import with_common_options
from mmrobust.cli.options import RATES, TABLES, AsJson, DataFolder, OnBadSample, flag, listed, listed_paths
from mmrobust.models.importing import KINDS

if TYPE_CHECKING:
    from mmrobust.models.importing.convert import Conversion

EXAMPLE = "Example: mmrobust import predictions predictions.csv --data data/digits --name mine --out results/mine"

app = typer.Typer(
    help="Import predictions made by another program, or a checkpoint trained with a paper's code.",
    epilog=EXAMPLE,
    no_args_is_help=True,
)


@app.command("predictions", epilog=EXAMPLE)
@with_common_options
def predictions(
    file: Annotated[Path, typer.Argument(help="A .csv, .tsv, .jsonl or .parquet file.", metavar="FILE")],
    data: DataFolder,
    name: Annotated[str, flag("What the results call the model.")],
    out: Annotated[Path, flag("Folder for results.parquet and predictions; extended if it exists.")],
    scale: Annotated[str, flag("Of the values: logits or probabilities.")] = "logits",
    split: Annotated[str, flag("Split that the predictions are of.")] = "test",
    modalities: Annotated[
        list[str] | None,
        flag("Those of the model, in its order. Default: the data set's, or image,text of three."),
    ] = None,
    scenario: Annotated[
        list[str] | None,
        flag("Scenarios to score. Default: every missing-*, and those of the file's other cases."),
    ] = None,
    missing_table: Annotated[
        list[str] | None,
        flag(f"Missing tables to score: {TABLES}", metavar="PATH"),
    ] = None,
    missing_rate: Annotated[list[str] | None, flag(f"{RATES} Default: 0:1:0.1.")] = None,
    seeds: Annotated[int, flag("Number of mask seeds.")] = 3,
    limit: Annotated[int | None, flag("Use only the first N samples.")] = None,
    noise_profile: Annotated[str, flag("Noise of noisy-* cases: default or released.")] = "default",
    noise_seed: Annotated[int, flag("Noise seed of rows without a noise_seed.")] = 0,
    on_bad_sample: OnBadSample = "error",
    replace: Annotated[bool, flag("Drop the predictions that --out holds under this name.", "--replace")] = False,
    json: AsJson = False,
) -> None:
    """Import logits that any program made, as results that score, report, compare and check read.

    FILE has columns id, case, one per class by name, and optionally prompting and noise_seed; labels come from --data.
    `mmrobust plan` lists the pairs of id and case that the default grid needs. Cells that lack some are left out;
    import more under the same name to complete them.
    """
    from mmrobust.data.dataset import Dataset
    from mmrobust.data.format import choose_modalities
    from mmrobust.degradations import Noise
    from mmrobust.evaluation.imported import import_predictions
    from mmrobust.scenarios.grid import DEFAULT_RATES, Grid, mask_seeds, parse_grid

    dataset = Dataset(data)
    scenarios, rates = parse_grid(listed(scenario, "--scenario"), missing_rate)
    chosen = choose_modalities(dataset.info, listed(modalities, "--modalities"))
    done = import_predictions(
        file,
        dataset,
        name,
        out,
        Grid(scenarios, rates or DEFAULT_RATES, mask_seeds(seeds)),
        modalities=chosen,
        split=split,
        limit=limit,
        scale=scale,
        missing_tables=listed_paths(missing_table, "--missing-table"),
        noise=Noise(noise_profile, noise_seed),
        on_bad_sample=on_bad_sample,
        replace=replace,
        progress=console.progress_bar,
        say=console.remark,
    )
    console.remark_left_aside(dataset.info, chosen, modalities)
    if json:
        console.print_json(done.counts())
        return
    cases = ", ".join(f"{case} {count:,}" for case, count in done.cases.items())
    console.out().print(
        f"{name}: {sum(done.cases.values()):,} predictions, {done.new:,} of them new: {cases}; "
        f"{done.cells:,} cells scored   {out}",
        markup=False,
    )


def _checkpoint(
    kind: str,
    file: Annotated[Path, typer.Argument(help="A .ckpt, .pth, .pt or .safetensors file.", metavar="FILE")],
    out: Annotated[Path, flag("The checkpoint folder to create.")],
    head_from: Annotated[str | None, flag("Head to take, if there are several: mmimdb, food101 or hatememes.")] = None,
    config: Annotated[
        Path | None, flag("JSON with settings, under the paper's own names, that the file does not hold.")
    ] = None,
    processor: Annotated[
        str | None, flag("Folder or Hub id of the tokenizer. Default: the paper's, if it is in the local cache.")
    ] = None,
) -> None:
    """Convert a checkpoint of the paper's own code into one that all commands take.

    No code in the file is run. --config gives the settings that a plain state dict does not hold.
    """
    from mmrobust.models.backbone import without_progress_bars
    from mmrobust.models.importing.convert import import_checkpoint

    with without_progress_bars(), console.progress_bar(f"import {file.name}", None):
        outcome = import_checkpoint(kind, file, out, head_from=head_from, config=config, processor=processor)
    for remark in outcome.remarks:
        console.remark(f"{file.name}: {remark}")
    console.out().print(_summary(outcome, out), markup=False)


def _of_kind(kind: str) -> Callable[..., None]:
    """The command that converts checkpoints of one kind."""

    @functools.wraps(_checkpoint)
    def command(*args: Any, **kwargs: Any) -> None:
        _checkpoint(kind, *args, **kwargs)

    command.__doc__ = (_checkpoint.__doc__ or "").replace("the paper's own code", f"{kind}'s own code")
    signature = inspect.signature(_checkpoint, eval_str=True)
    command.__signature__ = signature.replace(parameters=list(signature.parameters.values())[1:])  # type: ignore[attr-defined]  # typer reads it
    return command


for _kind in KINDS:
    app.command(
        _kind,
        epilog=f"Example: mmrobust import {_kind} model.ckpt --out checkpoints/{_kind}",
        context_settings={"auto_envvar_prefix": "MMROBUST_IMPORT"},  # of the time when they were one command
    )(with_common_options(_of_kind(_kind)))


def _summary(outcome: Conversion, out: Path) -> str:
    config = outcome.config
    settings = ", ".join(f"{key} {value}" for key, value in config.method.items() if key != "name" and value != [])
    return (
        f"{config.method['name']}{f' ({settings})' if settings else ''} + {config.head['name']} on "
        f"{config.backbone['family']} ({outcome.parameters / 1e6:,.1f} M weights); {config.dataset['name']}: "
        f"{len(config.classes)} {config.task} classes   {out}"
    )
