"""What a study is: a product of methods, heads, training scenarios and rates, and seeds, read from YAML."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from mmrobust.cases import PROMPTINGS, SITUATION
from mmrobust.configuration import from_mapping
from mmrobust.errors import UsageError, unknown_name
from mmrobust.scenarios.grid import Grid, check_seed, make_grid, parse_rates
from mmrobust.scoring.join import ScoringSettings
from mmrobust.scoring.metrics import ZERO
from mmrobust.training.settings import TrainOptions, read_yaml_file

BUILTIN = Path(__file__).parent / "builtin"
AXES = ("method", "head")


@dataclass(frozen=True)
class Variant(TrainOptions):
    """A method or a head of a study, under a name of its own.

    It takes the keys of a recipe file, except that ``use`` names the method or the head (default: its own name),
    ``settings`` are its settings, and the recipe's own settings stand under ``recipe``. A head overrides its method.
    """

    complete: bool = False
    """Whether to train on complete data, whatever the study trains under: a fine-tuned baseline."""
    from_teacher: bool = True
    """Whether to start from the teacher's backbone. If not, the method starts where the teacher started, as methods on
    complete data do: the papers' full fine-tuning starts from the published weights."""
    heads: list[str] = field(default_factory=list)
    """The study's heads to combine the method with; empty: all."""
    recipes: dict[str, str] = field(default_factory=dict)
    """Recipes of this method, by data set; see :attr:`Study.recipes`."""


@dataclass(frozen=True)
class TrainedUnder:
    """A scenario and a missing rate to train under; ``None``: the method's default."""

    scenario: str | None = None
    missing_rate: float | None = None


@dataclass(frozen=True)
class Teacher:
    """The full fine-tuning on complete data that gives methods their frozen backbone, one for each seed."""

    head: str = "linear"
    recipe: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Evaluation:
    """The grid that every checkpoint is evaluated on."""

    scenarios: list[str] = field(default_factory=list)
    """Empty: every missing-modality scenario."""
    missing_rates: str = "0:1:0.1"
    seeds: int = 3
    promptings: list[str] = field(default_factory=lambda: [SITUATION])
    f1_absent: str = ZERO
    """Absent classes count 0 in macro F1 (``zero``), or are left out (``skip``, as in the papers)."""

    def __post_init__(self) -> None:
        parse_rates([self.missing_rates])
        ScoringSettings(f1_absent=self.f1_absent)
        for prompting in self.promptings:
            if prompting not in PROMPTINGS:
                raise unknown_name("prompting", prompting, PROMPTINGS)

    def grid(self, modalities: Sequence[str]) -> Grid:
        """The grid for a model of these modalities.

        Raises:
            UsageError: as for :func:`mmrobust.scenarios.grid.make_grid`.
        """
        rates = parse_rates([self.missing_rates])
        return make_grid(modalities, self.scenarios or None, rates, self.seeds, self.promptings)


@dataclass(frozen=True)
class Contrast:
    """Two variants to compare pairwise, seed by seed."""

    axis: str
    """``method`` or ``head``."""
    of: str
    against: str


@dataclass(frozen=True)
class Study:
    """A study.

    Raises:
        UsageError: an empty axis, a negative seed, or a name that does not exist.
    """

    methods: dict[str, Variant]
    about: str = ""
    heads: dict[str, Variant] = field(default_factory=lambda: {"linear": Variant(head="linear")})
    under: list[TrainedUnder] = field(default_factory=lambda: [TrainedUnder()])
    seeds: list[int] = field(default_factory=lambda: [0])
    data: list[str] = field(default_factory=list)
    """Data set folders; those of ``--data`` come before them."""
    backbone: str = "tiny"
    rehearse_on: str = "tiny"
    """The backbone of a rehearsal; see :func:`rehearsal`."""
    modalities: tuple[str, ...] | None = None
    """The modalities of every training. ``None``: those that the data set gives by default."""
    teacher: Teacher | None = None
    """``None``: the backbone is taken as it is."""
    recipe: dict[str, Any] = field(default_factory=dict)
    """Changes to the default recipe of every method."""
    recipes: dict[str, str] = field(default_factory=dict)
    """Name of a data set → a recipe whose settings lie below the study's own there; of those of its method and head,
    where a training is of this method and this head. Other data sets have none."""
    availability: bool = False
    """Whether the report also has a table of each training under what it was trained under, whose columns say how much
    of each modality is available, as DPL's does."""
    evaluate: Evaluation = field(default_factory=Evaluation)
    contrast: list[Contrast] = field(default_factory=list)
    """A file may have one alone, without the list."""
    share_cache: bool = True
    """Whether trainings on the same backbone share a cache of frozen features. A study of costs says no."""
    cache_memory: float | None = None
    """GiB of memory for cached features where the cache is not shared; the rest goes to files."""

    @property
    def mark(self) -> str:
        """What stands with the numbers of a :func:`rehearsal`; empty for another study."""
        if self != rehearsal(self):
            return ""
        return f"REHEARSAL on {self.backbone}, one epoch: the numbers mean nothing"

    @property
    def options(self) -> TrainOptions:
        """The options of every method."""
        return TrainOptions(backbone=self.backbone, modalities=self.modalities, recipe=self.recipe)

    def __post_init__(self) -> None:
        for axis in ("methods", "heads", "under", "seeds"):
            if not getattr(self, axis):
                raise UsageError(f"study: no {axis}; name at least one")
        for seed in self.seeds:
            check_seed(seed)
        for axis in AXES:
            for name in getattr(self, f"{axis}s"):
                check_folder_name(name, f"the study's {axis}")
        for name, method in self.methods.items():
            for head in method.heads:
                if head not in self.heads:
                    raise unknown_name(f"head of method {name}", head, self.heads)
        for name, own in self.heads.items():
            if own != Variant(head=own.head, head_settings=own.head_settings, recipe=own.recipe):
                raise UsageError(
                    f"study: head {name} has a key that is for methods: use, settings and recipe are a head's"
                )
        for contrast in self.contrast:
            if contrast.axis not in AXES:
                raise unknown_name("axis of the study's contrast", contrast.axis, AXES)
            known = self.methods if contrast.axis == "method" else self.heads
            for name in (contrast.of, contrast.against):
                if name not in known:
                    raise unknown_name(f"{contrast.axis} of the study's contrast", name, known)


def check_folder_name(name: str, what: str) -> None:
    """Raise where a name from a file cannot be part of a folder's name, and so could choose where files are written.

    Raises:
        UsageError: it holds anything but letters, digits and ``. _ + -``, or begins with a dot.
    """
    if not re.fullmatch(r"[\w+-][\w.+-]*", name):
        raise UsageError(f"{what} is called {name!r}; use letters, digits and . _ + - only, and no dot at the start")


def builtin_studies() -> dict[str, Path]:
    """Name → file of the studies that come with the package."""
    return {file.stem: file for file in sorted(BUILTIN.glob("*.yaml"))}


def read_study(source: str) -> Study:
    """Read a built-in study or a YAML file.

    Raises:
        UsageError: as for :func:`mmrobust.training.settings.read_yaml_file`.
    """
    return read_yaml_file("study", source, builtin_studies(), parse_study, "`mmrobust study list` names examples")


def rehearsal(study: Study) -> Study:
    """The whole way of a study in minutes, to see that it arrives; its numbers mean nothing.

    Every method and head is trained, but on the small backbone ``rehearse_on``, for one epoch, with the first seed,
    under the first scenario and rate, and without the recipes of data sets, which are for larger backbones.
    """

    def shortened(variant: Variant) -> Variant:
        backbone = study.rehearse_on if variant.backbone else variant.backbone
        return dataclasses.replace(variant, backbone=backbone, recipe={**variant.recipe, "epochs": 1}, recipes={})

    return dataclasses.replace(
        study,
        methods={name: shortened(method) for name, method in study.methods.items()},
        heads={name: shortened(head) for name, head in study.heads.items()},
        recipes={},
        under=study.under[:1],
        seeds=study.seeds[:1],
        backbone=study.rehearse_on,
        teacher=study.teacher and dataclasses.replace(study.teacher, recipe={**study.teacher.recipe, "epochs": 1}),
    )


def parse_study(values: Mapping[str, Any]) -> Study:
    """A study from the plain values of its file."""
    read = dict(values)
    for axis in AXES:
        if (key := f"{axis}s") in read:
            read[key] = {name: _variant(axis, name, entry or {}) for name, entry in _by_name(read[key], key).items()}
    if isinstance(read.get("under"), list):
        read["under"] = [_section(TrainedUnder, entry, "under") for entry in read["under"]]
    for key, cls in (("teacher", Teacher), ("evaluate", Evaluation)):
        if read.get(key) is not None:
            read[key] = _section(cls, read[key], key)
    if "contrast" in read:
        listed = read["contrast"] if isinstance(read["contrast"], list) else [read["contrast"]]
        read["contrast"] = [_section(Contrast, entry, "contrast") for entry in listed if entry is not None]
    return from_mapping(Study, read, "study")


def _variant(axis: str, name: str, values: Any) -> Variant:
    """A method or a head, as its entry in the study's file says."""
    long_names = {"use": axis, "settings": f"{axis}_settings"}
    known = {each.name for each in dataclasses.fields(Variant)} - {"method", "head", "where", *long_names.values()}
    for key in values if isinstance(values, Mapping) else ():
        if key not in known and key not in long_names:
            raise unknown_name(f"study's {axis}s setting", key, [*long_names, *sorted(known)])
    if isinstance(values, Mapping):
        values = {axis: name} | {long_names.get(key, key): value for key, value in values.items()}
    return cast("Variant", _section(Variant, values, f"{axis}s"))


def _section(cls: type[Any], values: Any, what: str) -> Any:
    if not isinstance(values, Mapping):
        raise UsageError(f"{what}: {values!r} must be settings, like {{key: value}}")
    return from_mapping(cls, values, f"study's {what}")


def _by_name(values: Any, what: str) -> dict[str, Any]:
    """Variants by name; a plain list is of names without settings."""
    if isinstance(values, list) and all(isinstance(name, str) for name in values):
        return dict.fromkeys(values)
    if isinstance(values, dict):
        return values
    raise UsageError(f"{what}: {values!r} must be a list of names, or names with settings")
