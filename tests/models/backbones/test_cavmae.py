"""CAV-MAE against tensors recorded from the reference (YuanGongND/cav-mae, ``CAVMAEFT``), in all of its modes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from mmrobust.cases import missing_cases
from mmrobust.errors import UsageError
from mmrobust.models.backbones.cavmae import JOINT, UNIMODAL, CavMaeBackbone, CavMaeSettings
from mmrobust.models.backbones.cavmae_model import CavMaeConfig, CavMaeModel
from mmrobust.models.backbones.parts import sincos_positions
from mmrobust.models.classifier import Classifier
from mmrobust.models.heads.linear import LinearHead
from mmrobust.models.importing.cavmae import from_cavmae
from mmrobust.models.methods.full import FullFineTuning

close = {"rtol": 0, "atol": 1e-5}

MODES = {
    "multimodal": ("fill", "complete"),
    "audioonly": ("single", "missing-image"),
    "videoonly": ("single", "missing-audio"),
    "missingaudioonly": ("average", "missing-image"),
    "missingvideoonly": ("average", "missing-audio"),
}
"""The reference's mode → (missing path, case). It names its modes after what is THERE."""


@pytest.fixture
def recorded(golden: Any) -> Any:
    return golden("cavmae")


def classifier_of(recorded: Any, missing_path: str = "fill") -> Classifier:
    imported = from_cavmae(recorded.weights, recorded.config)
    model = CavMaeModel(CavMaeConfig(**imported.sizes))
    model.load_state_dict(imported.backbone)
    backbone = CavMaeBackbone(model, None, "golden")  # type: ignore[arg-type]  # the inputs are encoded already
    backbone.configure({"missing_path": missing_path})
    classifier = Classifier(
        backbone,
        FullFineTuning,
        FullFineTuning.config_class(),
        LinearHead,
        LinearHead.config_class(),
        classes=[str(k) for k in range(imported.classes)],
        task="multi-label",
        cases=missing_cases(backbone.modalities),
    )
    classifier.load_state_dict(imported.trained, strict=False)
    return classifier


def inputs_of(recorded: Any) -> dict[str, torch.Tensor]:
    return {"audio_values": recorded.io["in.audio"], "pixel_values": recorded.io["in.image"]}


@pytest.mark.parametrize("mode", MODES)
def test_the_logits_of_every_mode_are_the_references(recorded: Any, mode: str) -> None:
    missing_path, case = MODES[mode]
    logits = classifier_of(recorded, missing_path)(inputs_of(recorded), case)
    torch.testing.assert_close(logits, recorded.io[f"out.{mode}"], **close)


def test_what_is_missing_is_not_looked_at(recorded: Any) -> None:
    for missing_path in ("single", "average"):
        inputs = inputs_of(recorded) | {"pixel_values": torch.full_like(recorded.io["in.image"], torch.nan)}
        assert classifier_of(recorded, missing_path)(inputs, "missing-image").isfinite().all()


def test_every_state_on_the_way_is_the_references(recorded: Any) -> None:
    classifier, io = classifier_of(recorded), recorded.io
    entered: dict[tuple[str, int], Any] = {}
    streams = classifier.backbone(inputs_of(recorded), lambda s, i, x: entered.update({(s, i): x}))
    model = classifier.backbone.model
    for stream, letter in (("audio", "a"), ("image", "v")):
        patches = entered[stream, 0].tokens_BLD - getattr(model, f"pos_embed_{letter}")
        torch.testing.assert_close(
            patches - getattr(model, f"modality_{letter}"), io[f"mid.patch_embed_{letter}"], **close
        )
    torch.testing.assert_close(streams["audio"].tokens_BLD, io["mid.audio_after_blocks_a"], **close)
    torch.testing.assert_close(streams["image"].tokens_BLD, io["mid.image_after_blocks_v"], **close)
    torch.testing.assert_close(streams[JOINT].tokens_BLD, io["mid.multimodal_after_blocks_u"], **close)


@pytest.mark.parametrize(("modality", "missing", "letter"), [("audio", "image", "a"), ("image", "audio", "v")])
def test_the_features_of_one_modality_alone_are_the_references(
    recorded: Any, modality: str, missing: str, letter: str
) -> None:
    backbone = classifier_of(recorded, "single").backbone
    streams = backbone(inputs_of(recorded), missing=(missing,))
    assert set(streams) == {modality, UNIMODAL[modality]}
    features = getattr(backbone.model, f"norm_{letter}")(streams[UNIMODAL[modality]].tokens_BLD)
    torch.testing.assert_close(features, recorded.io[f"out.feat_{letter}"], **close)


def test_the_loss_and_its_gradients_are_the_references(recorded: Any) -> None:
    classifier, io = classifier_of(recorded), recorded.io
    loss = F.binary_cross_entropy_with_logits(classifier(inputs_of(recorded)), io["in.soft_label"])
    torch.testing.assert_close(loss, io["out.bce_loss"], **close)
    loss.backward()
    found = dict(classifier.backbone.model.named_parameters()) | {"mlp_head.1.weight": classifier.head.dense.weight}
    names = [name.removeprefix("grad.bce.") for name in io if name.startswith("grad.bce.") and io[name].ndim]
    assert len(names) == 4
    unreached = sum(p.grad is None for p in classifier.backbone.model.parameters())
    assert unreached == io["grad.bce.no_grad_count"]  # the norms for one modality alone
    for name in names:
        expected = io[f"grad.bce.{name}"]
        torch.testing.assert_close(found[name].grad, expected, rtol=0, atol=1e-5 * expected.abs().max().item())


def test_positions_begin_as_the_references(recorded: Any) -> None:
    torch.testing.assert_close(sincos_positions(8, 4, 40), recorded.io["init.pos_embed_a"], **close)
    torch.testing.assert_close(sincos_positions(4, 4, 40), recorded.io["init.pos_embed_v"], **close)


@pytest.mark.parametrize("missing_path", ["single", "average"])
def test_an_unknown_case_takes_the_fill(recorded: Any, missing_path: str) -> None:
    told, filled = classifier_of(recorded, missing_path), classifier_of(recorded)
    assert told.depends_on_prompting and not filled.depends_on_prompting
    inputs = inputs_of(recorded)
    for case in told.cases:
        assert torch.equal(told(inputs, case, "concat"), filled(inputs, case, "concat"))
    assert not torch.allclose(told(inputs, "missing-audio"), filled(inputs, "missing-audio"))


def test_a_path_that_is_none_is_refused() -> None:
    with pytest.raises(UsageError, match="unknown missing path 'avarage': did you mean 'average'"):
        CavMaeSettings(missing_path="avarage")
