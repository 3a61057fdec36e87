"""The fusion block against tensors recorded from Prompt the Missing's release, where the release does what it says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mmrobust.errors import UsageError
from mmrobust.models.backbone import Backbone
from mmrobust.models.backbones import load_backbone
from mmrobust.models.backbones.cavmae_model import CavMaeConfig, CavMaeModel, FusionBlock
from mmrobust.models.importing.cavmae import FUSION, from_cavmae

close = {"rtol": 0, "atol": 1e-5}


@pytest.fixture
def recorded(golden: Any) -> tuple[FusionBlock, dict[str, torch.Tensor]]:
    """The released block with its recorded weights, every one of which finds its place; and the recorded tensors."""
    run = golden("cavmae")
    imported = from_cavmae(run.weights, run.config)
    model = CavMaeModel(CavMaeConfig(**imported.sizes, fusion=True))
    model.load_state_dict({**imported.backbone, **imported.aside})
    assert all(name.startswith(FUSION) for name in imported.aside)
    return model.fusion_block, {name: t for name, t in run.io.items() if name.startswith("fusion.")}


@torch.inference_mode()
def test_the_cross_attention_is_the_releases(recorded: Any) -> None:
    block, io = recorded
    audio, image = io["fusion.in_a"], io["fusion.in_v"]
    seen_image, seen_audio = (torch.cat([io[f"fusion.prompt_{m}"], x], dim=1) for m, x in (("v", image), ("a", audio)))
    torch.testing.assert_close(block.cross_attn_a_to_v(audio, seen_image), io["fusion.cross_only_a"], **close)
    torch.testing.assert_close(block.cross_attn_v_to_a(image, seen_audio), io["fusion.cross_only_v"], **close)


@torch.inference_mode()
def test_the_block_keeps_its_residuals_and_attends_over_tokens(recorded: Any) -> None:
    """By hand, with PyTorch's own attention holding the weights."""
    block, io = recorded
    given = {"a": io["fusion.in_a"], "v": io["fusion.in_v"]}
    prompts = {m: io[f"fusion.prompt_{m}"] for m in "av"}

    def attention(name: str, query: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        module = torch.nn.MultiheadAttention(40, 4, batch_first=True)
        module.load_state_dict(block.get_submodule(name).state_dict())
        return module(query, seen, seen)[0]

    x = {}
    for m in "av":
        normed = block.get_submodule(f"norm1_{m}")(given[m])
        x[m] = given[m] + attention(f"self_attn_{m}", normed, normed)
    expected = {}
    for m, other, name in (("a", "v", "cross_attn_a_to_v"), ("v", "a", "cross_attn_v_to_a")):
        crossed = x[m] + attention(name, x[m], torch.cat([prompts[other], x[other]], dim=1))
        expected[m] = crossed + block.get_submodule(f"mlp_{m}")(block.get_submodule(f"norm2_{m}")(crossed))
    found = block(given["a"], given["v"], prompts["v"][0], prompts["a"][0])
    for ours, m in zip(found, "av", strict=True):
        torch.testing.assert_close(ours, expected[m], **close)
    twice = block(*(torch.cat([given[m], torch.randn_like(given[m])]) for m in "av"), prompts["v"][0], prompts["a"][0])
    torch.testing.assert_close(twice[0][:1], found[0], **close)


def test_a_fusion_block_is_saved_and_loaded(tiny: Callable[[str], Backbone], tmp_path: Path) -> None:
    backbone = tiny("tiny-cavmae-fusion")
    backbone.save(tmp_path / "it")
    loaded = load_backbone(str(tmp_path / "it"), ("audio", "image"))
    assert loaded.fingerprint() == backbone.fingerprint() != tiny("tiny-cavmae").fingerprint()
    assert dict(loaded.fusion_points) == {"fusion-audio": ("image",), "fusion-image": ("audio",)}
    assert dict(tiny("tiny-cavmae").fusion_points) == {"joint": ("audio", "image")}


def test_it_has_no_way_with_one_stream(tiny: Callable[[str], Backbone]) -> None:
    with pytest.raises(
        UsageError, match="missing_path single: this CAV-MAE has a fusion block, which needs both streams"
    ):
        tiny("tiny-cavmae-fusion").configure({"missing_path": "single"})
