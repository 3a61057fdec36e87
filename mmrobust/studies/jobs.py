"""The trainings of a study: each a checkpoint and its evaluation, under a name that says what it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

from mmrobust.configuration import from_mapping, plain
from mmrobust.data.dataset import Dataset
from mmrobust.data.format import choose_modalities
from mmrobust.errors import UsageError
from mmrobust.models.heads import head_class
from mmrobust.models.methods import method_class
from mmrobust.scenarios.grid import check_rate
from mmrobust.scenarios.scenario import training_cases
from mmrobust.studies.study import Study, Teacher, Under, Variant, check_name
from mmrobust.training.recipe import Recipe, default_recipe
from mmrobust.training.settings import TrainSettings

TEACHER = "teacher"
FULL = "full"


@dataclass(frozen=True)
class Job:
    """One training and its evaluation."""

    dataset: str
    method: str
    """The study's name for it."""
    head: str
    under: Under | None
    """``None``: complete data."""
    seed: int
    settings: TrainSettings
    begins_with: str
    """The backbone before any teacher."""
    waits: bool
    """Whether the checkpoint of the seed's teacher is its backbone."""

    @property
    def name(self) -> str:
        """What its folders are called."""
        under = f"{self.under.scenario}-{self.under.missing_rate:g}" if self.under else "complete"
        return f"{self.dataset}/{self.method}-{self.head}-{under}-s{self.seed}"


def jobs_of(study: Study, data: Sequence[Path], out: Path) -> list[Job]:
    """Every job, teachers first.

    Args:
        study: what is asked for.
        data: data set folders, which have different names.
        out: the study's folder: where teachers will lie.

    Raises:
        UsageError: no data, two data sets or two jobs of one name, or a method, head, setting or scenario that does not
            exist, for these data.
        DataError: a folder that is no data set.
    """
    if not data:
        raise UsageError("the study names no data: say --data FOLDER")
    about = {folder: Dataset(folder).info for folder in data}
    names = {folder: info.name for folder, info in about.items()}
    for folder, info in about.items():
        check_name(info.name, f"{folder}: the data set")
        _check_scenarios(study, choose_modalities(info, None))
    if len(set(names.values())) < len(names):
        raise UsageError(f"data sets {', '.join(names.values())}: one is named twice")
    teachers: dict[str, Job] = {}
    students = []
    for folder, dataset in names.items():
        for seed, (name, variant) in product(study.seeds, study.methods.items()):
            method = replace(variant, use=variant.use or name)
            backbone = begins_with = method.backbone or study.backbone
            # A baseline on complete data stands beside the teacher and begins where it did; others may ask for that.
            waits = study.teacher is not None and method.from_teacher and not method.complete
            if study.teacher is not None and waits:
                teacher = _teacher(study, study.teacher, dataset, folder, backbone, seed)
                if teachers.setdefault(teacher.name, teacher).begins_with != backbone:
                    raise UsageError(
                        f"study: the teachers of {teachers[teacher.name].begins_with} and {backbone} would both be "
                        f"called {teacher.name}; put them into studies of their own"
                    )
                backbone = str(checkpoint_of(out, teacher))
            for head_name, under in product(method.heads or study.heads, [None] if method.complete else study.under):
                head = replace(study.heads[head_name], use=study.heads[head_name].use or head_name)
                settings = _settings(study, folder, backbone, method, head, under, seed, recipe=study.recipe)
                students.append(Job(dataset, name, head_name, under, seed, settings, begins_with, waits))
    jobs = [*teachers.values(), *students]
    for name, number in Counter(job.name for job in jobs).items():
        if number > 1:
            raise UsageError(
                f"study: {number} trainings would be called {name}; seeds, what is trained under (rates to six digits) "
                "and the names of methods and heads must tell each from the others"
            )
    return jobs


def _check_scenarios(study: Study, modalities: Sequence[str]) -> None:
    """Raise where the study trains under or evaluates what there is not for data of these ``modalities``.

    Raises:
        UsageError: an unknown scenario, or an empty grid.
    """
    for under in study.under:
        training_cases(under.scenario, modalities)
        check_rate(under.missing_rate)
    study.evaluate.grid(modalities).cases(modalities)


def _teacher(study: Study, asked: Teacher, dataset: str, folder: Path, backbone: str, seed: int) -> Job:
    variant, head = Variant(FULL, recipe=asked.recipe, complete=True), Variant(asked.head)
    settings = _settings(study, folder, backbone, variant, head, None, seed, recipe={})
    name = TEACHER if backbone == study.backbone else f"{TEACHER}-{Path(backbone).name}"
    return Job(dataset, name, asked.head, None, seed, settings, backbone, waits=False)


def checkpoint_of(out: Path, job: Job) -> Path:
    """The checkpoint folder of a job."""
    return out / "checkpoints" / job.name


def results_of(out: Path, job: Job) -> Path:
    """The results folder of a job."""
    return out / "results" / job.name


def _settings(
    study: Study,
    data: Path,
    backbone: str,
    method: Variant,
    head: Variant,
    under: Under | None,
    seed: int,
    *,
    recipe: dict[str, object],
) -> TrainSettings:
    method_cls, head_cls = method_class(method.use), head_class(head.use)
    from_mapping(method_cls.config_class, method.settings, f"{method.use} method")
    from_mapping(head_cls.config_class, head.settings, f"{head.use} head")
    base = plain(default_recipe(method.use, backbone))
    under_or_complete = under or Under(study.under[0].scenario, 0.0)
    return TrainSettings(
        data=data,
        backbone=backbone,
        method=method.use,
        head=head.use,
        recipe=from_mapping(Recipe, {**base, **recipe, **method.recipe, **head.recipe}, "recipe"),
        scenario=under_or_complete.scenario,
        missing_rate=under_or_complete.missing_rate,
        seed=seed,
        method_settings=method.settings,
        head_settings=head.settings,
    )
