"""What each modality is worth: drop, Shapley value and equity, against their definitions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmrobust.cases import SITUATION, Case, missing_cases
from mmrobust.errors import UsageError
from mmrobust.scenarios.grid import Cell
from mmrobust.scoring.metrics import Outcomes, WeightedTruth, metrics_of
from mmrobust.scoring.paired import make_pair
from mmrobust.scoring.predictions import Predictions
from mmrobust.scoring.truth import SplitTruth
from mmrobust.scoring.worth import equity_differences, modality_worth, shapley_differences, worth_differences

TRIPLE = ("image", "text", "audio")
STRENGTH = {"image": 1.6, "text": 0.8, "audio": 0.0}


def every_case(modalities: tuple[str, ...]) -> list[Case]:
    some = (lost for n in range(len(modalities)) for lost in itertools.combinations(modalities, n))
    return [Case.missing(modalities, *lost) for lost in some]


def made(
    *,
    task: str = "single-label",
    n: int = 400,
    classes: int = 3,
    seed: int = 0,
    strength: dict[str, float] | None = None,
) -> Predictions:
    """Predictions of a model to which each modality says the truth with its own strength."""
    strength, random = strength or STRENGTH, np.random.default_rng(seed)
    if task == "multi-label":
        targets = np.random.default_rng(5).random((n, classes)) < (0.6, 0.3, 0.1)
        labels = tuple(tuple(np.flatnonzero(row).tolist()) for row in targets)
    else:
        drawn = np.random.default_rng(5).choice(classes, size=n, p=(0.5, 0.3, 0.2) if classes == 3 else (0.6, 0.4))
        labels = tuple((int(label),) for label in drawn)
    truth = SplitTruth(tuple(f"s{i}" for i in range(n)), labels, TRIPLE, classes, task)
    says = {m: truth.targets * strength[m] + 0.7 * random.normal(size=truth.targets.shape) for m in TRIPLE}
    if task == "multi-label":
        says = {m: value - strength[m] / 2 for m, value in says.items()}
    logits = {
        (case.name, SITUATION): np.sum([says[m] for m in case.present], axis=0).astype(np.float32)
        for case in every_case(TRIPLE)
    }
    return Predictions(truth, logits, promptings=(SITUATION,))


def naive(predictions: Predictions, metric: str) -> dict[frozenset[str], float]:
    """The value of every coalition, from the metric itself."""
    truth = predictions.truth
    weighted, several = WeightedTruth(truth.targets, np.ones((1, len(truth.ids)))), truth.task == "multi-label"
    function = metrics_of(truth.task, [metric])[metric]

    def value(logits: Any) -> float:
        return float(function(Outcomes(logits, weighted, several))[0])

    found = {frozenset(c.present): value(predictions.logits[c.name, SITUATION]) for c in every_case(TRIPLE)}
    answers = itertools.product((-9.0, 9.0), repeat=truth.classes) if several else 9 * np.eye(truth.classes) - 4
    constants = [np.tile(np.asarray(a, dtype=np.float32), (len(truth.ids), 1)) for a in answers]
    found[frozenset()] = max(value(constant) for constant in constants)
    return found


def by_orders(values: dict[frozenset[str], float]) -> dict[str, float]:
    """The Shapley values as they are told: what each modality adds, mean over the orders of joining."""
    found = dict.fromkeys(TRIPLE, 0.0)
    for order in itertools.permutations(TRIPLE):
        for place, modality in enumerate(order):
            before = frozenset(order[:place])
            found[modality] += (values[before | {modality}] - values[before]) / 6
    return found


@pytest.mark.parametrize(
    ("task", "metric", "classes"),
    [
        ("single-label", "accuracy", 3),
        ("single-label", "macro_f1", 3),
        ("multi-label", "macro_f1", 3),
        ("multi-label", "micro_f1", 3),
        ("multi-label", "samples_f1", 3),
        ("multi-label", "map", 3),
        ("binary", "auroc", 2),
        ("binary", "accuracy", 2),
    ],
)
def test_worth_is_what_the_definition_says(task: str, metric: str, classes: int) -> None:
    predictions = made(task=task, classes=classes)
    values = naive(predictions, metric)
    frame = modality_worth(predictions, metric).set_index("modality")
    everything, expected = frozenset(TRIPLE), by_orders(values)
    for modality in TRIPLE:
        row = frame.loc[modality]
        assert row["drop"] == pytest.approx(values[everything] - values[everything - {modality}], abs=1e-6)
        assert row["shapley"] == pytest.approx(expected[modality], abs=1e-6)
        assert row["drop_low"] < row["drop"] < row["drop_high"]
        assert row["shapley_low"] < row["shapley"] < row["shapley_high"]
    assert frame["shapley"].sum() == pytest.approx(values[everything] - values[frozenset()], abs=1e-6)
    assert frame.loc["image", "shapley"] > frame.loc["text", "shapley"] > frame.loc["audio", "shapley"]
    shares = np.clip(frame["shapley"], 0, None) / np.clip(frame["shapley"], 0, None).sum()
    assert frame["share"].to_numpy() == pytest.approx(shares.to_numpy())
    entropy = -sum(share * math.log(share) for share in shares if share > 0) / math.log(3)
    assert frame["equity"].to_numpy() == pytest.approx(entropy)


def test_equity_is_1_where_all_are_worth_the_same_and_0_where_one_is_worth_everything() -> None:
    same = modality_worth(made(strength=dict.fromkeys(TRIPLE, 1.0), n=4000), "accuracy")
    one = modality_worth(made(strength={"image": 9.0, "text": 0.0, "audio": 0.0}, n=4000), "accuracy")
    assert same["equity"].iloc[0] > 0.99 and one["equity"].iloc[0] < 0.15


def test_intervals_hold() -> None:
    """The error agrees with that over fresh samples of the same model, for a drop and a Shapley value."""
    draws = [modality_worth(made(n=300, seed=seed), "accuracy").set_index("modality") for seed in range(60)]
    for name in ("drop", "shapley"):
        values = np.array([frame.loc["image", name] for frame in draws])
        widths = [frame.loc["image", f"{name}_high"] - frame.loc["image", f"{name}_low"] for frame in draws]
        assert np.mean(widths) / (2 * 1.96) == pytest.approx(values.std(ddof=1), rel=0.4)


def test_samples_that_lack_a_modality_by_nature_are_left_out() -> None:
    predictions = made()
    natural = tuple(Case.missing(TRIPLE, "text") if i % 4 == 0 else Case.complete(TRIPLE) for i in range(400))
    logits = {key: values.copy() for key, values in predictions.logits.items()}
    for (case, _), values in logits.items():
        if not Case.parse(case, TRIPLE).is_missing("text"):
            values[::4] = np.nan
    truth = predictions.truth
    gappy = Predictions(
        SplitTruth(truth.ids, truth.labels, TRIPLE, 3, "single-label", natural), logits, promptings=(SITUATION,)
    )
    rows = [i for i in range(400) if i % 4]
    kept = Predictions(
        SplitTruth(
            tuple(predictions.truth.ids[i] for i in rows),
            tuple(predictions.truth.labels[i] for i in rows),
            TRIPLE,
            3,
            "single-label",
        ),
        {key: values[rows] for key, values in predictions.logits.items()},
        promptings=(SITUATION,),
    )
    for metric in ("accuracy", "macro_f1"):
        assert modality_worth(gappy, metric).equals(modality_worth(kept, metric))


def test_without_every_combination_there_are_drops_but_no_shapley_values() -> None:
    predictions = made()
    names = {case.name for case in missing_cases(TRIPLE)}
    fewer = {key: values for key, values in predictions.logits.items() if key[0] in names}
    frame = modality_worth(Predictions(predictions.truth, fewer, promptings=(SITUATION,)), "accuracy")
    assert frame["drop"].notna().all() and frame[["shapley", "share", "equity"]].isna().all().all()
    alone = {key: values for key, values in fewer.items() if key[0] == "complete"}
    assert modality_worth(Predictions(predictions.truth, alone, promptings=(SITUATION,)), "accuracy").empty
    with pytest.raises(UsageError, match="auroc"):
        modality_worth(predictions, "auroc")


def test_differences_are_paired() -> None:
    cells = tuple(Cell(f"missing-{m}", rate, 0, SITUATION) for m in TRIPLE for rate in (0.0, 1.0))
    one, two = (
        Predictions(p.truth, p.logits, cells, (SITUATION,)) for p in (made(), made(strength=STRENGTH | {"text": 1.4}))
    )
    pair = make_pair(one, two)
    for function, name in ((worth_differences, "drop"), (shapley_differences, "shapley")):
        frame = function(pair, "accuracy").set_index("scenario")
        for side, predictions in (("baseline", one), ("candidate", two)):
            own = modality_worth(predictions, "accuracy").set_index("modality")
            for modality in TRIPLE:
                assert frame.loc[f"missing-{modality}", side] == pytest.approx(own.loc[modality, name])
        assert (frame["difference"] == frame["candidate"] - frame["baseline"]).all()
        assert frame.loc["missing-text", "difference"] > 0 and (frame["error"] > 0).all()
    for function in (shapley_differences, equity_differences):
        same = function(make_pair(one, one), "accuracy")
        assert (same["error"] == 0).all() and (same["difference"] == 0).all()


def test_the_difference_in_equity_and_its_error() -> None:
    """The error agrees with that over fresh samples of the same two models."""
    cells = tuple(Cell(f"missing-{m}", rate, 0, SITUATION) for m in TRIPLE for rate in (0.0, 1.0))
    found = []
    for seed in range(60):
        sides = [made(n=300, seed=seed), made(n=300, seed=seed, strength=STRENGTH | {"text": 1.4})]
        pair = make_pair(*(Predictions(side.truth, side.logits, cells, (SITUATION,)) for side in sides))
        found.append(equity_differences(pair, "accuracy").iloc[0])
    assert {row["scenario"] for row in found} == {"missing-any"}
    for name, side in zip(("baseline", "candidate"), sides, strict=True):
        assert found[-1][name] == pytest.approx(modality_worth(side, "accuracy")["equity"].iloc[0])
    errors, differences = ([row[name] for row in found] for name in ("error", "difference"))
    assert np.mean(errors) == pytest.approx(np.std(differences, ddof=1), rel=0.25)


Cli = Callable[..., Any]


def test_the_report_and_the_gate_know_it(evaluate_into: Callable[..., Any], tmp_path: Path, cli: Cli) -> None:
    for name in ("one", "two"):
        evaluate_into(tmp_path / name, name="mmp")
    formats = ("--markdown", tmp_path / "r.md", "--html", tmp_path / "r.html")
    outcome = cli("report", tmp_path / "one", "--details", *formats)
    assert outcome.code == 0, outcome.err
    text = (tmp_path / "r.md").read_text()
    section = text.partition("What each modality is worth: accuracy")[2]
    assert "| situation | text | mmp | +" in section and "Equity" in section
    assert "What each modality is worth" in outcome.out
    assert "What each modality is worth: accuracy" in (tmp_path / "r.html").read_text()
    check = ("check", tmp_path / "two", "--baseline", tmp_path / "one", "--fail")
    assert cli(*check, "worth@missing-text>=0.05").code == 0
    assert cli(*check, "worth@missing-text>=0.9").code == 1
    assert cli(*check, "shapley@missing-image:-0.05").code == 0
    assert cli(*check, "shapley.macro_f1@missing-text>=0.9").code == 1
    assert cli(*check, "equity>=0.01").code == 0
    assert cli(*check, "equity.macro_f1@missing-both>=1").code == 1
    refused = cli(*check, "equity@missing-text>=0.1")
    assert refused.code == 2 and "equity is not defined there" in refused.err
    refused = cli(*check, "worth@missing-both>=0.1")
    assert refused.code == 2 and len(refused.err.strip().splitlines()) == 1
