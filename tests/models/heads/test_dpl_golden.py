"""The prototype head against tensors recorded from the authors' code (``shared/golden/dpl``)."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from mmrobust.cases import missing_cases
from mmrobust.models.heads.base import HeadSizes
from mmrobust.models.heads.prototype import PrototypeConfig, PrototypeHead
from mmrobust.models.pooling import Features
from mmrobust.scenarios.scenario import Scenario
from mmrobust.training.objective import loss

CASES = missing_cases(("image", "text"))
BY_CODE = ("complete", "missing-text", "missing-image")
TASKS = {"mmimdb": "multi-label", "hatememes": "binary", "food101": "single-label"}
SETTINGS = ("both", "text", "image", "cold")
NAMES = {
    ("complete", "image"): "w_mi_c",
    ("missing-text", "image"): "w_mi_tm",
    ("complete", "text"): "w_mt_c",
    ("missing-image", "text"): "w_mt_im",
}
close = {"rtol": 0, "atol": 1e-5}


@dataclass
class Recorded:
    heads: dict[str, Tensor]
    io: dict[str, Tensor]
    settings: dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def recorded(shared: Path) -> Recorded:
    folder = shared / "golden" / "dpl"
    heads, io = (load_file(folder / f"{name}.safetensors") for name in ("heads", "io"))
    return Recorded(heads, io, json.loads((folder / "settings.json").read_text()))


@pytest.fixture
def head(recorded: Recorded) -> Callable[..., PrototypeHead]:
    """The head of a task, with the recorded prototypes."""

    def build(task: str, **settings: Any) -> PrototypeHead:
        size, classes = recorded.heads[f"{task}_pl_head.w_mi_c"].shape
        sizes = HeadSizes(2 * size, {"image": size, "text": size}, normed=False)
        built = PrototypeHead(PrototypeConfig(**settings), sizes, classes, CASES)
        with torch.no_grad():
            for (case, modality), name in NAMES.items():
                built.prototypes[case][modality].copy_(recorded.heads[f"{task}_pl_head.{name}"].T[:, None])
        return built

    return build


def ours(settings: dict[str, Any]) -> dict[str, Any]:
    """The release's settings under mmrobust's names; its base temperature is a factor of the loss."""
    assert settings["arc_s"] == settings["arc_s_tm"] == settings["arc_s_im"]
    return {
        "scale": settings["arc_s"],
        "margins": {
            "complete": settings["arc_m"],
            "missing-text": settings["arc_m_tm"],
            "missing-image": settings["arc_m_im"],
        },
        "prototype_loss": settings["contrast_coef"] * settings["contrast_temp"] / settings["contrast_temp_base"],
        "prototype_temperature": settings["contrast_temp"],
        "prototype_anchors": settings["contrast_mode"],
    }


def test_the_defaults_are_the_releases_for_mmimdb(recorded: Recorded) -> None:
    defaults, named = PrototypeConfig(), ours(recorded.settings["both"])
    for case in BY_CODE:
        assert defaults.margins.get(case, defaults.margin) == named["margins"].pop(case)
    assert named.pop("margins") == {}
    assert {name: getattr(defaults, name) for name in named} == named


@pytest.mark.parametrize("features", ["cls", "unlike"])
@pytest.mark.parametrize("task", TASKS)
def test_its_logits_are_the_recorded_cosines(recorded: Recorded, head: Any, task: str, features: str) -> None:
    built, feats = head(task), recorded.io[f"in.{features}_feats"]
    for row, code in enumerate(recorded.io["in.missing_type"].tolist()):
        image, text = feats[row : row + 1].chunk(2, dim=1)
        logits = built(Features(None, {"image": image, "text": text}), (BY_CODE[code],))
        torch.testing.assert_close(logits / 32.0, recorded.io[f"out.{task}.{features}_logits"][row : row + 1], **close)


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("task", TASKS)
def test_both_losses_and_every_gradient_are_the_recorded(
    recorded: Recorded, head: Any, task: str, setting: str
) -> None:
    io, theirs, out = recorded.io, recorded.settings[setting], f"out.{task}.{setting}"
    built = head(task, **ours(theirs))
    scenario = Scenario.parse(f"missing-{theirs['missing_type']['train']}", ("image", "text"))
    built.train_under(["complete", *(case.name for case in scenario.cases)])
    rows, feats = io[f"{out}.rows"], io["in.unlike_feats"].clone().requires_grad_()
    labels = io[f"in.{task}.label"]
    targets = (
        labels
        if labels.ndim == 2
        else torch.nn.functional.one_hot(labels, built.prototypes["complete"]["image"].shape[0])
    )
    classified, contrasted = torch.zeros(()), torch.zeros(())
    for code, case in enumerate(BY_CODE):  # one case at a time, as training does
        own = rows[io["in.missing_type"][rows] == code]
        if not len(own):
            continue
        image, text = feats[own].chunk(2, dim=1)
        features = Features(None, {"image": image, "text": text})
        at = torch.isin(rows, own)
        torch.testing.assert_close(built(features, (case,)) / theirs["arc_s"], io[f"{out}.logits"][at], **close)
        logits, term = built.learn(features, (case,), targets[own].float())
        classified = classified + loss(logits, targets[own].float(), TASKS[task], 0.0) / len(rows)
        contrasted = contrasted + term / len(rows)
    torch.testing.assert_close(classified, io[f"{out}.clf_loss"], **close)
    torch.testing.assert_close(contrasted, io[f"{out}.contra_loss"], **close)
    torch.testing.assert_close(classified + contrasted, io[f"{out}.loss"], **close)
    (classified + contrasted).backward()
    torch.testing.assert_close(feats.grad, io[f"{out}.grad.features"], **close)
    for (case, modality), name in NAMES.items():
        found = built.prototypes[case][modality].grad
        expected = io[f"{out}.grad.{name}"]
        torch.testing.assert_close(torch.zeros_like(expected) if found is None else found[:, 0].T, expected, **close)
