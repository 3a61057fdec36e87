"""The expected cost of a study, from timed steps of each kind of job."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from mmrobust.cases import SITUATION, Case
from mmrobust.data.dataset import Dataset
from mmrobust.data.selection import select_samples
from mmrobust.errors import MmrobustError
from mmrobust.evaluation.plan import DrawnGrid
from mmrobust.models.checkpoint import trained_tensors
from mmrobust.models.methods import method_class
from mmrobust.models.prediction.classifier_model import ClassifierModel
from mmrobust.runtime.devices import resolve_device, resolve_dtype
from mmrobust.runtime.progress import Progress, no_progress
from mmrobust.studies.jobs import Job
from mmrobust.studies.study import Study
from mmrobust.training.cost import Stopwatch
from mmrobust.training.feature_cache import Cache, StreamCache, make_source
from mmrobust.training.objective import loss
from mmrobust.training.recipe import HEAD, TASK
from mmrobust.training.setup import set_up
from mmrobust.training.sources import FeatureRequest
from mmrobust.training.splits import count, epoch_batches, training_share
from mmrobust.training.validation import check_trainable

BYTES_PER_ROW = 60
"""Size of a row of predictions, without its logits."""


@dataclass(frozen=True)
class Estimate:
    """The expected cost of a job."""

    seconds: float
    disk: int
    """Bytes of checkpoint and predictions."""


def estimate(
    study: Study,
    jobs: Sequence[Job],
    scratch: Path,
    device: str = "cpu",
    dtype: str = "float32",
    progress: Progress = no_progress,
) -> dict[str, Estimate]:
    """Job name → its expected cost on this machine. Jobs that differ only in their seed are timed once.

    Loading, training, validation and prediction are counted; the start of each process and scoring are not.

    Students are timed on the untrained backbone of their teacher, which costs the same. Temporary files go into
    ``scratch``. ``progress`` counts the jobs.

    Raises:
        MmrobustError: as for :func:`mmrobust.training.setup.set_up`; or no such device or dtype.
    """
    place = resolve_device(device)
    dtype = resolve_dtype(dtype, place)
    kinds: dict[tuple[object, ...], Estimate] = {}
    found = {}
    with progress("time a few steps of each", len(jobs)) as advance:
        for job in jobs:
            kind = (job.dataset, job.method, job.head, job.trained_under, job.settings.recipe)
            if kind not in kinds:
                try:
                    kinds[kind] = _timed(study, job, scratch, place, dtype)
                except MmrobustError as cause:
                    raise job.error(cause) from cause
            found[job.name] = kinds[kind]
            advance(1)
    return found


def _timed(study: Study, job: Job, scratch: Path, device: torch.device, dtype: str) -> Estimate:
    settings = job.settings
    if job.needs_teacher:
        head = {"train_head": True} if method_class(settings.method).reuses_head else {}  # there is no head to keep yet
        settings = replace(settings, backbone=job.base_backbone, method_settings={**settings.method_settings, **head})
    recipe = settings.recipe.changed(loss=TASK if settings.recipe.loss == HEAD else settings.recipe.loss)
    clock = Stopwatch(device)
    setup = set_up(settings, scratch)
    loading = clock.seconds()
    check_trainable(setup, recipe, settings.seed)
    classifier, split = setup.classifier, setup.train
    classifier.to(device)
    classifier.dtype = dtype
    cases = [Case.parse(name, classifier.modalities) for name in classifier.cases]
    chosen = training_share(split.encoded.split.ids, recipe.share, settings.seed)
    batches = epoch_batches(split, chosen, recipe, cases)
    samples, validated = sum(count(batch) for batch in batches), len(setup.validation.table)
    source = make_source(classifier, split.encoded, Cache(), scratch, {}, augmented=recipe.augment)
    name, positions = max(batches[0].items(), key=lambda item: len(item[1]))
    case, noise = Case.parse(name, classifier.modalities), split.encoded.noise

    clock = Stopwatch(device)
    source.prepare([FeatureRequest(case, noise, positions)], lambda n: None)
    filling = clock.seconds() / len(positions)
    classifier.train(True)
    seconds = []
    for _ in range(3):  # the first step decodes samples and warms up, and one may be held up by other work
        clock = Stopwatch(device)
        features = source.features(positions, case, noise)
        targets = split.targets[positions].to(device)
        logits, own = classifier.learn(features, name, targets)
        value = loss(logits, targets, classifier.task, recipe.label_smoothing, recipe.loss) + own
        value.backward()  # type: ignore[no-untyped-call]  # torch's stub
        seconds.append(clock.seconds() / len(positions))
    classifier.train(False)
    clock = Stopwatch(device)
    with torch.no_grad(), classifier.autocast():
        classifier.head(source.features(positions, case, noise), classifier.told(name, SITUATION))
    forward = clock.seconds() / len(positions)
    grid = study.evaluate.grid(classifier.modalities)
    drawn = DrawnGrid.draw(grid, select_samples(Dataset(settings.data), "test"), classifier.modalities)
    predictions = sum(map(len, drawn.plan(ClassifierModel(classifier).promptings).values()))
    once = filling * (samples + validated) if isinstance(source, StreamCache) else seconds[0] * len(chosen)
    epoch = min(seconds[1:]) * samples + forward * validated
    total = once + recipe.epochs * epoch + max(forward, filling) * predictions
    total += 2 * loading  # to train, and to evaluate
    weights = sum(tensor.nbytes for tensor in trained_tensors(classifier).values())
    if setup.config.backbone["stored"] and not job.needs_teacher:
        weights += sum(tensor.nbytes for tensor in classifier.backbone.weights().values())
    return Estimate(total, weights + predictions * (4 * len(classifier.classes) + BYTES_PER_ROW))
