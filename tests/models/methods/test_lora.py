"""LoRA through PEFT: begins as the frozen model, and leaves every weight of it as it was."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from mmrobust.errors import UsageError
from mmrobust.models.backbones import load_backbone
from mmrobust.models.methods.lora import Lora, LoraConfig

BACKBONES = ("tiny-vilt", "tiny-cavmae")


@pytest.fixture(autouse=True)
def peft() -> None:
    pytest.importorskip("peft")


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_training_begins_at_the_frozen_model(classifier: Any, samples: Any, backbone: str) -> None:
    plain, adapted = (classifier(backbone, method, scrambled=False) for method in ("none", "lora"))
    inputs = plain.backbone.processor.collate(samples(backbone, 2))
    with torch.inference_mode():
        expected, found = (c.features(inputs, ("complete",)).pooled_BD for c in (plain, adapted))
    assert torch.equal(expected, found)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_backbone_stays_what_it_was(
    classifier: Any, tiny: Any, samples: Any, tmp_path: Path, backbone: str
) -> None:
    before = tiny(backbone).fingerprint()
    adapted = classifier(backbone, "lora")
    optimizer = torch.optim.SGD(adapted.trained().values(), lr=0.1)
    adapted(adapted.backbone.processor.collate(samples(backbone, 2))).square().sum().backward()
    optimizer.step()
    assert adapted.backbone.fingerprint() == before
    adapted.backbone.save(tmp_path)
    assert load_backbone(str(tmp_path), adapted.backbone.modalities).fingerprint() == before


@pytest.mark.parametrize(("backbone", "pooler"), [("tiny-vilt", True), ("tiny-cavmae", False)])
def test_its_own_weights_the_pooling_and_the_head_train(classifier: Any, backbone: str, pooler: bool) -> None:
    trained = classifier(backbone, "lora", method_set={"rank": 2}).trained()
    inside = [name for name in trained if name.startswith("backbone.")]
    assert inside and all(".lora_A." in name or ".lora_B." in name for name in inside)
    others = {name.split(".")[0] for name in trained if name not in inside}
    assert others == {"head", *(["pooling"] if pooler else [])}
    assert all(2 in trained[name].shape for name in inside)


def test_targets_can_be_chosen(tiny: Any) -> None:
    backbone = tiny("tiny-cavmae")
    Lora(LoraConfig(targets=("mlp.fc1",)), backbone, ["complete"])
    adapted = {name.split(".lora_")[0] for name, _ in backbone.model.named_parameters() if ".lora_" in name}
    assert adapted and all(name.endswith("mlp.fc1") for name in adapted)


@pytest.mark.parametrize("target", ["mlp.fc1", "mlp.fc2"])
def test_what_is_adapted_of_clips_feed_forward_halves_counts(classifier: Any, target: str) -> None:
    adapted = classifier("tiny-clip", "lora", scrambled=False, method_set={"targets": (target,)})
    processor = adapted.backbone.processor
    inputs = processor.collate([{"text": processor.encode("text", "a b"), "image": processor.fill("image", "ones")}])
    with torch.inference_mode():
        before = adapted(inputs)
        for name, weight in adapted.trained().items():
            if ".lora_B." in name:
                weight.normal_()
        assert not torch.allclose(adapted(inputs), before)


def test_targets_that_the_backbone_does_not_have_are_named(tiny: Any) -> None:
    with pytest.raises(UsageError, match=r"vilt has no dense layers attn\.qkv"):
        Lora(LoraConfig(targets=("attn.qkv",)), tiny("tiny-vilt"), ["complete"])


def test_a_backbone_that_was_adapted_before_is_refused(tiny: Any) -> None:
    backbone = tiny("tiny-vilt")
    Lora(LoraConfig(), backbone, ["complete"])
    with pytest.raises(UsageError, match="has LoRA weights already; load it again"):
        Lora(LoraConfig(), backbone, ["complete"])


def test_a_rank_of_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="lora method: rank 0: must be 1 or more"):
        LoraConfig(rank=0)


def test_without_peft_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(UsageError, match=r'pip install "mmrobust\[peft\]"'):
        LoraConfig()
