"""``mmrobust eval``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmrobust.cli import console
from mmrobust.cli.options import (
    RATES,
    TABLES,
    AsJson,
    BatchSize,
    CacheFolder,
    DataFolder,
    Device,
    DType,
    F1Absent,
    OnBadSample,
    Workers,
    flag,
    listed,
    listed_paths,
)

if TYPE_CHECKING:
    from mmrobust.models.checkpoint import Checkpoint
    from mmrobust.models.own.own_model import OwnModel

EXAMPLE = (
    "Example: mmrobust eval runs/none runs/mmp --data data/digits --missing-rate 0:1:0.1 --seeds 3 --out runs/grid"
)

_scale = partial(flag, panel="More than one process")


def evaluate(
    models: Annotated[
        list[str],
        typer.Argument(
            help="Checkpoint folders or Hub ids, and models of your own: module:object or file.py:object.",
            metavar="MODEL...",
        ),
    ],
    data: DataFolder,
    out: Annotated[Path, flag("Folder for results.parquet and predictions; extended if it exists.")],
    split: Annotated[str, flag("Split to evaluate on.")] = "test",
    scenario: Annotated[
        list[str] | None,
        flag(
            "Names, including missing-image+missing-audio, missing-both:0.3, noisy-image:blur@3 and 65/65. "
            "Default: every missing-*; none if --missing-table is given."
        ),
    ] = None,
    missing_table: Annotated[
        list[str] | None,
        flag(f"Missing tables to evaluate: {TABLES}", metavar="PATH"),
    ] = None,
    missing_rate: Annotated[list[str] | None, flag(f"{RATES} Default: 0:1:0.1.")] = None,
    seeds: Annotated[int, flag("Number of mask seeds.")] = 3,
    prompting: Annotated[list[str] | None, flag("situation, concat. Default: both.")] = None,
    limit: Annotated[int | None, flag("Use only the first N samples.")] = None,
    noise_profile: Annotated[str, flag("Noise of noisy-* scenarios: default or released.")] = "default",
    noise_seed: Annotated[int, flag("Seed of the noise, independent of the mask seeds.")] = 0,
    batch_size: BatchSize = "auto",
    device: Device = "auto",
    dtype: DType = "auto",
    compile: Annotated[bool, flag("Compile the model: slower to start, then faster.", "--compile")] = False,
    workers: Workers = "auto",
    cache: CacheFolder = None,
    on_bad_sample: OnBadSample = "error",
    engine: Annotated[str, _scale("local, or ray (extra `ray`): one copy of the model per GPU or CPU core.")] = "local",
    ray_address: Annotated[str | None, _scale("Address of a running Ray cluster. Default: this machine.")] = None,
    ray_workers: Annotated[int | None, _scale("Copies of the model. Default: one per GPU, else one per core.")] = None,
    shard: Annotated[
        str | None, _scale("Do only part I of N. All parts use the same --out, in any order.", metavar="I/N")
    ] = None,
    overwrite: Annotated[
        str, flag("For predictions already in --out: never change, add only-missing, or always redo.")
    ] = "only-missing",
    f1_absent: F1Absent = "zero",
    backbone: Annotated[str | None, flag("Location of the frozen backbone, if it was moved.")] = None,
    json: AsJson = False,
) -> None:
    """Evaluate models over scenarios × missing rates × seeds, making each prediction once."""
    from mmrobust.cases import PROMPTINGS
    from mmrobust.data.dataset import Dataset
    from mmrobust.data.loading import resolve_workers
    from mmrobust.degradations import Noise
    from mmrobust.errors import Unfinished
    from mmrobust.evaluation.evaluate import evaluate_models
    from mmrobust.evaluation.plan import PredictionSettings, WorkShare
    from mmrobust.runtime.devices import evaluation_batch_size, resolve_device
    from mmrobust.scenarios.grid import DEFAULT_RATES, Grid, mask_seeds, parse_grid
    from mmrobust.scoring.join import ScoringSettings

    scenarios, rates = parse_grid(listed(scenario, "--scenario"), missing_rate)
    grid = Grid(scenarios, rates or DEFAULT_RATES, mask_seeds(seeds), listed(prompting, "--prompting") or PROMPTINGS)
    place, dataset = resolve_device(device), Dataset(data, cache)
    samples = min(limit or sys.maxsize, dataset.info.splits.get(split, 0))
    settings = PredictionSettings(
        batch_size=evaluation_batch_size(batch_size, place),
        engine=engine,
        ray_address=ray_address,
        ray_workers=ray_workers,
        share=WorkShare.parse(shard) if shard else None,
        overwrite=overwrite,
        workers=resolve_workers(workers, samples, on_cpu=place.type == "cpu"),
    )
    with console.waiting("load the models"):
        loaded = load_models(models, device=device, dtype=dtype, backbone=backbone, compile=compile, cache=cache)
    try:
        results = evaluate_models(
            loaded,
            dataset,
            grid,
            out,
            split=split,
            limit=limit,
            missing_tables=listed_paths(missing_table, "--missing-table"),
            noise=Noise(noise_profile, noise_seed),
            on_bad_sample=on_bad_sample,
            settings=settings,
            scoring=ScoringSettings(f1_absent=f1_absent),
            progress=console.progress_bar,
            say=console.remark,
        )
    except Unfinished as note:
        console.remark(str(note))
        return
    if bad := results.provenance["bad_samples"]["summary"]:
        console.remark(bad)
    console.show_results(results, out, json)


def load_models(
    sources: Sequence[str],
    *,
    device: str,
    dtype: str = "auto",
    backbone: str | None = None,
    compile: bool = False,
    cache: Path | None = None,
) -> dict[str, Checkpoint | OwnModel]:
    """Name → model, of checkpoints and of models of the user's own.

    Raises:
        MmrobustError: one cannot be loaded, two have one name, or an option is given that none of them takes.
    """
    from mmrobust.errors import UsageError
    from mmrobust.models.checkpoint import load_checkpoint
    from mmrobust.models.classifier import compile_model
    from mmrobust.models.own.own_model import OwnModel
    from mmrobust.models.own.source import Source
    from mmrobust.runtime.devices import resolve_device, resolve_dtype

    place = resolve_device(device)
    parsed = [(text, Source.parse(text)) for text in sources]
    own = [source for _, source in parsed if source is not None]
    checkpoints = [text for text, source in parsed if source is None]
    if not checkpoints:
        for flag, given in (
            *(("--dtype", dtype != "auto"), ("--compile", compile)),
            *(("--backbone", backbone is not None), ("--cache", cache is not None)),
        ):
            if given:
                raise UsageError(f"{flag} is for checkpoints; {own[0]} decides this itself")
        if device != "auto" and not any(source.takes_device for source in own):
            raise UsageError(
                f"--device is for checkpoints, and for functions that make a model and take 'device'; "
                f"{own[0]} decides this itself"
            )
    loaded: dict[str, Checkpoint | OwnModel] = {}
    for name, folder in _names(checkpoints).items() if checkpoints else ():
        loaded[name] = checkpoint = load_checkpoint(
            folder, device=str(place), dtype=resolve_dtype(dtype, place), backbone=backbone
        )
        if compile:
            compile_model(checkpoint.classifier)
    for source in own:
        model = OwnModel(source.load(str(place)), source)
        if model.name in loaded:
            raise UsageError(f"{source}: another model is called '{model.name}', too; give each a name of its own")
        loaded[model.name] = model
    return loaded


def _names(sources: Sequence[str]) -> dict[str, str]:
    """Name → source: the last component of each path, or as many as make the names distinct.

    Raises:
        UsageError: a checkpoint is given twice.
    """
    from mmrobust.errors import UsageError
    from mmrobust.runtime.printable import printable

    parts = {source: Path(source).resolve().parts if Path(source).exists() else (source,) for source in sources}
    for length in range(1, 1 + max(len(p) for p in parts.values())):
        names = {printable("/".join(p[-length:])): source for source, p in parts.items()}
        if len(names) == len(sources):
            return names
    raise UsageError(f"checkpoints {', '.join(sources)}: one is given twice")
