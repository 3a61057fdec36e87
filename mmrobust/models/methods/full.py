"""``full``: complete fine-tuning. Everything trains, and the checkpoint holds the backbone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from mmrobust.models.methods.base import Method


class FullFineTuning(Method):
    """Train every weight of the backbone: a baseline, and how a tiny backbone gets its weights."""

    name = "full"
    trains_backbone = True
    trains_pooling = True
    recipe: ClassVar[Mapping[str, Any]] = {
        "epochs": 10,
        "batch_size": 32,
        "lr": 5e-5,  # small steps: the weights are pretrained
        "weight_decay": 1e-2,
        "betas": (0.9, 0.999),
    }
    recipe_from_scratch: ClassVar[Mapping[str, Any]] = {
        "epochs": 30,
        "batch_size": 32,
        "lr": 1e-3,
        "weight_decay": 5e-2,
        "betas": (0.9, 0.999),
        "schedule": "cosine",
        "label_smoothing": 0.1,
        "augment": True,  # everything is learned from the training split alone
    }
    """Used instead of :attr:`recipe` when the weights are random."""

    @classmethod
    def default_recipe(cls, random_weights: bool) -> Mapping[str, Any]:
        """See :meth:`Method.default_recipe`."""
        return cls.recipe_from_scratch if random_weights else cls.recipe
