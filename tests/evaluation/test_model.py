"""An evaluation knows a model by its protocol alone: one without weights or torch is evaluated like any other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mmrobust.cases import PROMPTINGS, Case
from mmrobust.data import Dataset
from mmrobust.data.selection import SelectedSamples
from mmrobust.degradations import Noise
from mmrobust.errors import UsageError
from mmrobust.evaluation.evaluate import evaluate, evaluate_models
from mmrobust.evaluation.model import IdentifiedModel
from mmrobust.scenarios.grid import Grid
from mmrobust.scoring.truth import Key, Plan, PredictedRows
from mmrobust.storage.results import read_results

GRID = Grid(("missing-text", "missing-both"), (0.0, 0.5, 1.0), (0, 1))


@dataclass
class Guesser:
    """Right about every third sample of a case, and never without a text."""

    promptings: tuple[str, ...] = PROMPTINGS
    modalities: tuple[str, ...] = ("image", "text")
    classes: tuple[str, ...] = ()
    classes_named: bool = True
    reorders_classes: bool = False
    task: str = "single-label"
    dtype: str = "float64"
    device: str = "cpu"
    fingerprint: str = "a guess"
    asked: list[tuple[Key, list[int]]] = field(default_factory=list)

    def described(self) -> dict[str, Any]:
        about: dict[str, Any] = {
            "method": "guess",
            "head": "none",
            "backbone": "none",
            "depends_on_prompting": len(self.promptings) > 1,
        }
        kept = ("fingerprint", "dtype", "device")
        return {**about, **{name: getattr(self, name) for name in kept}, "modalities": list(self.modalities)}

    def loader(self) -> Callable[[str], IdentifiedModel]:
        return lambda device: Guesser(device=device)

    def check(self, keys: Iterable[Key]) -> None:
        for case, _ in keys:
            if case == "missing-image" and self.task == "fussy":
                raise UsageError("cannot do without an image")

    def predict(self, samples: SelectedSamples, plan: Plan, noise: Noise, **_: Any) -> Iterator[PredictedRows]:
        for key, positions in plan.items():
            self.asked.append((key, positions.tolist()))
            labels = np.asarray([samples.split.labels[position][0] for position in positions])
            knows = (positions % 3 == 0) & ("text" in Case.parse(key[0], self.modalities).present)
            logits = np.zeros((len(positions), len(self.classes)), dtype=np.float32)
            logits[np.arange(len(positions)), np.where(knows, labels, (labels + 1) % len(self.classes))] = 1
            yield {key: (positions, logits)}


@pytest.fixture
def guesser(digits: Dataset) -> Guesser:
    return Guesser(classes=digits.info.classes)


def test_it_is_evaluated_stored_and_resumed(guesser: Guesser, digits: Dataset, tmp_path: Path) -> None:
    frame = evaluate_models({"guess": guesser}, digits, GRID, tmp_path).frame
    accuracy = frame[(frame.metric == "accuracy") & (frame.scenario == "missing-text")].set_index("missing_rate").value
    assert accuracy[0.0].to_numpy() == pytest.approx(1 / 3)
    assert accuracy[1.0].to_numpy() == pytest.approx(0)
    assert set(frame.method) == {"guess"}
    asked = len(guesser.asked)
    assert len({key for key, _ in guesser.asked}) == asked == 6  # three cases, two promptings, each once
    again = evaluate_models({"guess": guesser}, digits, GRID, tmp_path).frame
    assert len(guesser.asked) == asked
    pd.testing.assert_frame_equal(again, frame)
    assert read_results(tmp_path).provenance["checkpoints"]["guess"]["fingerprint"] == "a guess"


def test_in_memory_it_gives_the_same_values(guesser: Guesser, digits: Dataset, tmp_path: Path) -> None:
    stored = evaluate_models({"guess": guesser}, digits, GRID, tmp_path).frame
    frame = evaluate(guesser, digits, scenarios=GRID.scenarios, rates=GRID.rates, seeds=GRID.seeds)
    keys = ["scenario", "missing_rate", "seed", "prompting", "metric"]
    expected = stored.sort_values(keys)[frame.columns].reset_index(drop=True)
    pd.testing.assert_frame_equal(frame.sort_values(keys).reset_index(drop=True), expected)


def test_one_prompting_answers_for_both(guesser: Guesser, digits: Dataset, tmp_path: Path) -> None:
    guesser.promptings = ("situation",)
    frame = evaluate_models({"guess": guesser}, digits, GRID, tmp_path).frame
    assert {prompting for (_, prompting), _ in guesser.asked} == {"situation"}
    situation, concat = (frame[frame.prompting == prompting].value.to_numpy() for prompting in PROMPTINGS)
    assert (situation == concat).all()


def test_it_may_refuse_and_data_must_fit(guesser: Guesser, digits: Dataset, tmp_path: Path) -> None:
    guesser.classes = ("a", "b")
    with pytest.raises(UsageError, match=r"guess: knows 2 single-label classes \(a, b\), "):
        evaluate_models({"guess": guesser}, digits, GRID, tmp_path)
    guesser.modalities = ("image", "video")
    with pytest.raises(UsageError, match=r"guess: takes image \+ video, but .* has .*: no video"):
        evaluate_models({"guess": guesser}, digits, GRID, tmp_path)
    assert not list(tmp_path.iterdir())
