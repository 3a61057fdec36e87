"""Recipes by name or file: a whole training's settings, with what the command line says on top.

A recipe file is YAML: the settings of :class:`Recipe`, and what is trained and under what (:class:`TrainingRecipe`).
The papers' are built in, each number with its source beside it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmrobust.configuration import from_mapping, plain, read_yaml
from mmrobust.data.screening import ERROR
from mmrobust.degradations import DEFAULT as DEFAULT_NOISE
from mmrobust.errors import UsageError, unknown_name
from mmrobust.models.methods import method_class
from mmrobust.storage.files import read_text
from mmrobust.training.recipe import Recipe, default_recipe
from mmrobust.training.recipes import BUILTIN, DEFAULT
from mmrobust.training.settings import TrainSettings


@dataclass(frozen=True)
class TrainingRecipe:
    """What a recipe file says; what it does not say is ``None`` or empty, and has a default."""

    method: str | None = None
    head: str | None = None
    backbone: str | None = None
    modalities: tuple[str, ...] | None = None
    scenario: str | None = None
    missing_rate: float | None = None
    fill: str | None = None
    noise_profile: str | None = None
    method_settings: dict[str, Any] = field(default_factory=dict)
    head_settings: dict[str, Any] = field(default_factory=dict)
    backbone_settings: dict[str, Any] = field(default_factory=dict)
    steps: dict[str, Any] = field(default_factory=dict)
    """Settings of :class:`Recipe`; in a file they stand beside the others."""

    def overridden(self, other: TrainingRecipe) -> TrainingRecipe:
        """The same with what ``other`` says in place; settings are replaced one by one."""
        values: dict[str, Any] = {}
        for each in dataclasses.fields(self):
            own, new = getattr(self, each.name), getattr(other, each.name)
            values[each.name] = {**own, **new} if isinstance(own, dict) else own if new is None else new
        return TrainingRecipe(**values)

    def settings(self, data: Path, seed: int, name: str, on_bad_sample: str = ERROR) -> TrainSettings:
        """The whole training on ``data``; ``name`` is the recipe's, for the checkpoint.

        Raises:
            UsageError: no method or backbone is said, or a setting that does not exist or fit.
        """
        for needed in ("method", "backbone"):
            if getattr(self, needed) is None:
                raise UsageError(f"say --{needed}: recipe {name} names none")
        method, backbone = method_class(str(self.method)), str(self.backbone)
        base = plain(default_recipe(method.name, backbone))
        return TrainSettings(
            data=data,
            backbone=backbone,
            method=method.name,
            head=self.head or "linear",
            recipe=from_mapping(Recipe, {**base, **self.steps}, "recipe"),
            modalities=None if self.modalities is None else tuple(self.modalities),
            scenario=self.scenario or method.default_scenario,
            missing_rate=self.missing_rate if self.missing_rate is not None else 0.0 if method.trains_backbone else 0.7,
            seed=seed,
            fill=self.fill or "ones",
            noise_profile=self.noise_profile or DEFAULT_NOISE,
            method_settings=self.method_settings,
            head_settings=self.head_settings,
            backbone_settings=self.backbone_settings,
            recipe_name=name,
            on_bad_sample=on_bad_sample,
        )


def read_training_recipe(source: str) -> TrainingRecipe:
    """The recipe of that name (``default``: says nothing, a method's defaults stand), or in that YAML file.

    Raises:
        UsageError: no such recipe or file, no mapping, an unknown key or a value out of range; it names the file.
    """
    if source == DEFAULT:
        return TrainingRecipe()
    if source in BUILTIN:
        file = BUILTIN[source]
    elif Path(source).suffix:
        file = Path(source)
    else:
        raise unknown_name("recipe", source, [DEFAULT, *BUILTIN, "FILE.yaml"])
    values = read_yaml(read_text(file, "recipe", UsageError), f"recipe {file}: is no YAML")
    if not isinstance(values, dict):
        raise UsageError(f"recipe {file}: holds no settings; write lines like `lr: 0.01`")
    try:
        return parse_training_recipe(values)
    except UsageError as cause:
        raise UsageError(f"recipe {file}: {cause}") from cause


def parse_training_recipe(values: Mapping[str, Any]) -> TrainingRecipe:
    """The recipe of plain values, as YAML gives them.

    Raises:
        UsageError: an unknown key, with the nearest right spelling, or a value of another kind or out of range.
    """
    steps = {each.name for each in dataclasses.fields(Recipe)}
    own = [each.name for each in dataclasses.fields(TrainingRecipe) if each.name != "steps"]
    for key in values:
        if key not in steps and key not in own:
            raise unknown_name("recipe setting", key, [*sorted(steps), *own])
    found = {key: value for key, value in values.items() if key in steps}
    from_mapping(Recipe, found, "recipe")
    return from_mapping(TrainingRecipe, {key: values[key] for key in values if key in own} | {"steps": found}, "recipe")
