"""From settings to checkpoint: :func:`train`, the same for every method."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

from mmrobust.configuration import plain
from mmrobust.errors import CheckpointError, UsageError
from mmrobust.models.card import write_card
from mmrobust.models.checkpoint import CONFIG_FILE, CURVES_FILE, CheckpointConfig, save_checkpoint
from mmrobust.runtime.devices import device_errors, resolve_device, resolve_dtype
from mmrobust.runtime.progress import Progress, no_progress
from mmrobust.storage.files import atomic_file, refuse_to_overwrite, writing
from mmrobust.storage.fingerprints import fingerprint_settings, fingerprint_tensors
from mmrobust.storage.locks import hold
from mmrobust.training.caching import Cache
from mmrobust.training.distributed import Team, own_device, team
from mmrobust.training.efficiency import Efficiency
from mmrobust.training.fit import Observer, Run, Watch
from mmrobust.training.kept_head import head_loss
from mmrobust.training.recipe import HEAD
from mmrobust.training.settings import TrainSettings
from mmrobust.training.setup import set_up
from mmrobust.training.state import Progressed, StateStore, begun, forget
from mmrobust.training.trainable import Setup

SMALLER = "take a smaller --batch-size, --recipe-set accumulate=2 or checkpointing=true, or another --device"


def train(
    settings: TrainSettings,
    out: Path,
    *,
    resume: bool = False,
    device: str = "cpu",
    dtype: str = "float32",
    workers: int = 0,
    cache: Cache | None = None,
    progress: Progress = no_progress,
    observe: Observer = lambda record, best: None,
    watch: Watch = lambda tick: None,
) -> CheckpointConfig:
    """Train a classifier and write its checkpoint to ``out``. Seeded to the bit on a CPU.

    Started by ``torchrun`` or ``accelerate launch``, every process takes its share of each batch.

    Args:
        settings: what to train, on what, how.
        out: the checkpoint folder. Until the training is done it holds nothing but the state to resume from.
        resume: go on with the training that was begun in ``out`` (or begin, where none was).
        device: ``cpu``, ``cuda``, ``cuda:N`` or ``auto``.
        dtype: ``float32``, or ``bfloat16`` for the matrix work, or ``auto``.
        workers: processes that decode; they change no bit of the result.
        cache: whether and where what is frozen is kept; it changes no number by more than float rounding.
        progress: shows how far it is.
        observe: called after each epoch.
        watch: called after each step.

    Returns:
        The checkpoint's config, as it was written.

    Raises:
        MmrobustError: settings or data that do not fit, an ``out`` that is taken, a loss that is no number.
        Interrupted: Ctrl-C; what is finished is kept.
    """
    if resume and (out / CONFIG_FILE).is_file():
        config = CheckpointConfig.read(out)
        forget(out)  # of a training that was killed between its last two steps
        return config
    if begun(out) and not resume:
        raise UsageError(f"{out}: holds a training that was not finished; go on with --resume, or remove the folder")
    if not begun(out):
        refuse_to_overwrite(out, "checkpoint")
    place = resolve_device(own_device(device))
    dtype = resolve_dtype(dtype, place)
    if settings.recipe.loss == HEAD:
        recipe = settings.recipe.changed(loss=head_loss(settings.backbone))
        settings = dataclasses.replace(settings, recipe=recipe)
    setup, cache = set_up(settings, out, workers=workers, progress=progress), cache or Cache()
    setup.classifier.to(place)
    setup.classifier.dtype = dtype
    setup.classifier.backbone.checkpointing = settings.recipe.checkpointing
    identity = fingerprint_settings(
        {"settings": plain(settings), "data": setup.config.dataset, "dtype": dtype, "cached": cache.on}
        | {"head": fingerprint_tensors(dict(setup.classifier.head.named_parameters()))}
        | {"backbone": setup.config.backbone["fingerprint"], "inputs": setup.classifier.backbone.inputs_fingerprint()}
    )
    store = StateStore(out, identity)
    kept = "finished epochs are kept, the same command with --resume goes on"
    with writing(out, kept), device_errors(place, SMALLER, kept), team(place) as processes, _alone(store, processes):
        run = Run(setup, settings, store, cache, processes, progress, observe, watch)
        progressed = run.fit()
        config = _finish(setup, progressed, run.efficiency(progressed))
        if processes.leads:
            # The checkpoint last: its config says that the training is done, and with --resume no more is written.
            _write_curves(out, progressed)
            write_card(out, out.resolve().name, config)
            save_checkpoint(out, setup.classifier, config)
            forget(out)
        processes.wait()
    return config


def _write_curves(out: Path, progressed: Progressed) -> None:
    """One row for each epoch."""
    curves = pd.DataFrame([dataclasses.asdict(record) for record in progressed.records])
    with atomic_file(out / CURVES_FILE) as partial:
        curves.to_parquet(partial, index=False)


@contextmanager
def _alone(store: StateStore, processes: Team) -> Iterator[None]:
    """Hold the training's folder against others, and leave none behind that a resumed training could not use."""
    if not processes.leads:  # the first of several processes holds it for all
        yield
        return
    with hold(store.folder):
        try:
            yield
        finally:
            store.remove_empty()


def _finish(setup: Setup, progressed: Progressed, efficiency: Efficiency) -> CheckpointConfig:
    """The config with what training found, after a look at the backbone: frozen means bit-identical.

    Raises:
        CheckpointError: a frozen backbone's weights have changed: a defect of mmrobust, not of the data.
    """
    config, backbone = copy.deepcopy(setup.config), setup.classifier.backbone
    fingerprint = backbone.fingerprint()
    if setup.classifier.method.trains_backbone:
        config.backbone["fingerprint"] = fingerprint
    elif fingerprint != config.backbone["fingerprint"]:
        raise CheckpointError("the frozen backbone's weights changed in training; please report this")
    best = progressed.records[progressed.best_epoch - 1]
    config.training.update(
        trained_parameters=efficiency.trained_parameters,
        all_parameters=efficiency.all_parameters,
        epochs=progressed.epoch,
        best_epoch=best.epoch,
        validation=best.validation,
        seconds=sum(record.seconds for record in progressed.records),
        efficiency=plain(efficiency),
    )
    return config
