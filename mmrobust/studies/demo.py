"""The demo: every step on the embedded data, from preparing it to a report and a check."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mmrobust.cases import SITUATION
from mmrobust.data.dataset import Dataset
from mmrobust.data.format import INFO_FILE
from mmrobust.data.prepare.digits import prepare_digits
from mmrobust.errors import Interrupted
from mmrobust.evaluation.evaluate import evaluate_models
from mmrobust.gate.check import check_files
from mmrobust.gate.outcome import Verdict
from mmrobust.gate.rules import parse_rule
from mmrobust.models.checkpoint import load_checkpoint
from mmrobust.report import FORMATS
from mmrobust.report.report import Report, build_report
from mmrobust.runtime.progress import Progress, Say, no_progress, say_nothing
from mmrobust.scenarios.grid import DEFAULT_RATES, make_grid
from mmrobust.storage.files import atomic_file
from mmrobust.storage.results import Results
from mmrobust.training.loop import train
from mmrobust.training.settings import TrainOptions

TEACHER = "full"
STUDENTS = {
    "none-linear": ("none", "linear"),
    "none-prototype": ("none", "prototype"),
    "mmp-linear": ("mmp", "linear"),
    "mmp-prototype": ("mmp", "prototype"),
}
"""Checkpoint → (method, head), trained with missing modalities on the frozen, fine-tuned backbone."""

BASELINE, CANDIDATE = "none-linear", "mmp-linear"
REPORTS = {"html": "html", "markdown": "md", "csv": "csv"}
"""Format → suffix."""
GATE = "accuracy:-0.02"
"""In any cell, the candidate may be at most two points of accuracy below the baseline."""

TEACHER_RECIPE = {"epochs": 10, "augment": False}
STUDENT_RECIPE = {"epochs": 7, "batch_size": 32}
PROMPTS = {"length": 4, "init": "normal"}


@dataclass(frozen=True)
class DemoOutcome:
    """The results of the demo."""

    report: Report
    verdict: Verdict
    """The candidate's, against the baseline."""
    files: tuple[Path, ...]


def run_demo(
    out: Path, *, limit: int | None = None, progress: Progress = no_progress, say: Say = say_nothing
) -> DemoOutcome:
    """Run every step into the folder ``out``; steps that an earlier run finished are not repeated.

    ``out`` gets ``data/``, ``checkpoints/``, ``results/`` and the reports. With a ``limit``, only so many samples of
    each split are used, for a quicker look. ``say`` is called for each step with the command that does the same.

    Raises:
        MmrobustError: ``out`` holds other files under these names.
        Interrupted: Ctrl-C; the same command continues.
    """
    try:
        data = out / "data" / "digits"
        say(f"mmrobust data prepare digits --out {data}")
        if not (data / INFO_FILE).is_file():
            prepare_digits(data, limit=limit, progress=progress)
        for name in (TEACHER, *STUDENTS):
            _train(name, data, out, progress, say)
        results = _evaluate(data, out, progress, say)
        report = build_report(results.values())
        files = tuple(_write(out / f"report.{suffix}", FORMATS[name](report)) for name, suffix in REPORTS.items())
        verdict = check_files(out / "results" / CANDIDATE, out / "results" / BASELINE, [parse_rule(GATE)])
    except KeyboardInterrupt:
        raise Interrupted(f"the demo stopped; finished steps are kept, `mmrobust demo --out {out}` continues") from None
    return DemoOutcome(report, verdict, files)


def _train(name: str, data: Path, out: Path, progress: Progress, say: Say) -> None:
    teacher = name == TEACHER
    method, head = ("full", "linear") if teacher else STUDENTS[name]
    folder = out / "checkpoints" / name
    options = TrainOptions(
        method=method,
        head=head,
        backbone="tiny" if teacher else str(out / "checkpoints" / TEACHER),
        method_settings=PROMPTS if method == "mmp" else {},
        recipe=TEACHER_RECIPE if teacher else STUDENT_RECIPE,
    )
    settings = options.resolve(data)
    flags: dict[str, object] = {"epochs": settings.recipe.epochs, "batch-size": settings.recipe.batch_size}
    if teacher:
        flags["recipe-set"] = "augment=false"
    if method == "mmp":
        flags |= {"prompt-length": PROMPTS["length"], "method-set": f"init={PROMPTS['init']}"}
    say(
        f"mmrobust train --data {data} --backbone {settings.backbone} --method {method} --head {head} "
        f"{' '.join(f'--{flag} {value}' for flag, value in flags.items())} --out {folder}"
    )
    train(settings, folder, resume=True, progress=progress)


def _evaluate(data: Path, out: Path, progress: Progress, say: Say) -> dict[str, Results]:
    """Evaluate each checkpoint on the default grid, into a results folder of its own, so that they can be compared."""
    dataset = Dataset(data)
    results = {}
    for name in (TEACHER, *STUDENTS):
        folder = out / "checkpoints" / name
        say(f"mmrobust eval {folder} --data {data} --prompting situation --out {out / 'results' / name}")
        checkpoint = load_checkpoint(folder)
        grid = make_grid(checkpoint.classifier.modalities, None, DEFAULT_RATES, 3, (SITUATION,))
        results[name] = evaluate_models({name: checkpoint}, dataset, grid, out / "results" / name, progress=progress)
    return results


def _write(path: Path, text: str) -> Path:
    with atomic_file(path) as partial:
        partial.write_text(text, encoding="utf-8")
    return path
