"""Training, from settings to a checkpoint: :func:`train`, the same for every method."""

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
from mmrobust.models.prediction.held_weights import held_in_bfloat16
from mmrobust.runtime.devices import device_errors, resolve_device, resolve_dtype
from mmrobust.runtime.progress import Progress, Say, no_progress, say_nothing
from mmrobust.storage.files import atomic_file, is_there, refuse_to_overwrite, remove_partial, writing
from mmrobust.storage.fingerprints import fingerprint_settings, fingerprint_tensors
from mmrobust.storage.locks import hold
from mmrobust.storage.weights import check_place
from mmrobust.training.cost import TrainingCost
from mmrobust.training.distributed import ProcessGroup, local_device, process_group
from mmrobust.training.feature_cache import Cache
from mmrobust.training.pretrained_head import head_loss
from mmrobust.training.recipe import HEAD
from mmrobust.training.settings import TrainSettings
from mmrobust.training.setup import Setup, set_up
from mmrobust.training.state import StateStore, TrainingState, is_unfinished, remove_state
from mmrobust.training.trainer import OnEpoch, OnStep, Trainer
from mmrobust.training.validation import check_trainable

SMALLER = "take a smaller --batch-size, --recipe-set accumulate=2 or checkpointing=true, or another --device"

PREDICTS_NOTHING = (
    "no score passes 0.5 on the validation split: the classifier predicts no class of any sample, and every F1 is 0; "
    "train longer (--epochs) or with a larger --lr, weigh positives more (--recipe-set balance=1), or prepare the data "
    "with --metric map, which needs no threshold"
)


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
    remark: Say = say_nothing,
    on_epoch: OnEpoch = lambda record, best: None,
    on_step: OnStep = lambda record: None,
) -> CheckpointConfig:
    """Train a classifier and write its checkpoint to ``out``; returns the checkpoint's config, as it was written.

    On a CPU, the same settings give the same bits. Started by ``torchrun`` or ``accelerate launch``, every process
    takes its share of each batch.

    Args:
        settings: what to train, on which data, and how.
        out: the checkpoint folder. Until the training is finished it holds only the state to resume from.
        resume: continue the training that was started in ``out``; start one where there is none.
        device: ``cpu``, ``cuda``, ``cuda:N`` or ``auto``.
        dtype: ``float32``, ``bfloat16`` (for matrix products) or ``auto``.
        workers: processes that decode samples; the result does not depend on them.
        cache: whether and where frozen outputs are cached; it changes numbers by no more than float rounding. A folder
            also keeps encoded inputs, which change nothing.
        progress: shows how far it is.
        remark: called with a line about classes that are in no training sample, and about a classifier that predicts
            nothing.
        on_epoch: called after each epoch.
        on_step: called after each step; on a GPU, after every eighth.

    Raises:
        MmrobustError: settings or data that do not fit, an ``out`` that holds something else, or a loss that became NaN
            or infinite.
        Interrupted: Ctrl-C; finished epochs are kept.
    """
    check_place(out)
    if resume and is_there(out / CONFIG_FILE):
        config = CheckpointConfig.read(out)
        remove_state(out)  # left by a training that was killed between its last two steps
        return config
    if is_unfinished(out) and not resume:
        raise UsageError(f"{out}: holds an unfinished training; continue it with --resume, or remove the folder")
    if not is_unfinished(out):
        refuse_to_overwrite(out, "checkpoint")
        if resume:
            remark(f"{out}: holds no training to resume; this one starts")
    place = resolve_device(local_device(device))
    dtype = resolve_dtype(dtype, place)
    cache = cache or Cache()
    if settings.recipe.loss == HEAD:
        recipe = settings.recipe.changed(loss=head_loss(settings.backbone))
        settings = dataclasses.replace(settings, recipe=recipe)

    setup = set_up(settings, out, workers=workers, cache=cache.folder, progress=progress)
    check_trainable(setup, settings.recipe, settings.seed)
    if setup.untrained:
        remark(setup.untrained)
    setup.classifier.to(place)
    setup.classifier.dtype = dtype
    setup.classifier.backbone.checkpointing = settings.recipe.checkpointing

    store = StateStore(out, _identity(setup, settings, dtype, cache), dtype, plain(settings))
    kept = "finished epochs are kept; run the same command with --resume to continue"
    with (
        writing(out, kept),
        device_errors(place, SMALLER, kept),
        process_group(place) as processes,
        _locked(store, processes),
    ):
        trainer = Trainer(setup, settings, store, cache, processes, progress, on_epoch, on_step)
        with held_in_bfloat16(setup.classifier, frozen=True):
            state = trainer.fit()
        if setup.classifier.task == "multi-label" and trainer.validate().predicts_nothing:
            remark(PREDICTS_NOTHING)
        config = _final_config(setup, state, trainer.cost(state))
        if processes.is_main:
            curves = pd.DataFrame([dataclasses.asdict(record) for record in state.records])
            with atomic_file(out / CURVES_FILE) as partial:
                curves.to_parquet(partial, index=False)
            write_card(out, out.resolve().name, config)
            save_checkpoint(out, setup.classifier, config)  # writes the config last: it marks the training as finished
            remove_state(out)
        processes.barrier()
    return config


def _identity(setup: Setup, settings: TrainSettings, dtype: str, cache: Cache) -> str:
    """Fingerprint of everything that decides the result of a training: a state is only resumed under the same one."""
    backbone, head = setup.classifier.backbone, setup.classifier.head
    return fingerprint_settings(
        {"settings": plain(settings), "data": setup.config.dataset, "dtype": dtype, "cached": cache.on}
        | {"head": fingerprint_tensors(dict(head.named_parameters()))}
        | {"backbone": setup.config.backbone["fingerprint"], "inputs": backbone.inputs_fingerprint()}
    )


@contextmanager
def _locked(store: StateStore, processes: ProcessGroup) -> Iterator[None]:
    """Lock the training's folder against other runs, and remove it again if there is nothing to resume from."""
    if not processes.is_main:  # the main process locks it for all
        yield
        return
    with hold(store.folder):
        remove_partial(store.folder)
        try:
            yield
        finally:
            store.remove_empty()


def _final_config(setup: Setup, state: TrainingState, cost: TrainingCost) -> CheckpointConfig:
    """The config with the results of the training, once the frozen backbone is found to be bit-identical.

    Raises:
        CheckpointError: a frozen backbone's weights have changed: a bug in mmrobust.
    """
    config, backbone = copy.deepcopy(setup.config), setup.classifier.backbone
    fingerprint = backbone.fingerprint()
    if setup.classifier.method.trains_backbone:
        config.backbone["fingerprint"] = fingerprint
    elif fingerprint != config.backbone["fingerprint"]:
        raise CheckpointError("the frozen backbone's weights changed in training; please report this")
    best = state.records[state.best_epoch - 1]
    config.training.update(
        trained_parameters=cost.trained_parameters,
        all_parameters=cost.all_parameters,
        epochs=state.epoch,
        best_epoch=best.epoch,
        validation=best.validation,
        seconds=sum(record.seconds for record in state.records),
        efficiency=plain(cost),
    )
    return config
