"""Fixtures that every test may use: real data, and the command line as a user meets it."""

from __future__ import annotations

import os
import signal

# A shell starts what runs in its background deaf to Ctrl-C, and so would be every command that a test stops by it.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# No test may reach the Hub. Hugging Face's libraries read this once, when they are imported.
os.environ["HF_HUB_OFFLINE"] = "1"
# Several processes of pytest-xdist share the cores; each of them, and what it starts, takes its part.
if processes := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // int(processes))))
    os.environ.pop("COLUMNS", None)  # which it sets; what is printed into a file would be cut to that width

import gc
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from mmrobust.cases import PROMPTINGS, SITUATION, missing_cases
from mmrobust.cli import app
from mmrobust.configuration import from_mapping
from mmrobust.data import Dataset
from mmrobust.data.prepare.digits import prepare_digits
from mmrobust.evaluation.plan import DrawnGrid
from mmrobust.models.backbone import Backbone
from mmrobust.models.backbones import TINY_TOWERS
from mmrobust.models.backbones.tiny import TINY, make_tiny
from mmrobust.models.classifier import Classifier
from mmrobust.models.heads import head_class
from mmrobust.models.methods import method_class
from mmrobust.scenarios.grid import Grid
from mmrobust.scoring.join import ScoringSettings, score
from mmrobust.scoring.predictions import Predictions
from mmrobust.scoring.truth import SplitTruth
from mmrobust.scoring.writer import PredictionWriter
from mmrobust.storage.results import Results, write_results
from mmrobust.training.loop import train
from mmrobust.training.recipe import Recipe
from mmrobust.training.settings import TrainSettings

ROOT = Path(__file__).resolve().parents[1]
SHARED = next((above / "shared" for above in ROOT.parents if (above / "shared").is_dir()), ROOT.parent / "shared")


class Outcome(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str


class Golden(NamedTuple):
    """What was recorded from a paper's own code."""

    weights: dict[str, torch.Tensor]
    io: dict[str, torch.Tensor]
    config: dict[str, Any]


@pytest.fixture(scope="module", autouse=True)
def _imported_modules_are_not_garbage() -> None:
    """Take what is in memory out of the garbage collection: every training collects, and torch alone costs it 0.4 s."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data beside the repository, or beside a folder that it lies in."""
    if not SHARED.is_dir():
        pytest.skip(f"{SHARED} is not there: the real data (av-digits, emoji) lie beside the repository")
    return SHARED


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The embedded data set, 60 samples of each split."""
    folder = tmp_path_factory.mktemp("data") / "digits"
    prepare_digits(folder, limit=60)
    return Dataset(folder)


@pytest.fixture(scope="session")
def golden(shared: Path) -> Callable[[str], Golden]:
    """Weights (reference's names), inputs and outputs, and configuration of one recorded run."""

    def read(name: str) -> Golden:
        folder = shared / "golden" / name
        weights, io = (load_file(folder / f"{kind}.safetensors") for kind in ("weights", "io"))
        return Golden(weights, io, json.loads((folder / "config.json").read_text()))

    return read


@pytest.fixture(scope="session")
def tiny(digits: Dataset) -> Callable[[str], Backbone]:
    """A fresh tiny backbone of that name with random weights."""

    def build(name: str) -> Backbone:
        modalities = TINY[name][0].modalities if name in TINY else digits.info.modalities
        built = make_tiny(name, modalities, digits.split("train"), seed=0)
        assert built.glance is not None
        begin_at_nothing = [*built.glance.maps.values(), *built.glance.offsets.values()]
        if name == TINY_TOWERS:  # its joint layers begin as the identity
            begin_at_nothing = [*built.model.joint.parameters(), *begin_at_nothing]
        draws = torch.Generator().manual_seed(0)
        for parameter in begin_at_nothing:  # which would hide what they do
            with torch.no_grad():
                parameter.add_(torch.randn(parameter.shape, generator=draws) * 0.05)
        return built

    return build


@pytest.fixture(scope="session")
def classifier(tiny: Callable[[str], Backbone]) -> Callable[..., Classifier]:
    """A classifier of three classes on a fresh tiny backbone."""

    def build(
        backbone: str | Backbone,
        method: str = "none",
        head: str = "linear",
        *,
        method_set: dict[str, Any] | None = None,
        head_set: dict[str, Any] | None = None,
        backbone_set: dict[str, Any] | None = None,
        scrambled: bool = True,
    ) -> Classifier:
        if isinstance(backbone, str):
            backbone = tiny(backbone)
            backbone.configure(backbone_set or {})
        method_cls, head_cls = method_class(method), head_class(head)
        torch.manual_seed(0)
        built = Classifier(
            backbone,
            method_cls,
            from_mapping(method_cls.config_class, method_set or {}, method),
            head_cls,
            from_mapping(head_cls.config_class, head_set or {}, head),
            classes=["a", "b", "c"],
            task="single-label",
            cases=missing_cases(backbone.modalities),
        )
        if scrambled:  # what begins at zero or at a constant would hide what it does
            with torch.no_grad():
                for parameter in built.trained().values():
                    parameter.add_(torch.randn_like(parameter) * 0.2)
        return built

    return build


@pytest.fixture(scope="session")
def samples() -> Callable[[str, int], list[dict[str, torch.Tensor]]]:
    """Encoded samples for a tiny backbone; texts and images of ViLT's get longer and larger from one to the next."""

    def make(backbone: str, count: int) -> list[dict[str, torch.Tensor]]:
        draws = torch.Generator().manual_seed(0)
        if backbone == "tiny-vilt":
            return [
                {
                    "text": torch.randint(4, 60, (3 + 5 * i,), generator=draws),
                    "image": torch.randn(3, 64 + 16 * (i // 2), 64 + 16 * (i // 3), generator=draws),
                }
                for i in range(count)
            ]
        several = [
            {"audio": torch.randn(96, 64, generator=draws), "image": torch.randn(3, 64, 64, generator=draws)}
            for _ in range(count)
        ]
        if backbone == "tiny-towers":
            for i, sample in enumerate(several):
                sample["text"] = torch.randint(4, 60, (3 + 5 * i,), generator=draws)
        return several

    return make


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run ``mmrobust`` with these arguments, in this process."""

    def run(*arguments: object) -> Outcome:
        capsys.readouterr()
        code = app.run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run


SMALL = Recipe(epochs=1, batch_size=16, lr=1e-3)


@pytest.fixture(scope="session")
def trained(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Checkpoints on ``digits``, one epoch each, made when they are first asked for.

    ``trained("mmp", "prototype")`` is a checkpoint folder; its frozen backbone is ``trained("full", "linear")``.
    ``modalities`` chooses the family: image + text is ViLT, audio + image CAV-MAE.
    """
    folder = tmp_path_factory.mktemp("checkpoints")

    def checkpoint(method: str, head: str, modalities: tuple[str, ...] = ("image", "text")) -> Path:
        out = folder / "-".join((method, head, *modalities))
        if not out.is_dir():
            settings = TrainSettings(
                data=digits.folder,
                backbone="tiny" if method == "full" else str(checkpoint("full", "linear", modalities)),
                method=method,
                head=head,
                recipe=SMALL,
                modalities=modalities,
                missing_rate=0.0 if method == "full" else 0.7,
                method_settings={"length": 2, "init": "normal"} if method == "mmp" else {},
            )
            train(settings, out)
        return out

    return checkpoint


GRID = Grid(("missing-image", "missing-text", "missing-both"), (0.0, 0.5, 1.0), (0, 1), ("situation", "concat"))


def evaluated(
    folder,
    *,
    name="mmp",
    task="single-label",
    n=300,
    classes=4,
    seed=0,
    skill=2.0,
    lost=None,
    grid=GRID,
    natural=None,
    depends=True,
    change=None,
):
    """An evaluation's folder: results and predictions of a model that is right more often the larger its ``skill``.

    Args:
        seed: of the model's own noise; the samples are the same for every seed.
        skill: how far the logit of a true class is raised where nothing is missing.
        lost: case → how much less it is raised there.
        natural: the case of each sample by nature.
        depends: whether knowing its case makes a difference to the model.
        change: called with the samples and the logits, by case and prompting, to change them.
    """
    random = np.random.default_rng(7)
    classes = 1 if task == "regression" else classes
    if task == "multi-label":
        labels = tuple(tuple(np.flatnonzero(row).tolist()) for row in random.random((n, classes)) < 0.3)
    elif task == "regression":
        labels = tuple((float(of),) for of in random.normal(50, 20, n))
    else:
        labels = tuple((int(c),) for c in random.integers(0, classes, n))
    ids = tuple(f"s{i:05d}" for i in range(n))
    truth = SplitTruth(ids, labels, ("image", "text"), classes, task, natural)
    raised = np.zeros((n, classes), dtype=np.float32)
    for row, members in enumerate(labels if task != "regression" else ()):
        raised[row, list(members)] = 1
    hard = random.normal(size=(n, classes))  # what is hard is so for every model and case
    logits = {}
    for number, case in enumerate(missing_cases(("image", "text"))):
        for offset, prompting in enumerate(grid.promptings):
            own = np.random.default_rng([seed, number, offset]).normal(size=(n, classes))
            strength = skill - (lost or {"missing-text": 1.0, "missing-image": 0.3}).get(case.name, 0.0)
            shift = skill / 2 if task == "multi-label" else 0.0
            made = strength * raised - shift + 0.8 * hard + 0.5 * own
            if task == "regression":  # the less skill, the nearer to the mean, and the noisier
                made = 50 + np.tanh(strength) * (np.asarray(labels) - 50)
                made += 10 / max(strength, 0.1) * (0.8 * hard + 0.5 * own)
            logits[case.name, prompting] = made.astype(np.float32)
    if change is not None:
        change(truth, logits)
    told_apart = PROMPTINGS if depends else (SITUATION,)
    logits = {key: values for key, values in logits.items() if key[1] in told_apart}
    dataset = {"name": "made", "fingerprint": "0123", "split": "test", "n": n, "task": task}
    headline = {"single-label": "accuracy", "multi-label": "macro_f1", "binary": "auroc", "regression": "mae"}[task]
    about = {"method": "mmp", "head": "linear", "backbone": "tiny-vilt"}
    facts = {
        "fingerprint": f"of-{name}-{seed}",
        "fill": "ones",
        "modalities": ["image", "text"],
        "device": "cpu",
        "dtype": "float32",
        "depends_on_prompting": depends,
        **about,
    }
    provenance = {
        "dataset": {**dataset, "headline_metric": headline, "classes": [f"c{i}" for i in range(classes)]},
        "checkpoints": {name: facts},
        "git": {"commit": "abc", "dirty": False},
        "dtype": "float32",
        "noise": None,
    }
    frame = score(
        Predictions(truth, logits, promptings=told_apart), truth.draw_grid(grid), ScoringSettings(resamples=0)
    )
    rows = frame.assign(checkpoint=name, dataset="made", split="test", **about)
    write_results(folder / "results.parquet", rows, provenance)
    identity = {"checkpoint": facts["fingerprint"], "dataset": "0123", "split": "test", "dtype": "float32"}
    about = {"dataset": provenance["dataset"], "git": provenance["git"]}
    store = PredictionWriter(folder, truth, identity, name=name, described=facts, **about)
    plan = DrawnGrid(grid, truth, truth.draw_grid(grid)).plan(told_apart)
    for part in (range(n // 2), range(n // 2, n)):  # two shards, as a larger split has several
        chosen = {key: np.asarray([i for i in positions if i in part]) for key, positions in plan.items()}
        store.add({key: (at, logits[key][at]) for key, at in chosen.items() if at.size})
        store.flush()
    return Results(rows, provenance), truth, logits


@pytest.fixture(scope="session")
def evaluate_into():
    """The function that makes an evaluation's folder."""
    return evaluated
