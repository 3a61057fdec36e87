"""The jobs of a study: each trains a checkpoint and evaluates it, under a name that says what it is."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from mmrobust.cases import MODALITIES
from mmrobust.data.dataset import Dataset
from mmrobust.data.format import DatasetInfo, choose_modalities
from mmrobust.data.prepare import PREPARERS
from mmrobust.errors import MmrobustError, UsageError, unknown_name
from mmrobust.scenarios.scenario import training_cases
from mmrobust.studies.study import Study, Teacher, TrainedUnder, Variant, check_folder_name
from mmrobust.training.recipes import DEFAULT
from mmrobust.training.settings import TrainOptions, TrainSettings, check_splits, read_recipe

TEACHER = "teacher"
FULL = "full"
REHEARSAL = "/rehearsal-"
"""What only the name of a rehearsed job holds."""
CHECKPOINTS, RESULTS = FOLDERS = ("checkpoints", "results")
"""Where a study keeps a folder for each job."""


@dataclass(frozen=True)
class Job:
    """One training and its evaluation."""

    dataset: str
    method: str
    """The study's name for it."""
    head: str
    complete: bool
    """Whether it is trained on complete data as such, so that its name says no scenario."""
    seed: int
    settings: TrainSettings
    base_backbone: str
    """The backbone before any teacher."""
    needs_teacher: bool
    """Whether the teacher's checkpoint is its backbone, so that the teacher must be trained first."""
    rehearsed: bool
    """Whether its numbers mean nothing, which its name says wherever they are shown."""

    def error(self, cause: MmrobustError) -> MmrobustError:
        """The ``cause`` that it failed, with its name and the recipe that its settings come from."""
        recipe = self.settings.recipe_name
        source = "" if recipe == DEFAULT else f", with settings from recipe {recipe}"
        of_another = bool(source) and "backbone setting" in str(cause)
        way = "; name a recipe for this backbone under recipes, or none" if of_another else ""
        return type(cause)(f"job {self.name}{source}: {cause}{way}")

    @property
    def training(self) -> str:
        """Its name without the seed."""
        under = "complete" if self.complete else f"{self.settings.scenario}-{self.settings.missing_rate:g}"
        return f"{self.dataset}{REHEARSAL if self.rehearsed else '/'}{self.method}-{self.head}-{under}"

    @property
    def name(self) -> str:
        """The name of its folders, and of its checkpoint in results."""
        return f"{self.training}-s{self.seed}"

    @property
    def trained_under(self) -> str:
        """The scenario and the missing rate that it is trained under, for tables."""
        return "complete data" if self.complete else f"{self.settings.scenario} {self.settings.missing_rate:g}"


def checkpoint_of(out: Path, job: Job) -> Path:
    """The checkpoint folder of a job."""
    return out / CHECKPOINTS / job.name


def results_of(out: Path, job: Job) -> Path:
    """The results folder of a job."""
    return out / RESULTS / job.name


def jobs_of(study: Study, data: Sequence[Path], out: Path) -> list[Job]:
    """Every job of a study on the data sets in the folders ``data``, teachers first; they will lie in ``out``.

    Raises:
        UsageError: no data, two data sets or two jobs of one name, or a method, head, setting or scenario that does not
            exist for these data; recipes for a data set that is neither among them nor one of mmrobust's; with
            ``availability``, a training whose own scenario and rate are not in the grid.
        DataError: a folder that is not a data set.
        TrainingError: a data set that lacks a split.
    """
    if not data:
        raise UsageError("the study names no data: say --data FOLDER")
    infos = {folder: Dataset(folder).info for folder in data}
    for folder, info in infos.items():
        check_folder_name(info.name, f"{folder}: the data set")
        check_splits(folder, info)
    names = [info.name for info in infos.values()]
    if len(set(names)) < len(names):
        raise UsageError(f"data sets {', '.join(names)}: one is named twice")
    for name in (*study.recipes, *(name for method in study.methods.values() for name in method.recipes)):
        if name not in (*names, *PREPARERS):  # a built-in study's recipes are for more data than are at hand
            raise unknown_name("data set of the study's recipes", name, dict.fromkeys([*names, *PREPARERS]))
    teachers: dict[str, Job] = {}
    students = []
    for (folder, info), seed, (name, method) in product(infos.items(), study.seeds, study.methods.items()):
        backbone = base_backbone = method.backbone or study.backbone
        # A baseline on complete data stands beside the teacher and starts where it did.
        needs_teacher = study.teacher is not None and method.from_teacher and not method.complete
        if study.teacher is not None and needs_teacher:
            teacher = _teacher(study, study.teacher, method, folder, info, seed)
            if teachers.setdefault(teacher.name, teacher).settings != teacher.settings:
                raise UsageError(
                    f"study: the teachers of {teachers[teacher.name].base_backbone} and {base_backbone} would both be "
                    f"called {teacher.name}; put them into studies of their own"
                )
            backbone = str(checkpoint_of(out, teacher))
        for head, under in product(method.heads or study.heads, study.under[:1] if method.complete else study.under):
            recipe = (method.recipes or study.recipes).get(info.name, DEFAULT)
            options = _options(study, name, head, under, backbone, recipe)
            settings = _resolve(study, options, folder, info, seed, recipe)
            if study.availability and not method.complete:
                _check_cell(study, settings, choose_modalities(info, settings.modalities))
            complete, rehearsed = method.complete, bool(study.mark)
            students.append(
                Job(info.name, name, head, complete, seed, settings, base_backbone, needs_teacher, rehearsed)
            )
    jobs = [*teachers.values(), *students]
    for name, number in Counter(job.name for job in jobs).items():
        if number > 1:
            raise UsageError(
                f"study: {number} trainings would be called {name}; seeds, what is trained under (rates to six digits) "
                "and the names of methods and heads must tell each from the others"
            )
    return jobs


def _options(study: Study, name: str, head: str, under: TrainedUnder, backbone: str, recipe: str) -> TrainOptions:
    """The options of a student: its recipe's, overridden by those of the study, of its method and of its head.

    Raises:
        UsageError: both the method and ``under`` name a scenario, or a missing rate.
    """
    method, rate = study.methods[name], under.missing_rate
    for key in ("scenario", "missing_rate"):
        if getattr(method, key) is not None and getattr(under, key) is not None:
            raise UsageError(f"study: method {name} names a {key}, and so does under; name it in one place")
    rate = 0.0 if method.complete else rate
    trained_under = TrainOptions(scenario=under.scenario, missing_rate=rate)  # which decides the recipe's sections
    options = read_recipe(recipe).overridden_by(trained_under).overridden_by(study.options)
    options = options.overridden_by(method).overridden_by(study.heads[head])
    return options.overridden_by(dataclasses.replace(trained_under, backbone=backbone))


def _check_cell(study: Study, settings: TrainSettings, modalities: Sequence[str]) -> None:
    """Raise where a training is not evaluated as it was trained, which is what the table of ``availability`` shows."""
    scenario, rate = settings.scenario, f"{settings.missing_rate:g}"
    if (scenario, rate) not in {(c.scenario, f"{c.missing_rate:g}") for c in study.evaluate.grid(modalities).cells()}:
        raise UsageError(
            f"study: availability shows what is trained under {scenario} at {rate} under the same, and evaluate has no "
            f"cell at {rate}: add it to missing_rates, or {scenario} to scenarios"
        )


def _teacher(study: Study, teacher: Teacher, student: Variant, data: Path, info: DatasetInfo, seed: int) -> Job:
    """The full fine-tuning that a student starts from: on its base backbone and its modalities."""
    backbone, modalities = student.backbone or study.backbone, student.modalities or study.modalities
    options = TrainOptions(
        FULL, teacher.head, backbone, modalities, study.under[0].scenario, missing_rate=0.0, recipe=teacher.recipe
    )
    name = TEACHER if backbone == study.backbone else f"{TEACHER}-{Path(backbone).name}"
    if modalities and modalities != study.modalities:
        name = "-".join((name, *modalities))
    settings = _resolve(study, options, data, info, seed)
    rehearsed = bool(study.mark)
    return Job(info.name, name, teacher.head, True, seed, settings, backbone, needs_teacher=False, rehearsed=rehearsed)


def _resolve(
    study: Study, options: TrainOptions, data: Path, info: DatasetInfo, seed: int, recipe: str = DEFAULT
) -> TrainSettings:
    """The settings of a training, once it is known that its scenario and its grid exist for the data."""
    settings = options.resolve(data, seed=seed, recipe_name=recipe)
    modalities = choose_modalities(info, settings.modalities)
    named = set(re.findall(r"\w+", " ".join((settings.scenario, *study.evaluate.scenarios))))
    if lacking := [modality for modality in MODALITIES if modality in named and modality not in modalities]:
        raise UsageError(f"the study is for data with {lacking[0]}: of {data} it takes {' and '.join(modalities)}")
    training_cases(settings.scenario, modalities)
    study.evaluate.grid(modalities).cases(modalities)
    return settings
