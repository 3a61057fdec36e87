"""The head of a fine-tuned checkpoint, for methods that prompt a model which knows its classes already."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from mmrobust.errors import UsageError
from mmrobust.models.checkpoint import (
    WEIGHTS,
    WEIGHTS_FILE,
    CheckpointConfig,
    classes_fit,
    config_beside_backbone,
    head_config,
)
from mmrobust.models.classifier import Classifier
from mmrobust.models.heads import head_class
from mmrobust.models.methods import method_class
from mmrobust.storage.weights import check_finite, read_weights
from mmrobust.training.recipe import BCE, TASK

PREFIX = "head."


def take_head(classifier: Classifier, config: CheckpointConfig, backbone: str) -> bool:
    """Give ``classifier`` the trained head of the checkpoint that its backbone comes from; whether there was one.

    The head is overwritten where the other is of the same kind, classes and sizes. ``config`` is the classifier's.

    Raises:
        UsageError: there is no such head, and the method does not train one.
        CheckpointError: the checkpoint cannot be read.
    """
    theirs = config_beside_backbone(backbone)
    if theirs is None:
        reason = "is no fine-tuned checkpoint"
    elif not method_class(theirs.method["name"]).trains_backbone:
        reason = f"was made by --method {theirs.method['name']}: its head is trained for that method's features"
    elif theirs.head["name"] != config.head["name"]:
        reason = f"has a {theirs.head['name']} head, not {config.head['name']}"
    elif _score_settings(theirs) != _score_settings(config):
        reason = f"has a {theirs.head['name']} head of other settings"
    elif not classes_fit(theirs, config.classes, config.task):
        reason = f"has a head for other classes ({len(theirs.classes)}, {theirs.task})"
    elif theirs.label_scale != config.label_scale:
        reason = "has a head for labels of another mean and deviation"
    elif not _copy_head(classifier, Path(backbone) / WEIGHTS_FILE):
        reason = f"has a {theirs.head['name']} head of other sizes, settings or cases"
    else:
        return True
    if classifier.method.trains_head:
        return False
    raise UsageError(
        f"method {classifier.method.name} keeps the head of the fine-tuned backbone as it is, but {backbone} {reason}: "
        f"name a checkpoint made by --method full --head {config.head['name']}, or train the head with --train-head"
    )


def _score_settings(config: CheckpointConfig) -> list[Any]:
    """The values of the head's settings without which equal weights are not the same head."""
    settings = head_config(config)
    return [getattr(settings, name) for name in head_class(config.head["name"]).score_settings]


def head_loss(backbone: str) -> str:
    """The recipe's ``loss`` that the head of the checkpoint ``backbone`` was fine-tuned with.

    BCE, CAV-MAE's and Prompt the Missing's own, where there is none or no recipe tells (an imported one).

    Raises:
        CheckpointError: the checkpoint cannot be read.
    """
    theirs = config_beside_backbone(backbone)
    recipe = theirs.training.get("recipe") if theirs else None
    return str(recipe.get("loss", TASK)) if recipe else BCE


def _copy_head(classifier: Classifier, file: Path) -> bool:
    """Copy the head in ``file``, and say so; where its names or shapes are not the classifier's, copy nothing."""
    tensors = read_weights(file, WEIGHTS)
    found = {name.removeprefix(PREFIX): t for name, t in tensors.items() if name.startswith(PREFIX)}
    check_finite(found, file)
    own = dict(classifier.head.named_parameters())
    if {n: p.shape for n, p in own.items() if p.requires_grad or n in found} != {n: t.shape for n, t in found.items()}:
        return False
    with torch.no_grad():
        for name, tensor in found.items():
            own[name].copy_(tensor)
    return True
