"""Recipes: the settings of the optimiser, the batches and the validation."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from mmrobust.errors import UsageError, unknown_name
from mmrobust.models.backbones import TINY, is_built
from mmrobust.models.methods import method_class

SCHEDULES = ("linear", "cosine", "constant")
ADAMW, ADAM = OPTIMIZERS = ("adamw", "adam")
TASK, BCE, HEAD = LOSSES = ("task", "bce", "head")
MIXED, CASE_WISE = BATCHINGS = ("mixed", "case-wise")
TABLE, GRID = VALIDATIONS = ("table", "grid")


@dataclass(frozen=True)
class Recipe:
    """Settings of a training. The defaults are MMP's for prompts (Lee et al., CVPR 2023), except for the batch size.

    Raises:
        UsageError: a value out of range.
    """

    epochs: int = 20
    """Passes over the data."""
    batch_size: int = 64
    """Samples per step."""
    lr: float = 1e-2
    """Peak learning rate."""
    head_lr: float = 1.0
    """The head's learning rate, as a multiple of ``lr``."""
    optimizer: str = ADAMW
    """``adamw``, or ``adam``, whose weight decay is part of the gradient."""
    weight_decay: float = 2e-2
    """Not applied to biases, norms and scales."""
    betas: tuple[float, float] = (0.9, 0.98)
    """How slowly the optimiser forgets: the decay of its means of the gradient and of the squared gradient."""
    warmup: float = 0.1
    """Share of all steps over which the learning rate rises from 0."""
    schedule: str = "linear"
    """After the warm-up: ``linear`` or ``cosine`` decay to 0, or ``constant``."""
    loss: str = TASK
    """``task``: cross entropy, or binary cross entropy for multi-label data; ``bce``: binary cross entropy whatever the
    task; ``head``: whichever of the two the head of the fine-tuned checkpoint was trained with. Regression has one
    loss, smooth L1, and neither smoothing, ``balance`` nor ``prior``."""
    label_smoothing: float = 0.0
    """Share of the target that is spread evenly over all classes."""
    balance: float = 0.75
    """Multi-label data: positives of a class weigh (negatives / positives)^``balance``. 0: as much as negatives, as in
    the papers' code; 1: all positives of a class together as much as all negatives."""
    prior: bool = True
    """Multi-label data: the biases of a linear or mlp head start at the log-odds of each class, not at random."""
    batching: str = MIXED
    """``mixed``: a batch's samples are in the cases of the missing table; ``case-wise``: each batch runs in every case,
    one step per case, and validation is the mean over the cases."""
    share: float = 1.0
    """Share of the training split to train on, chosen by the seed."""
    draws: int = 1
    """Number of draws of the missing table and the noise through which the epochs cycle. 1: every sample keeps its case
    and its noise (MMP's fixed tables; frozen outputs are computed once). 0: both are redrawn in each epoch (MMP's
    ``simulate_missing``; under ``missing-both`` that is modality dropout)."""
    accumulate: int = 1
    """Number of parts that a batch is split into, for gradient accumulation."""
    checkpointing: bool = False
    """Activation checkpointing: activations are recomputed in the backward pass. Slower, but takes the memory of one
    layer instead of all."""
    clip: float = 1.0
    """Largest norm of the gradient; 0: no clipping."""
    augment: bool = False
    """Whether training samples are randomly augmented (see ``training/augmentation.py``)."""
    validate_on: str = TABLE
    """What decides the best epoch: the validation split under the training scenario (``table``), or the mean over a
    small grid of all scenarios at the rates 0, 0.5 and 1 (``grid``)."""
    patience: int = 0
    """Epochs without improvement after which training stops; 0: never."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "betas", tuple(self.betas))
        names = {"schedule": SCHEDULES, "optimizer": OPTIMIZERS, "loss": LOSSES, "batching": BATCHINGS}
        names |= {"validate_on": VALIDATIONS}
        for name, known in names.items():
            if getattr(self, name) not in known:
                raise unknown_name(name, getattr(self, name), known)
        checks = {
            "epochs": self.epochs >= 1,
            "batch_size": self.batch_size >= 1,
            "lr": 0 < self.lr < float("inf"),
            "head_lr": 0 < self.head_lr < float("inf"),
            "weight_decay": self.weight_decay >= 0,
            "betas": len(self.betas) == 2 and all(0 <= beta < 1 for beta in self.betas),
            "warmup": 0 <= self.warmup < 1,
            "balance": 0 <= self.balance <= 1,
            "label_smoothing": 0 <= self.label_smoothing < 1,
            "share": 0 < self.share <= 1,
            "draws": self.draws >= 0,
            "accumulate": self.accumulate >= 1,
            "clip": self.clip >= 0,
            "patience": self.patience >= 0,
        }
        for name, good in checks.items():
            if not good:
                raise UsageError(f"recipe setting {name} = {getattr(self, name)} is out of range")

    def changed(self, **values: Any) -> Recipe:
        """A copy with those ``values`` that are not ``None``."""
        return dataclasses.replace(self, **{key: value for key, value in values.items() if value is not None})


DEFAULT = Recipe()


JOINT_LR = 3e-4
"""Peak learning rate of a joint stream over encoders that stay frozen and features."""


def default_recipe(method: str, backbone: str, encoders: Collection[str] = ()) -> Recipe:
    """The recipe of a training that names none: the method's own (:meth:`Method.default_recipe`).

    ``encoders`` are those of a new ``towers``. Where none is a small one of our own, which learns from the training
    split alone, steps are smaller; where one is not, samples are not augmented: what is frozen is computed once.
    """
    recipe = Recipe(**method_class(method).default_recipe(random_weights=is_built(backbone)))
    if not encoders or not method_class(method).trains_backbone:
        return recipe
    own = [encoder == TINY for encoder in encoders]
    return recipe.changed(augment=recipe.augment and all(own), lr=None if any(own) else JOINT_LR)
