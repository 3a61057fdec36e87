"""What a training begins with: the data, its missing tables, and an untrained classifier."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmrobust.configuration import from_mapping, plain
from mmrobust.data.dataset import Dataset, Split
from mmrobust.data.encoded_split import CACHE_BYTES, EncodedSplit
from mmrobust.data.format import choose_modalities
from mmrobust.data.screening import screen
from mmrobust.degradations import Noise, check_profile
from mmrobust.errors import TrainingError
from mmrobust.models.backbone import Backbone
from mmrobust.models.backbones import is_tiny, load_backbone
from mmrobust.models.backbones.tiny import make_tiny
from mmrobust.models.checkpoint import CheckpointConfig, build_classifier, config_beside_backbone, relative_place
from mmrobust.models.heads import head_class
from mmrobust.models.methods import method_class
from mmrobust.runtime.memory import MemoryBudget
from mmrobust.runtime.progress import Progress, no_progress
from mmrobust.scenarios.grid import check_rate
from mmrobust.scenarios.scenario import Scenario, training_cases
from mmrobust.storage.provenance import versions
from mmrobust.training.kept_head import take_head
from mmrobust.training.objective import multi_hot
from mmrobust.training.settings import TrainSettings
from mmrobust.training.splits import TrainingSplit
from mmrobust.training.trainable import Setup, check_trainable


def set_up(settings: TrainSettings, out: Path, *, workers: int = 0, progress: Progress = no_progress) -> Setup:
    """Read the data, draw the missing tables, load the backbone, build the classifier.

    Args:
        settings: what to train.
        out: the checkpoint folder to be; only to say where the backbone lies from there.
        workers: processes that decode; they change nothing.
        progress: shows how far the search for samples that cannot be read is, where one is asked for.

    Raises:
        MmrobustError: whatever does not exist or does not fit; nothing has been written.
    """
    method, head = method_class(settings.method), head_class(settings.head)
    method_config = from_mapping(method.config_class, settings.method_settings, f"{settings.method} method")
    head_config = from_mapping(head.config_class, settings.head_settings, f"{settings.head} head")
    check_rate(settings.missing_rate)
    noise = Noise(settings.noise_profile, settings.seed)
    dataset = Dataset(settings.data)
    modalities = choose_modalities(dataset.info, settings.modalities)
    scenario = Scenario.parse(settings.scenario, modalities)
    cases = training_cases(settings.scenario, modalities)
    check_profile((*cases, *scenario.cases), noise)
    splits, bad = {}, {}
    for name in ("train", "validation"):
        splits[name], bad[name] = screen(
            _split(dataset, name), modalities, settings.on_bad_sample, workers=workers, progress=progress
        )

    backbone = _load(settings, modalities, splits["train"])
    backbone_settings = _backbone_settings(settings)
    backbone.configure(backbone_settings)
    stored = method.trains_backbone or is_tiny(settings.backbone)
    config = CheckpointConfig(
        method={"name": settings.method, **plain(method_config)},
        head={"name": settings.head, **plain(head_config)},
        backbone={
            "id": settings.backbone,
            "path": None if stored else relative_place(settings.backbone, out),
            "family": backbone.family,
            "stored": stored,
            "fingerprint": backbone.fingerprint(),
            "settings": backbone_settings,
        },
        modalities=list(backbone.modalities),
        classes=list(dataset.info.classes),
        task=dataset.info.task,
        headline_metric=dataset.info.headline_metric,
        cases=[case.name for case in training_cases(settings.scenario, backbone.modalities)],
        fill=settings.fill,
        dataset={"name": dataset.info.name, "fingerprint": dataset.info.fingerprint},
        training={
            "scenario": settings.scenario,
            "missing_rate": settings.missing_rate,
            "noise_profile": settings.noise_profile,
            "seed": settings.seed,
            "recipe": plain(settings.recipe),
            "recipe_name": settings.recipe_name,
            **{f"bad_samples_{name}": found.describe() for name, found in bad.items() if found.found},
        },
        versions=versions(),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        classifier = build_classifier(backbone, config)
    memory = MemoryBudget(CACHE_BYTES)
    head_taken = method.reuses_head and take_head(classifier, config, settings.backbone)

    def under_table(name: str) -> TrainingSplit:
        split = splits[name]
        encoded = EncodedSplit(
            split, backbone.processor, backbone.modalities, settings.fill, noise, workers=workers, memory=memory
        )
        targets, nobody = multi_hot(split.labels, len(dataset.info.classes)), np.empty(0, dtype=object)
        return TrainingSplit(encoded, nobody, targets, scenario, settings.missing_rate).drawn(settings.seed)

    setup = Setup(classifier, config, under_table("train"), under_table("validation"), head_taken)
    check_trainable(setup, settings.recipe, settings.seed)
    return setup


def _split(dataset: Dataset, name: str) -> Split:
    if name not in dataset.splits:
        raise TrainingError(
            f"{dataset.folder}: has no split '{name}' ({', '.join(dataset.splits)} only); "
            "training needs train and validation"
        )
    return dataset.split(name)


def _load(settings: TrainSettings, modalities: tuple[str, ...], train: Split) -> Backbone:
    if is_tiny(settings.backbone):
        return make_tiny(settings.backbone, modalities, train, settings.seed)
    return load_backbone(settings.backbone, modalities)


def _backbone_settings(settings: TrainSettings) -> dict[str, Any]:
    """What was asked for, and for the rest how the fine-tuned checkpoint ran; its dropout was for its own training."""
    holder = config_beside_backbone(settings.backbone)
    theirs = holder.backbone.get("settings", {}) if holder else {}
    return {name: value for name, value in theirs.items() if name != "dropout"} | settings.backbone_settings
