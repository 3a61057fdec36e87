"""The import of DPL's checkpoints: CLIP with DCP's prompts or without, and prototypes, against recorded cosines."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import mmrobust
from mmrobust.errors import CheckpointError
from mmrobust.models.checkpoint import CheckpointConfig
from mmrobust.models.importing.dpl import from_dpl

TASKS = {"mmimdb": ("multi-label", 23), "hatememes": ("binary", 2), "food101": ("single-label", 101)}
CODES = {"complete": 0, "missing-text": 1, "missing-image": 2}
PROMPTS = ("model.prompt_learner.", "dynamic.")
close = {"rtol": 0, "atol": 1e-5}


@dataclass
class Release:
    """What is recorded of the release; its CLIP and prompts are DCP's."""

    weights: dict[str, torch.Tensor]
    dcp: dict[str, torch.Tensor]
    out: dict[str, torch.Tensor]
    settings: dict[str, dict[str, Any]]

    def file(self, *tasks: str) -> dict[str, torch.Tensor]:
        """The state dict of a checkpoint with the heads of these tasks."""
        other = tuple(f"{task}_" for task in TASKS if task not in tasks)
        return {name: tensor for name, tensor in self.weights.items() if not name.startswith(other)}


@pytest.fixture(scope="module")
def release(golden: Any, shared: Path) -> Release:
    dcp, folder = golden("dcp"), shared / "golden" / "dpl"
    clip = {name: tensor for name, tensor in dcp.weights.items() if "_classifier" not in name}
    settings = json.loads((folder / "settings.json").read_text())
    settings = {name: {**each, **dcp.config} for name, each in settings.items()}
    return Release(
        clip | load_file(folder / "heads.safetensors"), dcp.io, load_file(folder / "io.safetensors"), settings
    )


def without_prompts(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {n: t for n, t in state.items() if not n.startswith(PROMPTS) and "attn_prompt" not in n}


@pytest.mark.parametrize("task", TASKS)
def test_an_imported_checkpoint_gives_the_recorded_cosines_times_the_scale(
    cli: Callable[..., Any], release: Release, save: Any, lightning: Any, tmp_path: Path, task: str
) -> None:
    settings = release.settings["both"] | {"missing_ratio": {"train": 0.7}, "seed": 0}
    file = save(lightning(release.file(task), {"config": settings}), tmp_path / "last.ckpt")
    code, printed, err = cli("import", "dpl", file, "--out", tmp_path / "out")
    assert code == 0, err
    kind, classes = TASKS[task]
    assert "dcp (length 6, depth 3) + prototype on clip" in printed and f"{task}: {classes} {kind} classes" in printed
    config, classifier = CheckpointConfig.read(tmp_path / "out"), mmrobust.load(tmp_path / "out")
    assert (config.training["scenario"], config.training["missing_rate"]) == ("missing-both", 0.7)
    assert config.head["margins"] == {"complete": 0.1, "missing-text": 0.15, "missing-image": 0.15}
    assert (config.head["prototype_loss"], config.head["normalise"]) == (0.9, "parts")
    for case, code in CODES.items():
        rows = torch.nonzero(release.dcp["in.missing_type"] == code)[:, 0]
        ids = release.dcp["in.text_ids"][rows]
        inputs = {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "pixel_values": release.dcp["in.image"][rows],
        }
        with torch.inference_mode():
            logits = classifier(inputs, case)
        torch.testing.assert_close(logits / 32.0, release.out[f"out.{task}.cls_logits"][rows], **close)


def test_without_prompts_it_is_clip_with_the_trained_norms_in_it(
    cli: Callable[..., Any], release: Release, save: Any, tmp_path: Path
) -> None:
    state = without_prompts(release.file("hatememes"))
    (tmp_path / "args.json").write_text(json.dumps(release.settings["text"]))
    file, out = save(state, tmp_path / "last.pth"), tmp_path / "out"
    code, printed, err = cli("import", "dpl", file, "--config", tmp_path / "args.json", "--out", out)
    assert code == 0, err
    assert "none + prototype on clip" in printed
    classifier = mmrobust.load(out)
    pixels = release.dcp["in.image"][:2]
    with torch.inference_mode():
        features = classifier.backbone.model.get_image_features(pixel_values=pixels)
        features = getattr(features, "pooler_output", features)
        w = torch.nn.functional.normalize(release.weights["hatememes_pl_head.w_mi_tm"], dim=0)
        expected = torch.nn.functional.normalize(features, dim=-1) @ w
        ids = release.dcp["in.text_ids"][:2]
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": pixels}
        torch.testing.assert_close(classifier(inputs, "missing-text") / 32.0, expected, **close)


@pytest.mark.parametrize("prompted", [True, False])
def test_every_weight_is_used_or_named(release: Release, prompted: bool) -> None:
    state = release.file("mmimdb") if prompted else without_prompts(release.file("mmimdb"))
    settings = release.settings["both"]
    assert from_dpl(state, settings).remarks == ()
    for key in state:
        if key.startswith("dynamic."):  # DCP's release does not save them; they are drawn, and remarked on
            continue
        with pytest.raises(CheckpointError, match=r"(weight|has no head)") as raised:
            from_dpl({name: tensor for name, tensor in state.items() if name != key}, settings)
        assert f"weight {key} is missing" in str(raised.value)
    with pytest.raises(CheckpointError, match=r"weight mmimdb_pl_head\.w_mi_im is not known"):
        from_dpl(state | {"mmimdb_pl_head.w_mi_im": torch.zeros(40, 23)}, settings)


def test_one_of_several_heads_is_chosen_and_the_others_are_put_aside(release: Release) -> None:
    state = release.file(*TASKS) | {"food101_classifier.weight": torch.zeros(101, 80)}
    found = from_dpl(state, release.settings["both"], "food101")
    assert found.classes == 101 and found.trained["head.prototypes.missing-image.text"].shape == (101, 1, 40)
    assert {name.partition(".")[0] for name in found.aside} == {
        "mmimdb_pl_head",
        "hatememes_pl_head",
        "food101_classifier",
    }
    with pytest.raises(CheckpointError, match="heads for mmimdb, food101, hatememes; choose one"):
        from_dpl(state, release.settings["both"])
    linear = {name: tensor for name, tensor in state.items() if "_pl_head" not in name}
    with pytest.raises(CheckpointError, match="has no head \\(mmimdb_pl_head, food101_pl_head, hatememes_pl_head\\)"):
        from_dpl(linear, release.settings["both"])


def test_settings_of_the_head_are_taken_over(release: Release) -> None:
    state, cold = release.file("mmimdb"), release.settings["cold"]
    head = from_dpl(state, cold).head
    assert (head["scale"], head["prototype_temperature"], head["prototype_anchors"]) == (16.0, 0.1, "one")
    assert head["prototype_loss"] == pytest.approx(2.0 * 0.1 / 0.07)  # the release's base temperature is a factor
    bare = {name: value for name, value in cold.items() if not name.startswith(("arc", "contrast"))}
    found = from_dpl(state, bare)
    assert found.head["scale"] == 32.0 and "holds no settings of margins" in found.remarks[0]
    (remark,) = from_dpl(state, cold | {"arc_s_im": 32.0}).remarks
    assert "scales that differ by case (16, 32); here all cases have one, 16" in remark


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"arc_s": "large"}, "setting arc_s = 'large' is not a number"),
        ({"arc_s": -1.0}, r"do not fit \(prototype head: scale -1.0"),
        ({"arc_m_tm": 2.0}, r"do not fit \(prototype head: margin 2.0 of missing-text"),
        ({"contrast_temp_base": 0.0}, "contrast_temp_base 0.0 must be positive"),
        ({"contrast_mode": "some"}, "do not fit"),
    ],
)
def test_settings_out_of_range_are_refused(release: Release, change: dict[str, Any], said: str) -> None:
    with pytest.raises(CheckpointError, match=said):
        from_dpl(release.file("mmimdb"), release.settings["both"] | change)
