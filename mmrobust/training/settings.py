"""Everything that decides what a training gives."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmrobust.data.screening import ERROR
from mmrobust.degradations import DEFAULT
from mmrobust.scenarios.grid import check_seed
from mmrobust.training.recipe import Recipe


@dataclass(frozen=True)
class TrainSettings:
    """Everything that decides what a training gives.

    Raises:
        UsageError: a negative seed.
    """

    data: Path
    backbone: str
    """``tiny``, ``tiny-…``, a folder, a checkpoint made by ``full``, or a Hub id."""
    method: str
    head: str
    recipe: Recipe
    modalities: tuple[str, ...] | None = None
    scenario: str = "missing-both"
    missing_rate: float = 0.7
    seed: int = 0
    fill: str = "ones"
    method_settings: dict[str, Any] = field(default_factory=dict)
    head_settings: dict[str, Any] = field(default_factory=dict)
    backbone_settings: dict[str, Any] = field(default_factory=dict)
    """What differs from the way that the fine-tuned checkpoint ran it, or, without one, from the family's usual way."""
    noise_profile: str = DEFAULT
    """What becomes of noisy inputs: a pure function of the sample and the seed (see ``Recipe.draws``)."""
    on_bad_sample: str = ERROR
    """What becomes of samples that cannot be read: ``error``, ``missing`` or ``skip``."""
    recipe_name: str = "default"
    """Where the settings come from: a built-in recipe's name or a file."""

    def __post_init__(self) -> None:
        check_seed(self.seed)
