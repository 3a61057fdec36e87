"""The settings of a training, from what was asked for to what is trained.

:class:`TrainOptions` holds what a recipe file, the flags of ``mmrobust train`` or a study ask for.
:meth:`TrainOptions.resolve` fills in the defaults, and is the only place that does.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from mmrobust.configuration import from_mapping, plain, read_yaml
from mmrobust.data.format import INFO_FILE, DatasetInfo, choose_modalities
from mmrobust.data.processor import check_fill
from mmrobust.data.selection import ERROR
from mmrobust.degradations import DEFAULT as DEFAULT_NOISE
from mmrobust.degradations import Noise
from mmrobust.errors import CheckpointError, TrainingError, UsageError, unknown_name
from mmrobust.models.backbones import CONFIG, LINEAR, MODEL_TYPE, TINY, TINY_TOWERS, TOWERS, is_built, locate
from mmrobust.models.heads import head_class
from mmrobust.models.methods import method_class
from mmrobust.scenarios.grid import check_rate, check_seed
from mmrobust.scenarios.scenario import Scenario, usual_scenario
from mmrobust.storage.files import read_json, read_text
from mmrobust.training.recipe import Recipe, default_recipe
from mmrobust.training.recipes import BUILTIN, DEFAULT

T = TypeVar("T")

USUAL = "missing-both"
"""Default scenario of most methods, for two modalities."""
MISSING_RATE = 0.7
"""Default missing rate of every method but full fine-tuning, whose default is complete data."""


NEEDED_SPLITS = ("train", "validation")


@dataclass(frozen=True)
class TrainSettings:
    """Everything that decides the result of a training.

    Raises:
        UsageError: a negative seed, a missing rate outside [0, 1], or an unknown fill or noise profile.
    """

    data: Path
    backbone: str
    """``tiny``, ``tiny-…``, a folder, a checkpoint made by ``full``, or a Hub id."""
    method: str
    head: str
    recipe: Recipe
    modalities: tuple[str, ...] | None = None
    scenario: str = USUAL
    missing_rate: float = MISSING_RATE
    seed: int = 0
    fill: str = "ones"
    method_settings: dict[str, Any] = field(default_factory=dict)
    head_settings: dict[str, Any] = field(default_factory=dict)
    backbone_settings: dict[str, Any] = field(default_factory=dict)
    """Settings of the backbone; the others are those of the fine-tuned checkpoint or, without one, the defaults."""
    encoders: dict[str, str] = field(default_factory=dict)
    """Modality → its encoder in a new ``towers``: a Hub id, a folder, or ``tiny``, the default."""
    noise_profile: str = DEFAULT_NOISE
    """How noisy inputs are degraded: a pure function of the sample and the seed (see ``Recipe.draws``)."""
    on_bad_sample: str = ERROR
    """What to do with unreadable samples: ``error``, ``missing`` or ``skip``."""
    recipe_name: str = DEFAULT
    """The built-in recipe or file that the settings come from."""

    def __post_init__(self) -> None:
        check_seed(self.seed)
        check_rate(self.missing_rate)
        check_fill(self.fill)
        self.noise()

    def noise(self) -> Noise:
        """The noise of degraded training inputs, drawn with the seed."""
        return Noise(self.noise_profile, self.seed)

    def method_config(self) -> Any:
        """The method's own settings. A UsageError says what does not exist, or which value is out of range."""
        return from_mapping(method_class(self.method).config_class, self.method_settings, f"{self.method} method")

    def head_config(self) -> Any:
        """The head's own settings; it raises what :meth:`method_config` raises."""
        return from_mapping(head_class(self.head).config_class, self.head_settings, f"{self.head} head")


REPLACES = {"layers": "depth"}
"""Setting of a method → the one that says the same in another way, and so takes its place in what it overrides."""


@dataclass(frozen=True)
class TrainOptions:
    """The settings of a training that were asked for; ``None`` or an empty mapping stands for the default."""

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
    encoders: dict[str, str] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)
    """Settings of :class:`Recipe`. A recipe file has them at its top level, beside the others."""
    where: list[TrainOptions] = field(default_factory=list)
    """Settings for the trainings under a certain ``scenario`` and, if it is named, ``missing_rate``."""

    def overridden_by(self, other: TrainOptions) -> TrainOptions:
        """These options, replaced by those of ``other`` where it has any; mappings are merged key by key.

        Where ``other`` names another method or head, the settings of this one's are left out, and where it names a
        setting of :data:`REPLACES`, the one that this replaces. The result has what ``where`` has for its scenario and
        missing rate, below the options of ``other``.
        """
        base = self._settled(other.scenario or self.scenario, _named(other.missing_rate, self.missing_rate))
        named = {kind: (getattr(base, kind), getattr(other, kind)) for kind in ("method", "head")}
        left_out = {f"{kind}_settings" for kind, (old, new) in named.items() if None not in (old, new) and old != new}
        values: dict[str, Any] = {}
        for name, own in vars(base).items():
            new = getattr(other, name)
            kept = {} if name in left_out else own
            if isinstance(own, dict):
                kept = {key: value for key, value in kept.items() if REPLACES.get(key) not in new}
            values[name] = {**kept, **new} if isinstance(own, dict) else _named(new, own)
        return TrainOptions(**values)

    def _settled(self, scenario: str | None, rate: float | None) -> TrainOptions:
        """These options with what ``where`` has for a training under this scenario and missing rate."""
        options = dataclasses.replace(self, where=[])
        for section in self.where:
            if section.scenario == scenario and section.missing_rate in (None, rate):
                options = options.overridden_by(dataclasses.replace(section, scenario=None, missing_rate=None))
        return options

    def resolve(
        self, data: Path, *, seed: int = 0, recipe_name: str = DEFAULT, on_bad_sample: str = ERROR
    ) -> TrainSettings:
        """Fill in the defaults of the method and the backbone, for a training on the data set in the folder ``data``.

        Raises:
            UsageError: no method or no backbone is named, or a setting does not exist or is out of range.
        """
        if self.where:
            self._check_sections(data)
            return self.overridden_by(TrainOptions()).resolve(
                data, seed=seed, recipe_name=recipe_name, on_bad_sample=on_bad_sample
            )
        for needed in ("method", "backbone"):
            if getattr(self, needed) is None:
                raise UsageError(f"say --{needed}: recipe {recipe_name} names none")
        method = method_class(str(self.method))
        values: dict[str, Any] = {
            "head": "linear",
            "scenario": self._usual_scenario(data, method.default_scenario),
            "missing_rate": 0.0 if method.trains_backbone else MISSING_RATE,
        }
        values |= {name: value for name, value in vars(self).items() if name != "where" and value is not None}
        values["modalities"] = self.modalities or usual_modalities(str(self.backbone), data)
        recipe = plain(default_recipe(method.name, str(self.backbone), self._encoders(data).values())) | self.recipe
        values["recipe"] = from_mapping(Recipe, recipe, "recipe")
        settings = TrainSettings(data, **values, seed=seed, recipe_name=recipe_name, on_bad_sample=on_bad_sample)
        settings.method_config(), settings.head_config()
        return settings

    def _encoders(self, data: Path) -> dict[str, str]:
        """Modality → the encoder of a new ``towers``; empty for other backbones."""
        if self.backbone not in (TOWERS, TINY_TOWERS) or not is_built(str(self.backbone)):
            return {}
        kinds = DatasetInfo.read(data).kinds
        usual = {m: LINEAR if kinds.get(m) == "features" else TINY for m in self.modalities or kinds}
        return {**usual, **self.encoders}

    def _modalities_of(self, data: Path) -> tuple[str, ...]:
        wanted = self.modalities or usual_modalities(str(self.backbone), data)
        return tuple(choose_modalities(DatasetInfo.read(data), wanted))

    def _check_sections(self, data: Path) -> None:
        """Raise if a section under ``where`` is for a scenario that these data cannot have, as one with a typo."""
        if not (data / INFO_FILE).is_file():
            return
        modalities = self._modalities_of(data)
        for number, section in enumerate(self.where, start=1):
            try:
                Scenario.parse(str(section.scenario), modalities)
            except UsageError as cause:
                raise UsageError(f"recipe: section {number} under where: {cause}") from cause

    def _usual_scenario(self, data: Path, of_method: str) -> str:
        """The scenario of a training that names none: the method's, or for other than two modalities one of theirs.

        A single modality cannot be missing: it can be noisy.
        """
        if of_method != USUAL or not (data / INFO_FILE).is_file():
            return of_method
        modalities = self._modalities_of(data)
        if len(modalities) == 1:
            return f"noisy-{modalities[0]}"
        return usual_scenario(modalities) if len(modalities) > 2 else of_method


def check_splits(data: Path, info: DatasetInfo) -> None:
    """Raise a ``TrainingError`` if the data set in the folder ``data`` lacks a split that every training needs."""
    for name in NEEDED_SPLITS:
        if name not in info.splits:
            raise TrainingError(
                f"{data}: has no split '{name}' ({', '.join(info.splits)} only), and training needs "
                f"{' and '.join(NEEDED_SPLITS)}: prepare the data again with more samples, or have their source name it"
            )


def usual_modalities(backbone: str, data: Path) -> tuple[str, ...] | None:
    """The modalities of a training that names none, where the backbone decides them: its own, or for ``towers`` all.

    Raises:
        MmrobustError: the data set or the backbone cannot be read.
    """
    if is_built(backbone) or not backbone:
        return DatasetInfo.read(data).modalities if backbone in (TOWERS, TINY_TOWERS) else None
    config = Path(locate(backbone)) / CONFIG
    if not config.is_file():
        return None
    values = read_json(config, "config of a model", CheckpointError)
    towers = values.get("towers") if values.get("model_type") == MODEL_TYPE else None
    return tuple(towers) if isinstance(towers, Mapping) else None


def parse_encoders(pairs: Sequence[str]) -> dict[str, str]:
    """The encoders of ``--encoder NAME=ID``.

    Raises:
        UsageError: a pair without a name or an encoder, or a name given twice.
    """
    found: dict[str, str] = {}
    for pair in pairs:
        modality, _, encoder = pair.partition("=")
        if not modality or not encoder:
            raise UsageError(f"--encoder {pair}: give NAME=ID, NAME=FOLDER or NAME=tiny")
        if modality in found:
            raise UsageError(f"--encoder {pair}: {modality} has {found[modality]} already")
        found[modality] = encoder
    return found


def _named(new: Any, own: Any) -> Any:
    return own if new is None else new


def read_recipe(source: str) -> TrainOptions:
    """Read a built-in recipe or a YAML file; the recipe ``default`` leaves every option at its default.

    Raises:
        UsageError: as for :func:`read_yaml_file`.
    """
    if source == DEFAULT:
        return TrainOptions()
    return read_yaml_file("recipe", source, BUILTIN, parse_recipe, "write lines like `lr: 0.01`", known=[DEFAULT])


def read_yaml_file(
    kind: str,
    source: str,
    builtin: Mapping[str, Path],
    parse: Callable[[Mapping[str, Any]], T],
    hint: str,
    known: Sequence[str] = (),
) -> T:
    """Parse the settings in ``source``: a name of ``builtin`` (name → file), or the user's own YAML file with a suffix.

    For messages: ``kind`` is what the file is, ``hint`` what to do where it holds no settings, ``known`` further names.

    Raises:
        UsageError: no such name or file, not a mapping, or whatever ``parse`` raises; the message names the file.
    """
    if source not in builtin and not Path(source).suffix:
        raise unknown_name(kind, source, [*known, *builtin, "FILE.yaml"])
    file = builtin.get(source, Path(source))
    values = read_yaml(read_text(file, kind, UsageError), f"{kind} {file}: is not valid YAML")
    if not isinstance(values, dict):
        raise UsageError(f"{kind} {file}: holds no settings; {hint}")
    try:
        return parse(values)
    except UsageError as cause:
        raise UsageError(f"{kind} {file}: {cause}") from cause


def parse_recipe(values: Mapping[str, Any]) -> TrainOptions:
    """Options from the plain values of a recipe file.

    Raises:
        UsageError: an unknown key, with the nearest correct spelling, or a value of the wrong type or out of range.
    """
    values = {key: value for key, value in values.items() if key != "about"}  # whatever the author says of it
    of_recipe = {each.name for each in dataclasses.fields(Recipe)}
    of_options = [each.name for each in dataclasses.fields(TrainOptions) if each.name != "recipe"]
    for key in values:
        if key not in of_recipe and key not in of_options:
            raise unknown_name("recipe setting", key, [*sorted(of_recipe), *of_options])
    recipe = {key: value for key, value in values.items() if key in of_recipe}
    from_mapping(Recipe, recipe, "recipe")
    options = {key: value for key, value in values.items() if key in of_options}
    if "where" in options:
        options["where"] = _parse_sections(options)
    return from_mapping(TrainOptions, {**options, "recipe": recipe}, "recipe")


def _parse_sections(options: Mapping[str, Any]) -> list[TrainOptions]:
    """The sections under the key ``where`` of a recipe file.

    Raises:
        UsageError: they are no list of mappings, one names no scenario, or names what all trainings share, or the
            recipe itself names no scenario or no missing rate.
    """
    for needed in ("scenario", "missing_rate"):
        if needed not in options:
            raise UsageError(f"recipe: {needed} is missing, which a recipe with sections under where must name")
    if not isinstance(options["where"], list):
        raise UsageError("recipe: where must be a list of sections, like [{scenario: missing-text, lr: 0.01}]")
    sections = []
    for values in options["where"]:
        if not isinstance(values, Mapping) or "scenario" not in values:
            raise UsageError(f"recipe: section {values!r} under where must be settings with a scenario")
        for shared in ("method", "head", "backbone", "modalities", "where"):
            if shared in values:
                raise UsageError(f"recipe: {shared} cannot stand in a section under where; name it once for all")
        sections.append(parse_recipe(values))
    return sections
