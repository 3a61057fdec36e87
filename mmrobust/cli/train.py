"""``mmrobust train``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmrobust.cli import console
from mmrobust.cli.options import DataFolder, Device, DType, OnBadSample, Workers, flag, listed
from mmrobust.models.backbones import TINY
from mmrobust.models.heads import HEADS
from mmrobust.models.methods import METHODS
from mmrobust.runtime.progress import Advance
from mmrobust.training.recipes import BUILTIN, DEFAULT

if TYPE_CHECKING:
    from mmrobust.models.checkpoint import CheckpointConfig
    from mmrobust.training.state import EpochRecord
    from mmrobust.training.trainer import StepRecord

_prompts, _recipe = partial(flag, panel="Prompts"), partial(flag, panel="Recipe")
_SET = "may be repeated; without a value it lists them all."
EXAMPLE = "Example: mmrobust train --data data/digits --backbone tiny --method full --head linear --out runs/full"


def train(
    data: DataFolder,
    out: Annotated[Path, flag("Folder for the checkpoint.")],
    backbone: Annotated[
        str | None, flag("tiny, towers, a folder of weights, a checkpoint made by full, or a Hub id.")
    ] = None,
    encoder: Annotated[
        list[str] | None,
        flag(
            "towers: the encoder of a modality: a Hub id or folder of a model of transformers, or tiny, the default; "
            "may be repeated.",
            metavar="NAME=ID",
        ),
    ] = None,
    train_encoders: Annotated[bool, flag("towers: full trains pretrained encoders too.", "--train-encoders")] = False,
    method: Annotated[str | None, flag(f"How the backbone is adapted: {', '.join(METHODS)}.")] = None,
    head: Annotated[str | None, flag(f"Features to scores: {', '.join(HEADS)}. Default: linear.")] = None,
    modalities: Annotated[list[str] | None, flag("Which of the data set's, e.g. image,text. towers: all.")] = None,
    prompt_level: Annotated[str | None, _prompts("Where prompts are added: input, attention; ptm: both.")] = None,
    prompt_length: Annotated[int | None, _prompts("Tokens per case and layer.")] = None,
    train_head: Annotated[bool, _prompts("ptm: train the head too.", "--train-head")] = False,
    prompt_depth: Annotated[int | None, _prompts("Prompted layers.")] = None,
    method_set: Annotated[list[str] | None, flag(f"A setting of the method: {_SET}", metavar="NAME=VALUE")] = None,
    head_set: Annotated[list[str] | None, flag(f"A setting of the head: {_SET}", metavar="NAME=VALUE")] = None,
    backbone_set: Annotated[list[str] | None, flag(f"A setting of the backbone: {_SET}", metavar="NAME=VALUE")] = None,
    backbone_dropout: Annotated[bool, typer.Option("--backbone-dropout", hidden=True)] = False,
    missing_path: Annotated[str | None, typer.Option(hidden=True)] = None,
    max_text_length: Annotated[int | None, typer.Option(hidden=True)] = None,
    scenario: Annotated[
        str | None,
        flag(
            "What happens to inputs in training, e.g. noisy-image:blur@3. Default: missing-both, or missing-any where "
            "there are more modalities; ptm: noisy-both."
        ),
    ] = None,
    missing_rate: Annotated[
        str | None,
        flag(
            "Share of training samples affected, or of each modality: image=0.3,text=0.7. "
            "Default: 0 for full, else 0.7."
        ),
    ] = None,
    noise_profile: Annotated[str | None, flag("Noise of noisy-* scenarios: default or released.")] = None,
    fill: Annotated[str | None, flag("Fill of a missing image: ones, zeros or mean.")] = None,
    recipe: Annotated[
        str,
        _recipe(f"All settings at once; flags override them: default, a YAML file, or one of {', '.join(BUILTIN)}."),
    ] = DEFAULT,
    validate_on: Annotated[
        str | None, _recipe("Validation that chooses the best epoch: table, or a small grid.")
    ] = None,
    epochs: Annotated[int | None, _recipe("Passes over the data.")] = None,
    batch_size: Annotated[str, _recipe("Samples per step, or auto.")] = "auto",
    lr: Annotated[float | None, _recipe("Peak learning rate.")] = None,
    recipe_set: Annotated[list[str] | None, _recipe(f"A setting of the recipe: {_SET}", metavar="NAME=VALUE")] = None,
    patience: Annotated[int | None, _recipe("Stop after this many epochs without improvement; 0: never.")] = None,
    seed: Annotated[int, flag("Seed of weights, batches and missing tables.")] = 0,
    device: Device = "auto",
    dtype: DType = "auto",
    workers: Workers = "auto",
    on_bad_sample: OnBadSample = "error",
    cache: Annotated[
        str,
        flag("Cache of frozen features: auto, off, or a folder/ that keeps them and encoded inputs for later."),
    ] = "auto",
    cache_memory: Annotated[
        float | None,
        flag("GiB of memory that the cache may use; the rest goes to disk. Default: 1/4 of the free memory."),
    ] = None,
    resume: Annotated[bool, flag("Continue an interrupted training.", "--resume")] = False,
) -> None:
    """Train prompts, a head or everything on a backbone, and write a checkpoint."""
    from mmrobust.configuration import parse_settings
    from mmrobust.data.dataset import Dataset
    from mmrobust.data.format import choose_modalities, left_aside
    from mmrobust.data.loading import resolve_workers
    from mmrobust.runtime.devices import resolve_batch_size, resolve_device, resolve_dtype
    from mmrobust.scenarios.grid import decides_rate, scenario_and_rate
    from mmrobust.training.distributed import is_main_process
    from mmrobust.training.settings import TrainOptions, parse_encoders, read_recipe, usual_modalities

    prompts = _given(level=prompt_level, length=prompt_length, depth=prompt_depth, train_head=train_head or None)
    size = None if batch_size == "auto" else resolve_batch_size(batch_size)
    recipe_flags = _given(epochs=epochs, batch_size=size, lr=lr, patience=patience, validate_on=validate_on)
    preset = read_recipe(recipe)
    wanted = listed(modalities, "--modalities") or usual_modalities(backbone or preset.backbone or "", data)
    of_data = choose_modalities(Dataset(data).info, wanted) if decides_rate(scenario, missing_rate) else ()
    chosen_scenario, rate = scenario_and_rate(scenario, missing_rate, of_data, console.remark)
    flags = TrainOptions(
        method=method,
        head=head,
        backbone=backbone,
        modalities=wanted,
        scenario=chosen_scenario,
        missing_rate=rate,
        fill=fill,
        noise_profile=noise_profile,
        method_settings=prompts | parse_settings(method_set or (), "--method-set"),
        head_settings=parse_settings(head_set or (), "--head-set"),
        backbone_settings=_deprecated(
            dropout=("--backbone-dropout", backbone_dropout or None),
            missing_path=("--missing-path", missing_path),
            max_text_length=("--max-text-length", max_text_length),
        )
        | _given(train_encoders=train_encoders or None)
        | parse_settings(backbone_set or (), "--backbone-set"),
        encoders=parse_encoders(encoder or ()),
        recipe=parse_settings(recipe_set or (), "--recipe-set") | recipe_flags,
    )
    options = preset.overridden_by(flags)
    settings = options.resolve(data, seed=seed, recipe_name=recipe, on_bad_sample=on_bad_sample)

    # Only now, since torch and transformers take seconds: what is wrong with the flags is said before.
    with console.waiting("load torch"):
        from mmrobust.training.feature_cache import parse_cache
        from mmrobust.training.loop import train as run

    place = resolve_device(device)
    about = Dataset(data).info

    if not is_main_process():  # one of several processes prints for all
        console.settings.quiet = True
    unasked = left_aside(about, choose_modalities(about, settings.modalities)) if modalities is None else ""
    if (backbone or preset.backbone) is None and is_main_process():
        console.remark(f"no --backbone is given: on {settings.backbone}, a small one")
    view = TrainingView(settings.recipe.epochs, unasked)
    config = run(
        settings,
        out,
        resume=resume,
        device=str(place),
        dtype=resolve_dtype(dtype, place),
        workers=resolve_workers(workers, about.splits.get("train", 0), on_cpu=place.type == "cpu"),
        cache=parse_cache(cache, cache_memory),
        progress=view.progress,
        remark=console.remark,
        on_epoch=view.on_epoch,
        on_step=view.on_step,
    )
    for split in ("train", "validation"):
        if found := config.training.get(f"bad_samples_{split}"):
            console.remark(f"{split}: {found['summary']}")
    if is_main_process():
        console.out().print(_summary(out, config), markup=False)


def _given(**flags: Any) -> dict[str, Any]:
    """The flags that were given."""
    return {name: value for name, value in flags.items() if value is not None}


def _deprecated(**flags: tuple[str, Any]) -> dict[str, Any]:
    """The settings of the backbone that were given by a flag of 0.1, each with a remark that names the new way."""
    given = {name: (old, value) for name, (old, value) in flags.items() if value is not None}
    for name, (old, value) in given.items():
        console.remark(f"{old} is deprecated: use --backbone-set {name}={str(value).lower()}")
    return {name: value for name, (_, value) in given.items()}


def _summary(out: Path, config: CheckpointConfig) -> str:
    training, backbone = config.training, config.backbone
    case_wise = training["recipe"].get("batching") == "case-wise"
    under = (
        f"over {', '.join(config.cases)}" if case_wise else f"at {training['scenario']} {training['missing_rate']:g}"
    )
    full = config.method["name"] == "full"
    frozen = _encoders(config) if full else f", unchanged ({backbone['fingerprint'][:12]})"
    return (
        f"{out}: {config.method['name']} + {config.head['name']} on {backbone['family']}{frozen}; "
        f"{training['trained_parameters']:,} of {training['all_parameters']:,} parameters trained; "
        f"best epoch {training['best_epoch']} of {training['epochs']}; "
        f"validation {config.headline_metric} {training['validation']:.4f} {under}"
    )


def _encoders(config: CheckpointConfig) -> str:
    """What full fine-tuning did to the encoders of ``towers``; empty for other families."""
    encoders = {m: t["encoder"] for m, t in config.backbone.get("towers", {}).items() if t["kind"] != "features"}
    own = [modality for modality, encoder in encoders.items() if encoder == TINY]
    parts = [f"{', '.join(own)} by small encoders, trained with it"] if own else []
    trained = "trained" if config.backbone["settings"].get("train_encoders") else "frozen"
    parts += [f"{modality} by {encoder}, {trained}" for modality, encoder in encoders.items() if encoder != TINY]
    return f" ({'; '.join(parts)})" if parts else ""


class TrainingView:
    """Shows a training of so many ``epochs``: a live line on a terminal, and a remark for every epoch.

    ``first`` is a line to print before them, if it is not empty.
    """

    def __init__(self, epochs: int, first: str = "") -> None:
        self._epochs, self._best, self._first = epochs, "–", first
        self._bar: Any = None
        self._task: Any = None

    @contextmanager
    def progress(self, description: str, total: int | None) -> Iterator[Advance]:
        """The :data:`mmrobust.runtime.progress.Progress` of a training."""
        from rich.progress import BarColumn, TextColumn, TimeRemainingColumn

        if self._first:
            console.remark(self._first)
            self._first = ""
        if not sys.stderr.isatty():
            yield console.PlainProgress(description, total).advance
            return
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[status]}"),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        with console.bar_of(*columns) as bar:
            self._bar, self._task = bar, bar.add_task(description, total=total, status="")
            try:
                yield lambda units: bar.advance(self._task, units)
            finally:
                self._bar = None

    def on_step(self, record: StepRecord) -> None:
        """Update the live line."""
        if self._bar is not None:
            self._bar.update(self._task, status=self.line(record))

    def line(self, record: StepRecord) -> str:
        """The text beside the bar."""
        memory = "" if record.peak_memory is None else f"  {record.peak_memory / 2**20:,.0f} MiB"
        return (
            f"epoch {record.epoch}/{self._epochs}  loss {record.loss:.4f}  validation {self._best}  "
            f"{record.samples_per_second:,.0f} samples/s{memory}"
        )

    def on_epoch(self, record: EpochRecord, best: int) -> None:
        """Print the results of an epoch."""
        mark = "  best" if record.epoch == best else ""
        if mark:
            self._best = f"{record.validation:.4f}"
        memory = f"  {record.peak_memory / 2**20:,.0f} MiB" if record.peak_memory else ""
        console.remark(
            f"epoch {record.epoch}/{self._epochs}  loss {record.train_loss:.4f}  validation {record.validation:.4f}  "
            f"{record.samples_per_second:,.0f} samples/s{memory}{mark}"
        )
