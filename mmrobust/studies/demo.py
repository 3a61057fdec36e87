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
from mmrobust.models.prediction.classifier_model import as_model
from mmrobust.report import FORMATS
from mmrobust.report.analyses import read_behind, with_sections
from mmrobust.report.report import Report, build_report
from mmrobust.runtime.progress import Progress, Say, no_progress, say_nothing
from mmrobust.scenarios.grid import DEFAULT_RATES, make_grid
from mmrobust.storage.files import atomic_file
from mmrobust.storage.results import Results
from mmrobust.storage.weights import check_place
from mmrobust.studies.demo_model import fit
from mmrobust.training.loop import train
from mmrobust.training.settings import TrainOptions

TEACHER = "full"
STUDENTS = {"head": ("none", "linear"), "prototypes": ("none", "prototype"), "prompts": ("mmp", "linear")}
"""Checkpoint → (method, head), trained with missing modalities on the frozen, fine-tuned backbone."""
OWN = {"own": ("image", "text"), "own-audio": ("image", "text", "audio")}
"""Name → modalities of the models that mmrobust does not train."""

BASELINE = "head"
CANDIDATES = ("prompts", TEACHER)
"""One that the gate lets pass, and one that it stops: fine-tuned, but on complete data alone."""
REPORTS = {"html": "html", "markdown": "md", "csv": "csv"}
"""Format → suffix."""
GATE = "auc:-0.02"
"""The mean height of each curve may be at most two points below the baseline's."""

TEACHER_RECIPE = {"epochs": 10, "augment": False}
STUDENT_RECIPE = {"epochs": 7, "batch_size": 32}
PROMPTS = {"length": 4, "init": "normal"}


@dataclass(frozen=True)
class DemoOutcome:
    """The results of the demo."""

    report: Report
    verdicts: dict[str, Verdict]
    """Candidate → its verdict against the baseline."""
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
    check_place(out)
    try:
        data = out / "data" / "digits"
        say(f"mmrobust data prepare digits --out {data}")
        if not (data / INFO_FILE).is_file():
            prepare_digits(data, limit=limit, progress=progress)
        for name in (TEACHER, *STUDENTS):
            _train(name, data, out, progress, say)
        results = {name: _evaluate(name, data, out, progress, say) for name in (TEACHER, *STUDENTS, *OWN)}
        report = build_report(results.values())
        stored = read_behind({out / "results" / name: of for name, of in results.items()})
        page = with_sections(report, stored=stored, progress=progress)
        files = tuple(_write(out / f"report.{suffix}", FORMATS[name](page)) for name, suffix in REPORTS.items())
        verdicts = {name: _check(name, out, say) for name in CANDIDATES}
    except KeyboardInterrupt:
        raise Interrupted(f"the demo stopped; finished steps are kept, `mmrobust demo --out {out}` continues") from None
    return DemoOutcome(report, verdicts, files)


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


def _evaluate(name: str, data: Path, out: Path, progress: Progress, say: Say) -> Results:
    """Evaluate a model on the default grid, into a results folder of its own, so that it can be compared."""
    model = as_model(fit(name, data, OWN[name])) if name in OWN else load_checkpoint(out / "checkpoints" / name)
    what = "my_model.py:model" if name in OWN else out / "checkpoints" / name
    say(f"mmrobust eval {what} --data {data} --prompting situation --out {out / 'results' / name}")
    grid = make_grid(model.modalities, None, DEFAULT_RATES, 3, (SITUATION,))
    return evaluate_models({name: model}, Dataset(data), grid, out / "results" / name, progress=progress)


def _check(name: str, out: Path, say: Say) -> Verdict:
    candidate, baseline = (out / "results" / each for each in (name, BASELINE))
    say(f"mmrobust check {candidate} --baseline {baseline} --fail {GATE}")
    return check_files(candidate, baseline, [parse_rule(GATE)])


def _write(path: Path, text: str) -> Path:
    with atomic_file(path) as partial:
        partial.write_text(text, encoding="utf-8")
    return path
