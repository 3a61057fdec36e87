"""Every check finds the defect that it is for, no other check takes offence at it, and sound classifiers pass."""

from __future__ import annotations

import importlib.util
import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor

from mmrobust.audit.audit import Audit, audit_subject
from mmrobust.audit.checkpoint_subject import CheckpointSubject as Subject
from mmrobust.audit.checks import CHECKS, find_check
from mmrobust.cases import Case
from mmrobust.data import Dataset
from mmrobust.data.encoded_split import EncodedSplit
from mmrobust.errors import UsageError
from mmrobust.models.classifier import Classifier
from mmrobust.models.pooling import Features


def audit(subject: Subject) -> Audit:
    return audit_subject(subject, [find_check(name) for name in CHECKS])


def failed(subject: Subject) -> dict[str, str]:
    """Name of each check that failed → what it said."""
    return {check.name: finding.said for check, finding in audit(subject).failures}


# --- sound -----------------------------------------------------------------------------------------------------------

SOUND: list[tuple[str, str, str, dict[str, Any]]] = [
    ("tiny-vilt", "none", "linear", {}),
    ("tiny-vilt", "mmp", "mlp", {"method_set": {"length": 4}}),
    ("tiny-vilt", "mmp", "prototype", {"method_set": {"length": 4, "level": "attention"}}),
    ("tiny-vilt", "lora", "linear", {"method_set": {"rank": 2}, "backbone_set": {"max_text_length": 150}}),
    ("tiny-clip", "dcp", "linear", {"method_set": {"length": 6, "depth": 2}}),
    ("tiny-clip", "msp", "prototype", {"method_set": {"length": 2}}),
    ("tiny-cavmae", "full", "linear", {}),
    ("tiny-cavmae", "ptm", "linear", {"method_set": {"length": 2}, "noisy": True}),
    ("tiny-cavmae", "adapter", "prototype", {"backbone_set": {"missing_path": "average"}}),
    ("tiny-cavmae-fusion", "ptm", "prototype", {"method_set": {"length": 2, "level": "both"}}),
    ("tiny-towers", "mmp", "prototype", {"method_set": {"length": 2}}),
    ("tiny-towers", "none", "linear", {"noisy": True}),
]


@pytest.mark.parametrize(("backbone", "method", "head", "settings"), SOUND, ids=lambda value: str(value)[:20])
def test_sound_classifiers_pass(subject: Any, backbone: str, method: str, head: str, settings: dict[str, Any]) -> None:
    if method == "lora" and importlib.util.find_spec("peft") is None:
        pytest.skip("PEFT is not installed")
    outcome = audit(subject(backbone, method, head, **settings))
    assert outcome.passed, outcome.summary
    statuses = {check.name: finding.status for check, finding in outcome.findings}
    assert list(statuses) == list(CHECKS)
    assert statuses["padding-independence"] == ("not applicable" if "cavmae" in backbone else "passed")
    assert statuses["calibration"] == "informational"
    told = method in ("mmp", "msp", "dcp", "ptm") or head == "prototype"
    assert statuses["case-sensitivity"] == ("passed" if told else "informational")


# --- planted ---------------------------------------------------------------------------------------------------------


class AttendsOverTheBatch(Classifier):
    """Prompt the Missing's release: features attend to those of the whole batch."""

    def features(self, inputs: Mapping[str, Tensor], told: Sequence[str]) -> Features:
        pooled_BD = super().features(inputs, told).pooled_BD
        assert pooled_BD is not None
        weights_BB = (pooled_BD @ pooled_BD.T / pooled_BD.shape[1] ** 0.5).softmax(-1)
        return Features(pooled_BD + weights_BB @ pooled_BD, {})


class SeesPadding(Classifier):
    """The text's mask is ignored."""

    def features(self, inputs: Mapping[str, Tensor], told: Sequence[str]) -> Features:
        return super().features({name: tensor for name, tensor in inputs.items() if name != "attention_mask"}, told)


class SumsByThread(Classifier):
    """As many partial sums as there are threads, each kept in half precision."""

    def features(self, inputs: Mapping[str, Tensor], told: Sequence[str]) -> Features:
        pooled_BD = super().features(inputs, told).pooled_BD
        assert pooled_BD is not None
        parts = pooled_BD.chunk(torch.get_num_threads(), dim=-1)
        return Features(torch.cat([part.half().cumsum(-1).float() for part in parts], dim=-1), {})


class Cancels(Classifier):
    """A large offset is added before the head and subtracted after it."""

    def features(self, inputs: Mapping[str, Tensor], told: Sequence[str]) -> Features:
        pooled_BD = super().features(inputs, told).pooled_BD
        assert pooled_BD is not None
        dtype = torch.bfloat16 if self.dtype == "bfloat16" else torch.float32
        return Features((pooled_BD.to(dtype) + 1000) - 1000, {})


def plant(subject: Subject, defect: type[Classifier]) -> None:
    subject.classifier.__class__ = defect


def leave_dropout_on(subject: Subject) -> None:
    subject.classifier.backbone.train()


def one_prompt_for_all(subject: Subject) -> None:
    source = subject.classifier.method.source
    subject.classifier.method.source = lambda cases: source(("complete",))  # type: ignore[method-assign]


def nan_weight(subject: Subject) -> None:
    with torch.no_grad():
        next(subject.classifier.head.parameters())[0, 0] = math.nan


def train_the_backbone_in_passing(subject: Subject) -> None:
    run = subject.run

    def drifting(*arguments: Any) -> Tensor:
        with torch.no_grad():
            subject.classifier.backbone.model.pooler.dense.bias[0] += 1e-30
        return run(*arguments)

    subject.run = drifting  # type: ignore[method-assign]


def cancel(subject: Subject) -> None:
    plant(subject, Cancels)
    with torch.no_grad():  # as sure of itself as a trained classifier
        for parameter in subject.classifier.head.parameters():
            parameter.mul_(20)


class BrightensByLabel(EncodedSplit):
    """What stands in for a missing image is as bright as the class is high."""

    def inputs(self, positions: Any, modality: str, case: Case, noise: Any = None) -> list[Tensor]:
        positions = list(positions)
        found = super().inputs(positions, modality, case, noise)
        if modality != "image" or not case.is_missing("image"):
            return found
        return [fill + 1e-3 * self.split.labels[at][0] for at, fill in zip(positions, found, strict=True)]


class FillsInItsOwnSize(EncodedSplit):
    """MMP's release: ones, in the size of the picture that is missing; here pictures of high digits are large."""

    def inputs(self, positions: Any, modality: str, case: Case, noise: Any = None) -> list[Tensor]:
        positions = list(positions)
        if modality != "image" or not case.is_missing("image"):
            return super().inputs(positions, modality, case, noise)
        return [torch.ones(3, 64, 80 if self.split.labels[at][0] >= 5 else 64) for at in positions]


def leak(subject: Subject, encoded: type[EncodedSplit]) -> None:
    subject.encoded.__class__ = encoded


PLANTED: list[tuple[str, Callable[[Subject], object], str, str]] = [
    ("none", lambda s: plant(s, AttendsOverTheBatch), "batch-independence", "alone "),
    ("none", lambda s: plant(s, SeesPadding), "padding-independence", "padded "),
    ("none", lambda s: plant(s, SumsByThread), "determinism", "run twice 0.0e+00, on 1 and 2 threads "),
    ("none", cancel, "dtype-drift", "of the decisions change; accuracy "),
    ("mmp", one_prompt_for_all, "case-sensitivity", "probabilities move by up to 0.0000 on average"),
    ("none", lambda s: leak(s, BrightensByLabel), "fill-leakage", "with an AUROC of "),
    ("none", lambda s: leak(s, FillsInItsOwnSize), "fill-leakage", "with an AUROC of "),
    ("none", train_the_backbone_in_passing, "frozen-backbone", "but it was trained on "),
]


@pytest.mark.parametrize(("method", "defect", "check", "said"), PLANTED, ids=[row[2] for row in PLANTED])
def test_a_planted_defect_is_found_and_named(
    subject: Any, method: str, defect: Callable[[Subject], object], check: str, said: str
) -> None:
    looked_at = subject("tiny-vilt", method)
    defect(looked_at)
    outcome = audit(looked_at)
    ((found, finding),) = outcome.failures
    assert found.name == check
    assert said in finding.said
    assert outcome.summary.startswith(f"FAIL: {check} (")


def test_dropout_left_on_fails_whatever_compares_two_runs(subject: Any) -> None:
    looked_at = subject("tiny-vilt")
    leave_dropout_on(looked_at)
    found = failed(looked_at)
    assert "determinism" in found
    assert "run twice 0.0e+00" not in found["determinism"]


def test_logits_that_are_no_numbers_fail_and_are_null_in_json(subject: Any) -> None:
    looked_at = subject("tiny-vilt")
    nan_weight(looked_at)
    outcome = audit(looked_at)
    assert {check.name for check, _ in outcome.failures} == {
        "batch-independence",
        "padding-independence",
        "determinism",
        "dtype-drift",
    }
    described = json.loads(json.dumps(outcome.as_dict(), allow_nan=False))
    assert not described["passed"]
    assert described["checks"][0]["figure"] is None


def with_column(data: Dataset, folder: Path, name: str, change: Callable[[list[Any], list[int]], pa.Array]) -> Dataset:
    """A copy of ``data`` with another column in its test split, made from the old one and the labels."""
    shutil.copytree(data.folder, folder)
    (file,) = folder.glob("test-*.parquet")
    table = pq.read_table(file)
    column = table.schema.get_field_index(name)
    changed = change(table[name].to_pylist(), table["label"].to_pylist())
    pq.write_table(table.set_column(column, table.schema.field(column), changed), file)
    return Dataset(folder)


def test_modalities_that_are_missing_in_some_classes_tell_the_label(
    subject: Any, digits: Dataset, tmp_path: Path
) -> None:
    def lost(texts: list[str], labels: list[int]) -> pa.Array:
        return pa.array([t if c < 5 else None for t, c in zip(texts, labels, strict=True)], pa.string())

    found = failed(subject("tiny-vilt", data=with_column(digits, tmp_path / "digits", "text", lost)))
    assert list(found) == ["fill-leakage"]


def test_fills_are_looked_at_without_decoding_what_is_there(subject: Any, digits: Dataset, tmp_path: Path) -> None:
    looked_at = subject("tiny-vilt", data=with_column(digits, tmp_path / "digits", "image", _broken))
    finding = find_check("fill-leakage").run(looked_at)
    assert finding.status == "passed", finding.said


def _broken(images: list[Any], labels: list[int]) -> pa.Array:
    return pa.array([{"bytes": b"no picture", "path": image["path"]} for image in images])


def test_calibration_says_how_overconfident_a_classifier_is(subject: Any) -> None:
    looked_at, check = subject("tiny-vilt", limit=30), find_check("calibration")
    modest = check.run(looked_at)
    looked_at._logits.clear()
    with torch.no_grad():
        for parameter in looked_at.classifier.head.parameters():
            parameter.mul_(1000)
    sure = check.run(looked_at)
    assert sure.status == modest.status == "informational"
    # All confidence is 1 now, so the error is the share of wrong decisions.
    wrong = 1 - min(looked_at.score(looked_at.logits(case)) for case in looked_at.cases)
    assert sure.figure == pytest.approx(wrong, abs=0.05)
    assert modest.figure < sure.figure


def test_an_unknown_check_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UsageError, match="unknown check 'paddingindependence': did you mean 'padding-independence'"):
        find_check("paddingindependence")
