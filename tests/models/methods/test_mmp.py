"""Missing-aware prompts against tensors recorded from the paper's code (YiLunLee/missing_aware_prompts)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.nn import functional as F  # noqa: N812
from transformers import ViltConfig, ViltModel

from mmrobust.cases import missing_cases
from mmrobust.errors import UsageError
from mmrobust.models.backbones.vilt import JOINT, ViltBackbone
from mmrobust.models.classifier import Classifier
from mmrobust.models.heads.linear import MlpHead
from mmrobust.models.importing.mmp import PROMPTS, from_mmp
from mmrobust.models.methods.mmp import MissingAwarePrompts, MmpConfig
from mmrobust.training.objective import learning_rate, loss
from mmrobust.training.recipe import Recipe

CASES = missing_cases(("image", "text"))
CODES = {"complete": 0, "missing-text": 1, "missing-image": 2}
TASKS = {"mmimdb": "multi-label", "food101": "single-label", "hatememes": "binary"}
LEVELS = ("input", "attention")

close = {"rtol": 0, "atol": 1e-5}


def classifier_of(recorded: Any, task: str) -> Classifier:
    imported = from_mmp(recorded.weights, recorded.config, task)
    model = ViltModel(ViltConfig(**imported.sizes))
    model.load_state_dict(imported.backbone)
    method = {key: value for key, value in imported.method.items() if key != "name"}
    classifier = Classifier(
        ViltBackbone(model, None, "golden"),  # type: ignore[arg-type]  # the inputs are encoded already
        MissingAwarePrompts,
        MmpConfig(**method),
        MlpHead,
        MlpHead.config_class(),
        classes=[str(k) for k in range(imported.classes)],
        task=TASKS[task],
        cases=CASES,
    )
    assert classifier.trained().keys() == imported.trained.keys()
    classifier.load_state_dict(imported.trained, strict=False)
    return classifier


def batches(io: dict[str, torch.Tensor]) -> Iterator[tuple[str, torch.Tensor, dict[str, torch.Tensor]]]:
    """The recorded batch mixes cases; ours hold one each."""
    for case, code in CODES.items():
        rows = torch.nonzero(io["in.missing_type"] == code)[:, 0]
        yield (
            case,
            rows,
            {
                "input_ids": io["in.text_ids"][rows],
                "attention_mask": io["in.text_masks"][rows],
                "pixel_values": io["in.image"][rows],
                "pixel_mask": (io["in.image"][rows].sum(1) != 0).long(),
            },
        )


@pytest.mark.parametrize("level", LEVELS)
def test_the_embeddings_are_the_papers(golden: Any, level: str) -> None:
    recorded = golden(f"mmp_{level}")
    backbone = classifier_of(recorded, "mmimdb").backbone
    types = backbone.model.embeddings.token_type_embeddings.weight
    for _, rows, inputs in batches(recorded.io):
        entered = backbone.embed("text", inputs).followed_by(backbone.embed("image", inputs))
        text, image = entered.segment("text") - types[0], entered.segment("image") - types[1]
        torch.testing.assert_close(text, recorded.io["mid.text_embeddings"][rows], **close)
        valid = recorded.io["out.image_masks"][rows].bool()
        assert torch.equal(entered.mask_BL[:, text.shape[1] :], valid)
        torch.testing.assert_close(image[valid], recorded.io["mid.visual_embed"][rows][valid], **close)


@pytest.mark.parametrize("level", LEVELS)
def test_every_block_gives_what_the_papers_code_gives(golden: Any, level: str) -> None:
    recorded = golden(f"mmp_{level}")
    classifier = classifier_of(recorded, "mmimdb")
    for case, rows, inputs in batches(recorded.io):
        states = []

        def prompts(stream: str, layer: int, sequence: Any, case: str = case, states: list[Any] = states) -> Any:
            states.append(sequence)  # the input of a layer is the output of the one before
            return classifier.method.source((case,))(stream, layer, sequence)

        states.append(classifier.backbone(inputs, prompts)[JOINT])
        for block, state in enumerate(states[1:]):
            expected = recorded.io[f"mid.block{block}"][rows]
            assert state.tokens_BLD.shape == expected.shape
            torch.testing.assert_close(state.tokens_BLD[state.mask_BL], expected[state.mask_BL], **close)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("task", TASKS)
def test_pooled_features_logits_and_losses_are_the_papers(golden: Any, level: str, task: str) -> None:
    recorded = golden(f"mmp_{level}")
    classifier = classifier_of(recorded, task)
    total = torch.zeros(())
    for case, rows, inputs in batches(recorded.io):
        pooled = classifier.features(inputs, (case,)).pooled_BD
        torch.testing.assert_close(pooled, recorded.io["out.cls_feats"][rows], **close)
        logits = classifier(inputs, case)
        torch.testing.assert_close(logits, recorded.io[f"out.{task}_logits"][rows], **close)
        total = total + loss(logits, _targets(recorded.io, task, logits.shape[1])[rows], classifier.task, 0.0)
    torch.testing.assert_close(total / 6, recorded.io[f"out.{task}_loss"], **close)


@pytest.mark.parametrize("level", LEVELS)
def test_the_token_features_that_the_release_reads_right_are_the_papers(golden: Any, level: str) -> None:
    # At the attention level the release cuts them at the wrong offset (its line 269): nothing to compare there.
    if level == "attention":
        return
    recorded = golden(f"mmp_{level}")
    classifier = classifier_of(recorded, "mmimdb")
    for case, rows, inputs in batches(recorded.io):
        streams = classifier.backbone(inputs, lambda s, i, x, case=case: classifier.method.source((case,))(s, i, x))
        norm = classifier.backbone.model.layernorm
        text, image = norm(streams[JOINT].segment("text")), norm(streams[JOINT].segment("image"))
        seen, valid = inputs["attention_mask"].bool(), recorded.io["out.image_masks"][rows].bool()
        torch.testing.assert_close(text[seen], recorded.io["out.text_feats"][rows][seen], **close)
        torch.testing.assert_close(image[valid], recorded.io["out.image_feats"][rows][valid], **close)


@pytest.mark.parametrize("level", LEVELS)
def test_gradients_are_the_papers(golden: Any, level: str) -> None:
    recorded = golden(f"mmp_{level}")
    classifier = classifier_of(recorded, "mmimdb")
    for case, rows, inputs in batches(recorded.io):
        logits = classifier(inputs, case)
        (loss(logits, _targets(recorded.io, "mmimdb", 23)[rows], "multi-label", 0.0) / 6).backward()
    trained = classifier.trained()
    names = {
        "pooler.dense.weight": "pooling.pooler.dense.weight",
        "mmimdb_classifier.0.weight": "head.layers.0.weight",
        **{theirs: f"method.tokens.joint.{case}" for case, theirs in PROMPTS.items()},
    }
    for theirs, ours in names.items():
        expected = recorded.io[f"grad.mmimdb.{theirs}"]
        # Relative to the largest: gradients of prompts are small themselves.
        torch.testing.assert_close(trained[ours].grad, expected, rtol=0, atol=1e-5 * expected.abs().max().item())
    assert all(p.grad is None for p in classifier.backbone.parameters())


@pytest.mark.parametrize("level", LEVELS)
def test_prompts_begin_as_in_the_papers_code(golden: Any, level: str) -> None:
    recorded = golden(f"mmp_{level}")
    backbone = classifier_of(recorded, "mmimdb").backbone
    fresh = MissingAwarePrompts(MmpConfig(level=level, depth=3), backbone, [case.name for case in CASES])
    for case, theirs in PROMPTS.items():
        assert torch.equal(fresh.tokens[JOINT][case], recorded.io[f"init.{theirs}"])


def test_the_learning_rate_is_the_papers(golden: Any) -> None:
    expected = golden("mmp_input").io["sched.lr_100steps_warmup10"].tolist()
    assert [learning_rate(Recipe(), step, 100) for step in range(100)] == pytest.approx(expected, abs=1e-12)


def test_attention_prompts_of_all_cases_stand_side_by_side(tiny: Any) -> None:
    names = [case.name for case in CASES]
    method = MissingAwarePrompts(MmpConfig(level="attention", length=4, init="normal"), tiny("tiny-vilt"), names)
    added = method.source(names)(JOINT, 0, None)  # type: ignore[arg-type]  # the sequence is not looked at
    assert added.tokens_PD is None and added.keys_PD.shape == added.values_PD.shape == (6, 128)
    for index, name in enumerate(names):
        alone = method.source((name,))(JOINT, 0, None)  # type: ignore[arg-type]
        assert torch.equal(added.keys_PD[2 * index :][:2], alone.keys_PD)
        assert torch.equal(added.values_PD[2 * index :][:2], alone.values_PD)


def test_any_layers_can_be_prompted(tiny: Any) -> None:
    method = MissingAwarePrompts(MmpConfig(layers=(3, 1), length=2), tiny("tiny-vilt"), ["complete"])
    with torch.no_grad():
        method.tokens[JOINT]["complete"][0] = 7.0
    asked = [method.source(("complete",))(JOINT, layer, None) for layer in range(4)]  # type: ignore[arg-type]
    assert [added is not None for added in asked] == [False, True, False, True]
    assert asked[3].tokens_PD.eq(7.0).all()  # rows follow the order in which the layers are named, as in the release


def test_layers_count_from_the_input_of_the_network(tiny: Any) -> None:
    method = MissingAwarePrompts(MmpConfig(layers=(2, 3)), tiny("tiny-cavmae"), ["complete"])
    assert {stream: len(sets["complete"]) for stream, sets in method.tokens.items()} == {
        "audio": 1,
        "image": 1,
        "joint": 1,
    }


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"level": "atention"}, "did you mean 'attention'"),
        ({"level": "attention", "length": 7}, "--prompt-length 7: must be even at the attention level"),
        ({"length": 0}, "--prompt-length 0: must be 1 or more"),
        ({"layers": (1, 1)}, "named once"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        MmpConfig(**settings)


def test_a_layer_that_the_network_does_not_have_is_refused(tiny: Any) -> None:
    with pytest.raises(UsageError, match="has 4 layers"):
        MissingAwarePrompts(MmpConfig(layers=(4,)), tiny("tiny-vilt"), ["complete"])


def _targets(io: dict[str, torch.Tensor], task: str, classes: int) -> torch.Tensor:
    labels = io[f"in.label_{task}"]
    return labels.float() if labels.ndim == 2 else F.one_hot(labels, classes).float()
