"""The classifier in training: what a step takes of a batch."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
import torch

TARGETS = torch.eye(3)[[0, 1, 0, 2]]
STRICT = {"margin": 0.3, "contrastive": 0.5, "learned_scale": True}
PLAIN = {"prototype": {"margin": 0.0, "margins": {}, "prototype_loss": 0.0}}


@pytest.mark.parametrize("head", ["linear", "mlp", "prototype"])
def test_a_head_without_an_objective_of_its_own_learns_what_it_gives(classifier: Any, samples: Any, head: str) -> None:
    built = classifier("tiny-cavmae", "msp", head, head_set=PLAIN.get(head))
    inputs = built.backbone.processor.collate(samples("tiny-cavmae", 4))
    logits, own = built.learn(built.features(inputs, ("missing-audio",)), "missing-audio", TARGETS)
    assert torch.equal(logits, built(inputs, "missing-audio")) and own == 0


@pytest.mark.parametrize("method", ["none", "mmp", "msp", "lora", "adapter"])
@pytest.mark.parametrize("backbone", ["tiny-vilt", "tiny-cavmae"])
def test_everything_that_trains_gets_a_gradient_in_bfloat16(
    classifier: Any, samples: Any, method: str, backbone: str
) -> None:
    if method == "lora" and importlib.util.find_spec("peft") is None:
        pytest.skip("PEFT is not installed")
    built = classifier(backbone, method, "prototype", head_set=STRICT)
    built.dtype = "bfloat16"
    inputs = built.backbone.processor.collate(samples(backbone, 4))
    total = 0.0
    for case in built.cases:
        with built.autocast():
            features = built.features(inputs, (case,))
        logits, own = built.learn(features, case, TARGETS)
        assert logits.dtype == own.dtype == torch.float32
        total = total + torch.nn.functional.cross_entropy(logits, TARGETS.argmax(1)) + own
    total.backward()
    for name, parameter in built.trained().items():
        assert parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.any(), name
