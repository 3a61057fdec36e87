"""The checks on models of a user's own: each defect is found, and what cannot be checked is said."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mmrobust
from mmrobust.audit.audit import Audit, audit_own_model
from mmrobust.audit.checks import CHECKS
from mmrobust.data import Dataset
from mmrobust.data.writing import SampleRow, write_dataset
from mmrobust.errors import ModelError
from mmrobust.models.own.own_model import OwnModel

CLASSES = tuple("0123456789")
Samples = list[dict[str, Any]]


def sound(samples: Samples, case: str | None) -> np.ndarray:
    """A row for each sample, from its own text and picture, of any size."""
    scores = np.zeros((len(samples), 10))
    for row, sample in enumerate(samples):
        if sample.get("text") is not None:
            scores[row] += np.sin(len(sample["text"]) * np.arange(10) + 1)
        if sample.get("image") is not None:
            scores[row] += np.cos(np.asarray(sample["image"]).mean() * np.arange(10))
    return scores


def centred(samples: Samples, case: str | None) -> np.ndarray:
    """Normalises over the batch."""
    scores = sound(samples, case)
    return scores - scores.mean(0)


def pads(samples: Samples, case: str | None) -> np.ndarray:
    """Divides by the length of the longest text of the batch."""
    longest = max(len(sample["text"] or "") for sample in samples)
    return sound(samples, case) / (1 + max(0, longest - 40))


calls = itertools.count()


def counts(samples: Samples, case: str | None) -> np.ndarray:
    """Keeps state."""
    return sound(samples, case) + next(calls) * 1e-9


def told(samples: Samples, case: str | None) -> np.ndarray:
    """Uses the case."""
    return sound(samples, case) + (np.arange(10) == len(case or ""))


def one_size(samples: Samples, case: str | None) -> np.ndarray:
    """Stacks pictures, which must be of one size."""
    shown = [np.asarray(sample["image"]) for sample in samples if sample["image"] is not None]
    return sound(samples, case) + (0 if not shown else 0 * np.stack(shown).mean())


def audited(predict: Callable[..., Any], data: Dataset, **fields: Any) -> Audit:
    about: dict[str, Any] = {"modalities": ("image", "text"), "classes": CLASSES, "task": "single-label", **fields}
    model = mmrobust.Model(name="mine", version="1", predict=predict, **about)
    return audit_own_model(OwnModel(model), data, limit=8)


def statuses(outcome: Audit) -> dict[str, str]:
    return {check.name: finding.status for check, finding in outcome.findings}


def test_a_sound_model_passes_and_what_cannot_be_checked_is_said(digits: Dataset) -> None:
    outcome = audited(sound, digits)
    assert statuses(outcome) == {
        **dict.fromkeys(CHECKS, "passed"),
        **dict.fromkeys(("dtype-drift", "case-sensitivity", "frozen-backbone"), "not applicable"),
        "calibration": "informational",
    }
    said = {check.name: finding.said for check, finding in outcome.findings}
    assert said["dtype-drift"] == "the number format is this model's own affair"
    assert said["frozen-backbone"] == "the weights of this model cannot be seen; its version stands for them"
    assert outcome.summary == (
        "PASS: 4 checks passed, 1 informational; cannot be checked on a model of your own: dtype-drift, frozen-backbone"
    )


@pytest.mark.parametrize(
    ("predict", "failed"),
    [
        (centred, {"batch-independence", "padding-independence"}),
        (pads, {"padding-independence"}),
        (counts, {"determinism"}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_defect_is_found(digits: Dataset, predict: Callable[..., Any], failed: set[str]) -> None:
    outcome = audited(predict, digits)
    assert {check.name for check, _ in outcome.failures} == failed
    assert not outcome.passed


def test_a_model_that_says_it_knows_the_case_must_use_it(digits: Dataset) -> None:
    assert statuses(audited(told, digits, knows_case=True))["case-sensitivity"] == "passed"
    outcome = audited(sound, digits, knows_case=True)
    assert [check.name for check, _ in outcome.failures] == ["case-sensitivity"]


def test_pictures_of_one_size_are_not_padded(digits: Dataset) -> None:
    outcome = audited(one_size, digits, modalities=("image",))
    assert outcome.passed
    (said,) = (finding.said for check, finding in outcome.findings if check.name == "padding-independence")
    assert said == "predict takes no sample beside a larger picture and a longer text or recording"


def test_texts_that_are_missing_in_some_classes_tell_the_label(digits: Dataset, tmp_path: Path) -> None:
    rows = [
        SampleRow("test", sample.id, sample.label, image=sample.image, image_path="x.png",
                  text=sample.text if sample.label[0] < 5 else None)
        for sample in digits.split("test")
    ]  # fmt: skip
    about = {"task": "single-label", "headline_metric": "accuracy", "licence": "", "source": ""}
    write_dataset(tmp_path / "gaps", rows, name="gaps", modalities=("image", "text"), classes=CLASSES, **about)
    outcome = audited(sound, Dataset(tmp_path / "gaps"))
    assert [check.name for check, _ in outcome.failures] == ["fill-leakage"]


@pytest.mark.parametrize("fill", [{}, {"text": "nothing"}, {"image": np.ones((4, 4, 3)), "text": ""}])
def test_a_fill_tells_nothing(digits: Dataset, fill: dict[str, Any]) -> None:
    outcome = audited(sound, digits, fill=fill)
    assert outcome.passed
    (finding,) = (finding for check, finding in outcome.findings if check.name == "fill-leakage")
    assert finding.figure == 0.5


def test_recordings_and_one_modality(digits: Dataset) -> None:
    def heard(samples: Samples, case: str | None) -> np.ndarray:
        return np.stack([np.sin(np.abs(sample["audio"][0]).mean() * np.arange(10)) for sample in samples])

    outcome = audited(heard, digits, modalities=("audio",))
    assert outcome.passed
    assert {statuses(outcome)[name] for name in ("case-sensitivity", "fill-leakage")} == {"not applicable"}


def test_a_function_that_fails_is_one_line(digits: Dataset) -> None:
    def fails(samples: Samples, case: str | None) -> Any:
        raise KeyError("weights")

    with pytest.raises(ModelError, match=r"mine: predict raised KeyError: 'weights' \(in case 'complete', from sample"):
        audited(fails, digits)
