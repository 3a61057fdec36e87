"""The objective and its optimisation: losses by task, parameter groups, learning rate schedule."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from mmrobust.models.classifier import Classifier
from mmrobust.storage.tasks import REGRESSION, Label
from mmrobust.training.recipe import ADAM, BCE, TASK, Recipe

RAREST = 1000.0
"""Negatives for one positive beyond which the weight of positives no longer grows."""


def multi_hot(labels: Sequence[Sequence[int]], classes: int) -> Tensor:
    """Multi-hot labels [N, classes]."""
    targets = torch.zeros(len(labels), classes)
    for row, label in enumerate(labels):
        targets[row, list(label)] = 1.0
    return targets


def label_tensor(labels: Sequence[Label], classes: int, task: str) -> Tensor:
    """What is learned from N ``labels``: multi-hot [N, classes], or in a regression task the numbers [N, 1]."""
    return torch.tensor(labels, dtype=torch.float32) if task == REGRESSION else multi_hot(labels, classes)


def positive_weights(targets: Tensor, balance: float) -> Tensor:
    """Weights [classes] of the positives of each class in the multi-hot ``targets`` [N, classes].

    (negatives / positives)^``balance``: with 0 all are 1, with 1 the positives and negatives of a class weigh the same.
    Positives never weigh less than negatives.
    """
    share = targets.mean(0).clamp(min=1 / RAREST)
    return ((1 - share) / share).clamp(min=1.0) ** balance


def log_odds(targets: Tensor) -> Tensor:
    """Log-odds [classes] of each class in the ``targets`` [N, classes], with half a sample more on either side."""
    positives = targets.sum(0) + 0.5
    return (positives / (len(targets) + 1 - positives)).log()


def loss(
    logits: Tensor,
    targets: Tensor,
    task: str,
    label_smoothing: float,
    kind: str = TASK,
    positive_weight: Tensor | None = None,
    scale: float = 1.0,
) -> Tensor:
    """Cross entropy, summed over the batch (multi-label: binary cross entropy, mean over classes).

    Of a regression task, whatever the ``kind``: the smooth L1 loss in standard deviations of the training labels, of
    which ``scale`` is one. It is quadratic up to one deviation and linear beyond (Girshick, Fast R-CNN, ICCV 2015), so
    that single large errors do not decide, as in the mean absolute error by which epochs are chosen.

    ``logits`` and the multi-hot ``targets`` are [B, classes]; ``label_smoothing`` is the share s of the target that is
    spread over all classes (multi-label: moved towards 1/2). The recipe's ``loss`` is the ``kind``: ``bce`` is
    CAV-MAE's, whatever the task: binary cross entropy against soft labels, 1 − s for a true class and s / classes for
    the others, mean over classes. ``positive_weight`` [classes] is that of the positives of each class in a multi-label
    task; ``None``: 1.
    """
    if task == REGRESSION:
        return F.smooth_l1_loss(logits / scale, targets / scale, reduction="sum")
    if kind == BCE:
        soft = torch.where(targets > 0, 1 - label_smoothing, label_smoothing / targets.shape[1])
        return F.binary_cross_entropy_with_logits(logits, soft, reduction="none").mean(1).sum()
    if task == "multi-label":
        smoothed = targets * (1 - label_smoothing) + label_smoothing / 2
        bce = F.binary_cross_entropy_with_logits(logits, smoothed, reduction="none", pos_weight=positive_weight)
        return bce.mean(1).sum()
    return F.cross_entropy(logits, targets.argmax(1), label_smoothing=label_smoothing, reduction="sum")


def make_optimizer(classifier: Classifier, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimiser over all trained parameters.

    Weight decay applies to matrices and prompts, not to vectors (biases, norms, scales). The head has its own learning
    rate, and parts of the backbone may have (:meth:`Backbone.lr_scale`): ``lr_scale`` multiplies the schedule's.
    """
    groups: list[dict[str, Any]] = []
    trained, backbone = classifier.trained(), classifier.backbone
    parts = {name: (name.startswith("head."), backbone.lr_scale(name.removeprefix("backbone."))) for name in trained}
    for part in dict.fromkeys(((False, 1.0), (True, 1.0), *parts.values())):
        own = [parameter for name, parameter in trained.items() if parts[name] == part]
        scale = recipe.head_lr if part[0] else part[1]
        groups += [
            {"params": [p for p in own if p.ndim > 1], "weight_decay": recipe.weight_decay, "lr_scale": scale},
            {"params": [p for p in own if p.ndim <= 1], "weight_decay": 0.0, "lr_scale": scale},
        ]
    kind = torch.optim.Adam if recipe.optimizer == ADAM else torch.optim.AdamW
    fused = next(classifier.parameters()).device.type == "cuda"  # one kernel instead of one for each parameter
    return kind(groups, lr=recipe.lr, betas=recipe.betas, fused=fused)


def learning_rate(recipe: Recipe, step: int, steps: int) -> float:
    """Learning rate at ``step`` of ``steps``: a linear warm-up, then the recipe's schedule."""
    warmup = int(recipe.warmup * steps)
    if step < warmup:
        return recipe.lr * step / warmup
    done = (step - warmup) / max(1, steps - warmup)
    factor = {"linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2, "constant": 1.0}[recipe.schedule]
    return recipe.lr * factor
