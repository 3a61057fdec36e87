"""DCP gives what the released code gave, and keeps the package's promises."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F  # noqa: N812
from transformers import CLIPConfig, CLIPModel

from mmrobust.cases import missing_cases
from mmrobust.data import Dataset
from mmrobust.data.decoding import decode
from mmrobust.errors import UsageError
from mmrobust.models.backbone import Backbone
from mmrobust.models.backbones.clip import ClipBackbone, ClipProcessor
from mmrobust.models.backbones.tiny import make_tiny
from mmrobust.models.classifier import Classifier
from mmrobust.models.heads.base import HeadConfig
from mmrobust.models.heads.linear import LinearHead
from mmrobust.models.importing.dcp import from_dcp
from mmrobust.models.layers import Prompts
from mmrobust.models.methods.dcp import DcpConfig, DeepCorrelatedPrompts
from mmrobust.models.sequence import TokenSequence

Tensors = dict[str, torch.Tensor]
CASES = {"complete": 0, "missing-text": 1, "missing-image": 2}
GRADIENTS = {
    "prompt_learner.common_prompt_complete": "method.common.complete",
    "prompt_learner.common_prompt_image": "method.common.missing-text",
    "prompt_learner.common_prompt_text": "method.common.missing-image",
    "prompt_learner.text_prompt_complete": "method.correlated.text.present",
    "prompt_learner.text_prompt_missing": "method.correlated.text.missing",
    "prompt_learner.visual_prompt_complete": "method.correlated.image.present",
    "prompt_learner.visual_prompt_missing": "method.correlated.image.missing",
    "image_encoder.transformer.resblocks.0.attn_prompt.in_proj_weight": "method.attention.image.in_proj_weight",
    "text_encoder.transformer.resblocks.0.attn_prompt.in_proj_weight": "method.attention.text.in_proj_weight",
}


@pytest.fixture(scope="module")
def golden(shared: Path) -> tuple[Tensors, Tensors, int]:
    """Weights, inputs and outputs, and the size of a head."""
    folder = shared / "golden" / "dcp"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there: the recorded tensors lie beside the repository")
    head_dim = json.loads((folder / "config.json").read_text())["head_dim"]
    return load_file(folder / "weights.safetensors"), load_file(folder / "io.safetensors"), head_dim


def imported(golden: tuple[Tensors, Tensors, int], task: str = "mmimdb") -> Classifier:
    weights, _, head_dim = golden
    found = from_dcp(weights, {"head_dim": head_dim}, task)
    model = CLIPModel(CLIPConfig(**found.sizes))
    model.load_state_dict(found.backbone)
    backbone = ClipBackbone(
        model, ClipProcessor(None, None, model.config.text_config.max_position_embeddings), "golden"
    )
    classifier = Classifier(
        backbone,
        DeepCorrelatedPrompts,
        DcpConfig(found.method["length"], found.method["depth"]),
        LinearHead,
        HeadConfig(),
        classes=[str(i) for i in range(found.classes)],
        task="multi-label",
        cases=missing_cases(backbone.modalities),
    )
    assert set(classifier.trained()) == set(found.trained)
    classifier.load_state_dict(found.trained, strict=False)
    assert not found.remarks
    return classifier


def of_case(recorded: Tensors, case: str) -> tuple[torch.Tensor, Tensors]:
    """Which recorded samples are in ``case``, and their inputs, padded as they were recorded."""
    rows = torch.where(recorded["in.missing_type"] == CASES[case])[0]
    ids = recorded["in.text_ids"][rows]
    return rows, {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": recorded["in.image"][rows]}


def trimmed(inputs: Tensors) -> Tensors:
    """The same as a processor of ours collates them: padded to the longest text only, with a mask."""
    lengths = inputs["input_ids"].argmax(1) + 1
    ids = inputs["input_ids"][:, : int(lengths.max())]
    mask = torch.arange(ids.shape[1]) < lengths[:, None]
    return inputs | {"input_ids": ids.where(mask, 199), "attention_mask": mask.long()}


def same(seen: torch.Tensor, recorded: torch.Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(seen, recorded, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("case", CASES)
def test_prompts_and_blocks_of_both_towers(golden: tuple[Tensors, Tensors, int], case: str) -> None:
    classifier, recorded = imported(golden), golden[1]
    method, (rows, inputs) = classifier.method, of_case(recorded, case)
    correlated, source, blocks = method.correlated_rows((case,)), method.source((case,)), {}

    def watched(stream: str, layer: int, sequence: TokenSequence) -> Prompts | None:
        blocks[stream, layer - 1] = sequence
        return source(stream, layer, sequence)

    with torch.inference_mode():
        streams = classifier.backbone(inputs, watched)
        for tower in ("image", "text"):
            first = torch.cat([correlated[0][tower], method.common_rows(tower, (case,))])
            same(first.expand(2, -1, -1), recorded[f"mid.{tower}.prompts_layer0"][rows])
            dynamic = method.dynamic_rows(tower, (case,), blocks[tower, -1])
            same(dynamic, recorded[f"mid.{tower}.dynamic_layer0"][rows])
            for layer in (1, 2):
                same(correlated[layer][tower].expand(2, -1, -1), recorded[f"mid.{tower}.prompts_layer{layer}"][rows])
            blocks[tower, 3] = streams[tower]
            for layer in range(4):
                same(blocks[tower, layer].tokens_BLD, recorded[f"mid.{tower}.block{layer}"][rows])
        same(classifier.pooling.pooled(streams), recorded["out.raw_feats"][rows])


@pytest.mark.parametrize("collate", [dict, trimmed], ids=["padded", "trimmed"])
@pytest.mark.parametrize("case", CASES)
def test_features_and_logits(golden: tuple[Tensors, Tensors, int], case: str, collate: Callable[..., Tensors]) -> None:
    rows, inputs = of_case(golden[1], case)
    for task in ("mmimdb", "food101", "hatememes"):
        classifier = imported(golden, task)
        with torch.inference_mode():
            same(classifier.features(collate(inputs), (case,)).pooled_BD, golden[1]["out.cls_feats"][rows])
            same(classifier(collate(inputs), case), golden[1][f"out.{task}_logits"][rows])


def test_loss_and_gradients(golden: tuple[Tensors, Tensors, int]) -> None:
    classifier, recorded = imported(golden), golden[1]
    logits = torch.empty(6, 23)
    for case in CASES:
        rows, inputs = of_case(recorded, case)
        logits[rows] = classifier(trimmed(inputs), case)
    loss = F.binary_cross_entropy_with_logits(logits, recorded["in.label_mmimdb"].float())
    loss.backward()
    same(loss.detach(), recorded["out.mmimdb_loss"])
    parameters = classifier.trained()  # gradients are small (1e-4 to 1e-2), so 1e-5 would say little
    for theirs, ours in GRADIENTS.items():
        same(parameters[ours].grad, recorded[f"grad.mmimdb.model.{theirs}"], 1e-7)
    projection = parameters["pooling.visual_projection.weight"].grad
    same(projection.T, recorded["grad.mmimdb.model.image_encoder.proj"], 1e-7)
    checked = len(GRADIENTS) + 1
    assert checked == sum(name.startswith("grad.") for name in recorded)
    assert classifier.backbone.model.visual_projection.weight.grad is None


def counted(classifier: Classifier, inputs: Tensors, case: str, prompting: str) -> dict[str, int]:
    """How many layers of each tower a forward pass runs."""
    runs, model = {"image": 0, "text": 0}, classifier.backbone.model
    handles = []
    for tower, part in {"image": model.vision_model, "text": model.text_model}.items():

        def count(*_: object, tower: str = tower) -> None:
            runs[tower] += 1

        handles += [layer.layer_norm2.register_forward_hook(count) for layer in part.encoder.layers]
    with torch.inference_mode():
        classifier(inputs, case, prompting)
    for handle in handles:
        handle.remove()
    return runs


@pytest.fixture(scope="module")
def batch(digits: Dataset, tiny_clip: Backbone) -> list[Tensors]:
    """Seven encoded samples; the texts are of very different lengths."""
    samples = [sample for _, sample in zip(range(7), digits.split("test"), strict=False)]
    processor = tiny_clip.processor
    return [
        {
            "image": processor.encode("image", decode(sample, "image")),
            "text": processor.encode("text", f"{sample.text} " * (1 + index)),
        }
        for index, sample in enumerate(samples)
    ]


@pytest.mark.parametrize("head", ["linear", "mlp", "prototype"])
@pytest.mark.parametrize("method", ["none", "dcp"])
def test_the_tower_of_a_missing_modality_is_not_run(
    method: str, head: str, on_tiny_clip: Callable[..., Classifier], batch: list[Tensors]
) -> None:
    classifier = on_tiny_clip(method, head)
    inputs = classifier.backbone.processor.collate(batch)
    assert counted(classifier, inputs, "complete", "situation") == {"image": 4, "text": 4}
    assert counted(classifier, inputs, "missing-text", "situation") == {"image": 4, "text": 0}
    assert counted(classifier, inputs, "missing-image", "situation") == {"image": 0, "text": 4}
    for case in classifier.cases:  # the case is unknown: whoever left a tower out would have to know it
        assert counted(classifier, inputs, case, "concat") == {"image": 4, "text": 4}


ON_CLIP: dict[str, dict[str, Any]] = {  # method → its settings
    "none": {},
    "mmp": {},
    "msp": {},
    "dcp": {},
    "maple": {"length": 3},
    "ptm": {"level": "input"},  # towers are fused by no layer
    "lora": {},
    "adapter": {},
}


@pytest.mark.parametrize("head", ["linear", "prototype"])
@pytest.mark.parametrize("method", ON_CLIP)
def test_logits_under_concat_do_not_depend_on_the_case(
    method: str, head: str, on_tiny_clip: Callable[..., Classifier], batch: list[Tensors]
) -> None:
    classifier = on_tiny_clip(method, head, **ON_CLIP[method])
    inputs = classifier.backbone.processor.collate(batch)
    assert classifier.depends_on_prompting
    with torch.inference_mode():
        told = [classifier(inputs, case, "situation") for case in classifier.cases]
        untold = [classifier(inputs, case, "concat") for case in classifier.cases]
    assert all(torch.equal(untold[0], logits) for logits in untold)
    assert not any(torch.allclose(told[0], logits, atol=1e-3) for logits in told[1:])


@pytest.mark.parametrize("head", ["linear", "prototype"])
@pytest.mark.parametrize("prompting", ["situation", "concat"])
@pytest.mark.parametrize("method", ON_CLIP)
def test_logits_depend_on_nothing_else_in_the_batch(
    method: str, prompting: str, head: str, on_tiny_clip: Callable[..., Classifier], batch: list[Tensors]
) -> None:
    """The same sample alone, and in a batch of seven whose other texts are longer."""
    classifier = on_tiny_clip(method, head, **ON_CLIP[method])
    collate = classifier.backbone.processor.collate
    assert collate(batch)["input_ids"].shape[1] > 3 * len(batch[0]["text"])
    with torch.inference_mode():
        for case in classifier.cases:
            together = classifier(collate(batch), case, prompting)
            for index in (0, 3):
                alone = classifier(collate(batch[index : index + 1]), case, prompting)
                torch.testing.assert_close(alone, together[index : index + 1], atol=1e-5, rtol=0)


def test_under_concat_the_rows_of_all_cases_lie_side_by_side(
    on_tiny_clip: Callable[..., Classifier], batch: list[Tensors]
) -> None:
    classifier = on_tiny_clip("dcp", "linear", length=6, depth=2)
    method, backbone = classifier.method, classifier.backbone
    inputs = backbone.processor.collate(batch)
    for tower in backbone.streams:
        sequence = backbone.embed(tower, inputs)
        alone = [method.source((case,))(tower, 0, sequence).tokens_PD for case in classifier.cases]
        together = method.source(classifier.cases)(tower, 0, sequence).tokens_PD
        kinds = zip(*(rows.split(2, dim=1) for rows in alone), strict=True)  # two rows of each kind for each case
        same(together, torch.cat([rows for kind in kinds for rows in kind], dim=1), 1e-4)
        assert method.source(classifier.cases)(tower, 1, sequence).replaced_PD.shape[0] == 2 * 3
        assert method.source(classifier.cases)(tower, 2, sequence) is None


def test_what_trains(on_tiny_clip: Callable[..., Classifier]) -> None:
    for head in ("linear", "prototype"):
        names = {name.split(".", 2)[1] for name in on_tiny_clip("dcp", head).trained() if name.startswith("pooling.")}
        assert names == {"post_layernorm", "visual_projection", "final_layer_norm"}
    assert all(name.startswith("head.") for name in on_tiny_clip("none", "linear").trained())


def test_a_shallow_backbone_bounds_the_depth(on_tiny_clip: Callable[..., Classifier]) -> None:
    assert len(on_tiny_clip("dcp", "linear").method.correlated_rows(("complete",))) == 4


def test_settings_out_of_range_are_refused_with_the_way_out() -> None:
    with pytest.raises(UsageError, match=r"--prompt-length 16: dcp divides it by 3 .* such as 15 or 18"):
        DcpConfig(length=16)
    with pytest.raises(UsageError, match=r"such as 3 or 6"):
        DcpConfig(length=0)
    with pytest.raises(UsageError, match=r"--prompt-depth 0: must be 1 or more"):
        DcpConfig(depth=0)


def test_a_backbone_without_towers_is_refused(digits: Dataset) -> None:
    vilt = make_tiny("tiny-vilt", ("image", "text"), digits.split("train"), 0)
    with pytest.raises(UsageError, match=r"method dcp needs one tower .* vilt has the streams joint"):
        DeepCorrelatedPrompts(DcpConfig(), vilt, ("complete",))


def test_only_prompts_are_replaced() -> None:
    sequence = TokenSequence(torch.zeros(2, 5, 4), None, (("text", 5),))
    with pytest.raises(ValueError, match="cannot replace"):
        sequence.with_first(torch.ones(1, 4))
    replaced = sequence.with_prompts(torch.zeros(3, 4)).with_first(torch.ones(2, 4))
    assert replaced.tokens_BLD[:, :, 0].tolist() == [[1, 1, 0, 0, 0, 0, 0, 0]] * 2
    assert replaced.segments == (("prompt", 3), ("text", 5))
