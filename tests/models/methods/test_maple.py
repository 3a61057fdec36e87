"""MaPLe: the towers prompted together, against a plain derivation from the paper's equations."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from mmrobust.errors import UsageError
from mmrobust.models.classifier import Classifier
from mmrobust.models.methods.maple import MapleConfig, MultiModalPrompts

close = {"rtol": 0, "atol": 1e-5}
LENGTH, DEPTH = 3, 2


@pytest.fixture
def built(on_tiny_clip: Callable[..., Classifier]) -> Classifier:
    return on_tiny_clip("maple", "linear", length=LENGTH, depth=DEPTH)


@pytest.fixture
def inputs() -> dict[str, Tensor]:
    """Two texts of one length, which end with the end token, and two images."""
    draws = torch.Generator().manual_seed(0)
    return {
        "input_ids": torch.randint(5, 50, (2, 9), generator=draws),
        "attention_mask": torch.ones(2, 9, dtype=torch.long),
        "pixel_values": torch.randn(2, 3, 64, 64, generator=draws),
    }


def block(layer: Any, x: Tensor, causal: bool) -> Tensor:
    """One pre-norm transformer layer, written out."""
    attention, heads = layer.self_attn, layer.self_attn.num_heads
    batch, length, size = x.shape
    h = layer.layer_norm1(x)
    q, k, v = (
        project(h).view(batch, length, heads, size // heads).transpose(1, 2)
        for project in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    scores = q @ k.transpose(-1, -2) / math.sqrt(size // heads)
    if causal:
        scores = scores.masked_fill(~torch.ones(length, length, dtype=torch.bool).tril(), -torch.inf)
    attended = (scores.softmax(-1) @ v).transpose(1, 2).reshape(batch, length, size)
    x = x + attention.out_proj(attended)
    return x + layer.mlp(layer.layer_norm2(x))


def derived(built: Classifier, inputs: dict[str, Tensor], tokens: Tensor, maps: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Image and text features [B, 2 D]; the image's prompts stand behind the patches, as in the paper's code."""
    model, pooling = built.backbone.model, built.pooling
    vision, text = model.vision_model, model.text_model
    x = vision.pre_layrnorm(vision.embeddings(inputs["pixel_values"]))
    patches = x.shape[1]
    for index, layer in enumerate(vision.encoder.layers):
        if index < DEPTH:
            weight, bias = maps[index]
            rows = (tokens[index] @ weight.T + bias).expand(len(x), -1, -1)
            x = torch.cat([x[:, :patches], rows], dim=1)
        x = block(layer, x, causal=False)
    image = x[:, 0]
    x = text.embeddings(input_ids=inputs["input_ids"])
    for index, layer in enumerate(text.encoder.layers):
        if index < DEPTH:
            x = torch.cat([tokens[index].expand(len(x), -1, -1), x[:, LENGTH if index else 0 :]], dim=1)
        x = block(layer, x, causal=True)
    end = (inputs["input_ids"] == model.config.text_config.eos_token_id).int().argmax(-1)
    written = x[torch.arange(len(x)), LENGTH + end]
    return torch.cat(
        [
            pooling.visual_projection(pooling.post_layernorm(image)),
            pooling.text_projection(pooling.final_layer_norm(written)),
        ],
        dim=-1,
    )


def test_features_and_gradients_are_those_of_a_plain_derivation(built: Classifier, inputs: dict[str, Tensor]) -> None:
    inputs["input_ids"][:, -1] = built.backbone.model.config.text_config.eos_token_id
    method = built.method
    tokens = method.tokens.detach().clone().requires_grad_()
    maps = [
        (m.weight.detach().clone().requires_grad_(), m.bias.detach().clone().requires_grad_())
        for m in method.projections
    ]
    expected = derived(built, inputs, tokens, maps)
    found = 2 * built.features(inputs, ("complete",)).pooled_BD[:, : expected.shape[1]]  # beside the glance
    torch.testing.assert_close(found, expected, **close)
    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1))
    (expected * weights).sum().backward()
    (found * weights).sum().backward()
    torch.testing.assert_close(method.tokens.grad, tokens.grad, rtol=1e-4, atol=1e-5)
    for module, (weight, bias) in zip(method.projections, maps, strict=True):
        torch.testing.assert_close(module.weight.grad, weight.grad, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(module.bias.grad, bias.grad, rtol=1e-4, atol=1e-5)


def test_the_images_prompts_learn_where_the_text_is_missing(built: Classifier, inputs: dict[str, Tensor]) -> None:
    built(inputs, "missing-text").sum().backward()
    assert built.method.tokens.grad is not None and built.method.tokens.grad.abs().sum() > 0


def test_what_it_adds_does_not_depend_on_the_case(built: Classifier, inputs: dict[str, Tensor]) -> None:
    assert not built.method.knows_case
    for stream in ("image", "text"):
        sequence = built.backbone.embed(stream, inputs)
        rows = [built.method.source(told)(stream, 0, sequence).tokens_PD for told in (("complete",), built.cases)]
        assert torch.equal(*rows) and rows[0].shape == (LENGTH, built.backbone.width[stream])


def test_what_trains(built: Classifier) -> None:
    names = {name.partition(".")[0] for name in built.trained()}
    assert names == {"method", "pooling", "head"}
    method = sum(p.numel() for name, p in built.trained().items() if name.startswith("method."))
    text, image = built.backbone.width["text"], built.backbone.width["image"]
    assert method == DEPTH * (LENGTH * text + text * image + image)


def test_a_shallow_backbone_bounds_the_depth(on_tiny_clip: Callable[..., Classifier]) -> None:
    assert len(on_tiny_clip("maple", "linear").method.projections) == 4


@pytest.mark.parametrize("backbone", ["tiny-vilt", "tiny-cavmae"])
def test_a_backbone_without_towers_is_refused(tiny: Any, backbone: str) -> None:
    with pytest.raises(UsageError, match=r"method maple needs one tower per modality, as clip has; (vilt|cavmae) has"):
        MultiModalPrompts(MapleConfig(), tiny(backbone), ("complete",))


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(UsageError, match="--prompt-depth 0: must be 1 or more"):
        MapleConfig(depth=0)
    with pytest.raises(UsageError, match="--prompt-length 0: must be 1 or more"):
        MapleConfig(length=0)
