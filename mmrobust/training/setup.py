"""Setting up a training: read the data, draw the missing tables, load the backbone, build the classifier."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmrobust.configuration import from_mapping, plain
from mmrobust.data.class_balance import untrained
from mmrobust.data.dataset import Dataset, Split
from mmrobust.data.encoded_split import CACHE_BYTES, EncodedSplit
from mmrobust.data.format import DatasetInfo, choose_modalities
from mmrobust.data.selection import BadSamples, screen
from mmrobust.degradations import check_noise, check_profile, check_recordings
from mmrobust.errors import DataError, TrainingError, UsageError
from mmrobust.models.backbone import Backbone
from mmrobust.models.backbones import TINY_TOWERS, TOWERS, is_built, is_tiny, load_backbone
from mmrobust.models.backbones.tiny import fitting_tiny, make_tiny, make_towers
from mmrobust.models.backbones.towers import TowersSettings
from mmrobust.models.checkpoint import CheckpointConfig, build_classifier, config_beside_backbone, relative_place
from mmrobust.models.classifier import Classifier
from mmrobust.models.methods import method_class
from mmrobust.runtime.machine import MemoryBudget
from mmrobust.runtime.progress import Progress, no_progress
from mmrobust.scenarios.scenario import Scenario, training_cases
from mmrobust.storage.provenance import versions
from mmrobust.storage.tasks import REGRESSION
from mmrobust.training.objective import label_tensor, log_odds
from mmrobust.training.pretrained_head import take_head
from mmrobust.training.recipe import CASE_WISE
from mmrobust.training.settings import NEEDED_SPLITS, TrainSettings, check_splits
from mmrobust.training.splits import TrainingSplit, possible_cases

OF_ONE_TRAINING = ("dropout", "train_encoders")
"""Settings of a fine-tuned backbone that were for its own training."""


@dataclass(frozen=True)
class Setup:
    """A classifier, and the splits that it trains and is validated on."""

    classifier: Classifier
    config: CheckpointConfig
    train: TrainingSplit
    validation: TrainingSplit
    head_taken: bool
    """Whether the head comes from a fine-tuned checkpoint, so that it needs no initialisation."""
    untrained: str = ""
    """A line about the classes that are in no training sample, but in others; empty where there is none."""


def set_up(
    settings: TrainSettings, out: Path, *, workers: int = 0, cache: Path | None = None, progress: Progress = no_progress
) -> Setup:
    """Set up a training; nothing is written.

    ``out`` is the future checkpoint folder, from which the backbone's relative path is taken; ``workers`` processes
    decode samples; ``cache`` is a folder that keeps encoded inputs; ``progress`` shows the search for unreadable
    samples, where one is asked for.

    Raises:
        MmrobustError: something does not exist or does not fit.
    """
    settings.method_config(), settings.head_config()  # a wrong setting is found before data are read
    dataset = Dataset(settings.data, cache)
    modalities = choose_modalities(dataset.info, settings.modalities)
    scenario = Scenario.parse(settings.scenario, modalities)
    cases = (*training_cases(settings.scenario, modalities), *scenario.cases)
    check_profile(cases, settings.noise(), dataset.info.kinds)
    for case in cases:
        check_noise(case, dataset.info.kinds)
    splits: dict[str, Split] = {}
    bad: dict[str, BadSamples] = {}
    check_splits(dataset.folder, dataset.info)
    for name in NEEDED_SPLITS:
        split = dataset.split(name)
        splits[name], bad[name] = screen(split, modalities, settings.on_bad_sample, workers=workers, progress=progress)

    backbone_settings = _backbone_settings(settings)
    backbone = _backbone(settings, backbone_settings, modalities, splits["train"])
    backbone.configure(backbone_settings)
    if backbone.glance is not None and method_class(settings.method).trains_backbone:
        backbone.glance.reset(len(dataset.info.classes))  # it is fitted to these data
    for case in scenario.cases:
        check_recordings(case, backbone.processor.recordings, "the encoder")

    config = _config(settings, backbone, backbone_settings, dataset.info, bad, out)
    if config.task == REGRESSION:
        config = dataclasses.replace(config, label_scale=_label_scale(splits["train"]))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        classifier = build_classifier(backbone, config)
    head_taken = classifier.method.reuses_head and take_head(classifier, config, settings.backbone)

    memory, noise = MemoryBudget(CACHE_BYTES), settings.noise()

    def draw(name: str) -> TrainingSplit:
        split = splits[name]
        encoded = EncodedSplit(
            split, backbone.processor, backbone.modalities, settings.fill, noise, workers=workers, memory=memory
        )
        targets = label_tensor(split.labels, len(dataset.info.classes), config.task)
        return TrainingSplit.draw(encoded, targets, scenario, settings.missing_rate, settings.seed)

    train = draw("train")
    if config.task == "multi-label" and settings.recipe.prior and not head_taken:
        classifier.head.start_at(log_odds(train.targets))
    classifier.head.train_under(classifier.cases if settings.recipe.batching == CASE_WISE else possible_cases(train))
    return Setup(classifier, config, train, draw("validation"), head_taken, _untrained(dataset))


def _label_scale(train: Split) -> dict[str, float]:
    """Mean and standard deviation of the numbers of the training split."""
    values = np.asarray(train.labels, dtype=np.float64)
    mean, std = float(values.mean()), float(values.std())
    if not std > 0:
        raise TrainingError(f"every training label of {train.info.classes[0]} is {mean:g}: there is nothing to learn")
    return {"mean": mean, "std": std}


def _untrained(dataset: Dataset) -> str:
    """A line about the classes that are in no training sample; of a split that cannot be read, nothing is said."""
    if dataset.info.task == REGRESSION:
        return ""
    samples: dict[str, Counter[int]] = {}
    for name in dataset.splits:
        with suppress(DataError):
            samples[name] = Counter(label for labels in dataset.split(name).labels for label in labels)
    return untrained(dataset.info.classes, samples)


def _backbone(
    settings: TrainSettings, backbone_settings: dict[str, Any], modalities: tuple[str, ...], train: Split
) -> Backbone:
    """The backbone that is named, built or loaded."""
    name = settings.backbone
    if name == "tiny":
        name = fitting_tiny(modalities, train.info.kinds)
    if is_built(name) and name in (TOWERS, TINY_TOWERS):
        sizes = from_mapping(TowersSettings, backbone_settings, f"{TOWERS} backbone").sizes()
        return make_towers(modalities, train, settings.seed, settings.encoders, sizes, name)
    if settings.encoders:
        raise UsageError(f"--encoder: backbone {settings.backbone} has its own encoders; it is for --backbone {TOWERS}")
    if is_tiny(name):
        return make_tiny(name, modalities, train, settings.seed)
    return load_backbone(name, modalities)


def _backbone_settings(settings: TrainSettings) -> dict[str, Any]:
    """The settings asked for, over those of the fine-tuned checkpoint but for those :data:`OF_ONE_TRAINING`."""
    holder = config_beside_backbone(settings.backbone)
    theirs = holder.backbone.get("settings", {}) if holder else {}
    return {name: value for name, value in theirs.items() if name not in OF_ONE_TRAINING} | settings.backbone_settings


def _config(
    settings: TrainSettings,
    backbone: Backbone,
    backbone_settings: dict[str, Any],
    info: DatasetInfo,
    bad: Mapping[str, BadSamples],
    out: Path,
) -> CheckpointConfig:
    """The checkpoint's config, as far as it is known before training."""
    stored = method_class(settings.method).trains_backbone or is_built(settings.backbone)
    return CheckpointConfig(
        method={"name": settings.method, **plain(settings.method_config())},
        head={"name": settings.head, **plain(settings.head_config())},
        backbone={
            "id": settings.backbone,
            "path": None if stored else relative_place(settings.backbone, out),
            "family": backbone.family,
            "stored": stored,
            "fingerprint": backbone.fingerprint(),
            "settings": backbone_settings,
            **backbone.described(),
        },
        modalities=list(backbone.modalities),
        classes=list(info.classes),
        task=info.task,
        headline_metric=info.headline_metric,
        cases=[case.name for case in training_cases(settings.scenario, backbone.modalities)],
        fill=settings.fill,
        dataset={"name": info.name, "fingerprint": info.fingerprint},
        training={
            "scenario": settings.scenario,
            "missing_rate": settings.missing_rate,
            "noise_profile": settings.noise_profile,
            "seed": settings.seed,
            "recipe": plain(settings.recipe),
            "recipe_name": settings.recipe_name,
            **{f"bad_samples_{split}": found.describe() for split, found in bad.items() if found.found},
        },
        versions=versions(),
    )
