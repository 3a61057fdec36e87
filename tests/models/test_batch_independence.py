"""A sample's logits depend on the sample, its case and the prompting alone; under concat, not on the case either."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
import torch

close = {"rtol": 0, "atol": 1e-5}

# ``full`` runs what ``none`` runs.
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "none": ("none", {}),
    "mmp-input": ("mmp", {"length": 4}),
    "mmp-attention": ("mmp", {"length": 4, "level": "attention"}),
    "msp": ("msp", {"length": 2}),
    "ptm-attention": ("ptm", {"length": 2}),
    "ptm-both": ("ptm", {"length": 2, "level": "both"}),
    "lora": ("lora", {"rank": 2, "alpha": 2.0}),  # larger, the weights drawn here would saturate the attention
    "adapter": ("adapter", {"bottleneck": 4}),
}
BACKBONES: dict[str, tuple[str, dict[str, Any], str]] = {  # name → (tiny backbone, its settings, a case)
    "vilt": ("tiny-vilt", {}, "missing-text"),
    "vilt-stretched": ("tiny-vilt", {"max_text_length": 150}, "missing-image"),
    "cavmae": ("tiny-cavmae", {}, "missing-audio"),
    "cavmae-single": ("tiny-cavmae", {"missing_path": "single"}, "missing-audio"),
    "cavmae-average": ("tiny-cavmae", {"missing_path": "average"}, "missing-image"),
    "cavmae-fusion": ("tiny-cavmae-fusion", {}, "missing-audio"),
    "towers": ("tiny-towers", {}, "missing-text"),
    "towers-fill": ("tiny-towers", {"missing_path": "fill"}, "missing-audio"),
}
HEADS: dict[str, tuple[str, dict[str, Any]]] = {
    "linear": ("linear", {}),
    "mlp": ("mlp", {}),
    "prototype": ("prototype", {}),
    "prototype-joint": (
        "prototype",
        {"normalise": "joint", "learned_scale": True, "per_class": 2, "unknown": "entropy"},
    ),
}


# The options of a head act behind the features: one method without prompts and one with them are enough.
COMBINATIONS = [
    (method, backbone, head)
    for method in METHODS
    for backbone in BACKBONES
    for head in HEADS
    if head != "prototype-joint" or method in ("none", "mmp-input")
]


@pytest.fixture(params=COMBINATIONS, ids="-".join)
def built(request: pytest.FixtureRequest, classifier: Any) -> Any:
    """Every method on every backbone under every head."""
    method, backbone, head = request.param
    if method == "lora" and importlib.util.find_spec("peft") is None:
        pytest.skip("PEFT is not installed")
    if method.startswith("ptm") and backbone.startswith("vilt"):
        pytest.skip("ViLT has no stream per modality")
    if method == "ptm-both" and backbone.startswith("towers"):
        pytest.skip("its encoders take no tokens")
    (name, method_set), (head_name, head_set) = METHODS[method], HEADS[head]
    tiny, settings, case = BACKBONES[backbone]
    built = classifier(tiny, name, head_name, method_set=method_set, head_set=head_set, backbone_set=settings)
    return tiny, case, built


@torch.inference_mode()
def test_a_sample_alone_is_the_sample_in_any_batch(built: Any, samples: Any) -> None:
    backbone, lacking, classifier = built
    several = samples(backbone, 7)
    collate = classifier.backbone.processor.collate
    for prompting in ("situation", "concat"):
        for case in ("complete", lacking):
            together = classifier(collate(several), case, prompting)
            for row in (0, 3, 6):  # among longer texts and larger images, in between, and the longest
                alone = classifier(collate([several[row]]), case, prompting)
                torch.testing.assert_close(alone[0], together[row], **close)
            backwards = classifier(collate(several[::-1]), case, prompting)
            torch.testing.assert_close(backwards.flip(0), together, **close)


@torch.inference_mode()
def test_under_concat_the_case_does_not_matter(built: Any, samples: Any) -> None:
    backbone, _, classifier = built
    inputs = classifier.backbone.processor.collate(samples(backbone, 2))
    told = [classifier(inputs, case, "concat") for case in classifier.cases]
    assert all(torch.equal(logits, told[0]) for logits in told)
    situations = [classifier(inputs, case) for case in classifier.cases]
    if classifier.depends_on_prompting:
        assert not torch.allclose(situations[0], situations[1])
    else:
        assert all(torch.equal(logits, told[0]) for logits in situations)
