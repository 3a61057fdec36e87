"""Bottleneck adapters: begin as the frozen model, then change every layer of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mmrobust.errors import UsageError
from mmrobust.models.methods.adapter import AdapterConfig, Bottleneck

BACKBONES = ("tiny-vilt", "tiny-cavmae")


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_training_begins_at_the_frozen_model(classifier: Any, samples: Any, backbone: str) -> None:
    plain, adapted = (classifier(backbone, method, scrambled=False) for method in ("none", "adapter"))
    inputs = plain.backbone.processor.collate(samples(backbone, 2))
    with torch.inference_mode():
        expected, found = (c.features(inputs, ("complete",)).pooled_BD for c in (plain, adapted))
    assert torch.equal(expected, found)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_adapter_learns_and_the_backbone_does_not(classifier: Any, samples: Any, backbone: str) -> None:
    adapted = classifier(backbone, "adapter", method_set={"bottleneck": 4})
    adapted(adapted.backbone.processor.collate(samples(backbone, 2))).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in adapted.method.parameters())
    assert all(p.grad is None for p in adapted.backbone.model.parameters())
    layers = sum(len(adapted.backbone.layers(stream)) for stream in adapted.backbone.streams)
    assert sum(isinstance(m, Bottleneck) for m in adapted.method.modules()) == 2 * layers


def test_a_bottleneck_of_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="bottleneck 0: must be 1 or more"):
        AdapterConfig(bottleneck=0)
