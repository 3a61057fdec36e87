"""Prompt the Missing: which tokens enter where, in which case; what stays as it was fine-tuned."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mmrobust.cases import noisy_cases
from mmrobust.data import Dataset
from mmrobust.errors import MmrobustError, UsageError
from mmrobust.models.backbone import Backbone
from mmrobust.models.checkpoint import load_checkpoint
from mmrobust.models.classifier import Classifier
from mmrobust.models.heads.linear import LinearHead
from mmrobust.models.methods.ptm import PromptTheMissing, PtmConfig
from mmrobust.models.sequence import PROMPT
from mmrobust.training.loop import train
from mmrobust.training.pretrained_head import head_loss
from mmrobust.training.recipe import default_recipe
from mmrobust.training.settings import TrainSettings

AUDIO_IMAGE = ("audio", "image")
CASES = [case.name for case in noisy_cases(AUDIO_IMAGE)]
BACKBONES = ["tiny-cavmae", "tiny-cavmae-fusion"]
close = {"rtol": 0, "atol": 1e-5}


@pytest.fixture(params=[(b, level) for b in BACKBONES for level in ("input", "attention", "both")], ids="-".join)
def built(request: pytest.FixtureRequest, tiny: Callable[[str], Backbone]) -> Classifier:
    return classifier_of(tiny(request.param[0]), level=request.param[1])


def classifier_of(backbone: Backbone, **config: Any) -> Classifier:
    torch.manual_seed(0)
    classifier = Classifier(
        backbone,
        PromptTheMissing,
        PtmConfig(**{"length": 3, **config}),
        LinearHead,
        LinearHead.config_class(),
        classes=["a", "b", "c"],
        task="single-label",
        cases=noisy_cases(AUDIO_IMAGE),
    )
    with torch.no_grad():
        for parameter in classifier.trained().values():
            parameter.add_(torch.randn_like(parameter) * 0.5)
    return classifier


def inputs_of(classifier: Classifier, samples: Any, count: int = 3) -> Any:
    return classifier.backbone.processor.collate(samples("tiny-cavmae", count))


def entered(classifier: Classifier, inputs: Any, told: tuple[str, ...]) -> dict[tuple[str, int], Any]:
    """(stream, layer) → what the method added there."""
    added = {}

    def prompts(stream: str, layer: int, sequence: Any) -> Any:
        added[stream, layer] = classifier.method.source(told)(stream, layer, sequence)
        return added[stream, layer]

    classifier.backbone(inputs, prompts)
    return added


@torch.inference_mode()
@pytest.mark.parametrize("told", [("noisy-image",), tuple(CASES)], ids=["situation", "concat"])
def test_which_tokens_enter_where(built: Classifier, samples: Any, told: tuple[str, ...]) -> None:
    tokens = {m: torch.cat([built.method.tokens[m][case] for case in told]) for m in AUDIO_IMAGE}
    level = built.method.config.level
    for (stream, layer), prompts in entered(built, inputs_of(built, samples), told).items():
        if stream in AUDIO_IMAGE:
            if layer == 0 and level != "attention":
                assert torch.equal(prompts.tokens_PD, tokens[stream]) and prompts.context_PD is None
            else:
                assert prompts is None
        elif stream not in built.backbone.fusion_points or level == "input":
            assert prompts is None
        else:
            expected = torch.cat([tokens[m] for m in built.backbone.fusion_points[stream]])
            assert torch.equal(prompts.context_PD, expected) and prompts.tokens_PD is None


@torch.inference_mode()
def test_prompts_are_not_pooled(built: Classifier, samples: Any) -> None:
    inputs = inputs_of(built, samples)
    streams = built.backbone(inputs, built.method.source(("complete",)))
    joint = streams["joint"]
    prompts = [length for name, length in joint.segments if name == PROMPT]
    assert prompts == ([] if built.method.config.level == "attention" else [3, 3])
    assert joint.content().shape[1] == joint.tokens_BLD.shape[1] - sum(prompts)
    pooled = built.pooling.norm(joint.content()).mean(1)
    torch.testing.assert_close(built.pooling.pooled(streams), pooled, **close)


@torch.inference_mode()
def test_a_sample_alone_is_the_sample_in_any_batch(built: Classifier, samples: Any) -> None:
    several = samples("tiny-cavmae", 7)
    collate = built.backbone.processor.collate
    for prompting in ("situation", "concat"):
        for case in CASES:
            together = built(collate(several), case, prompting)
            alone = torch.cat([built(collate([sample]), case, prompting) for sample in several])
            torch.testing.assert_close(together, alone, **close)


@torch.inference_mode()
def test_the_case_matters_under_situation_alone(built: Classifier, samples: Any) -> None:
    inputs = inputs_of(built, samples)
    concat = [built(inputs, case, "concat") for case in [*CASES, "missing-audio"]]
    assert all(torch.equal(logits, concat[0]) for logits in concat)
    told = [built(inputs, case) for case in CASES]
    assert not any(torch.allclose(told[0], logits, atol=1e-4) for logits in [*told[1:], concat[0]])
    with pytest.raises(UsageError, match=r"for case 'missing-audio', only for complete, noisy-audio, .*concat works"):
        built(inputs, "missing-audio")


@torch.inference_mode()
def test_tokens_that_are_only_attended_to_are_the_layers_own_keys_and_values(
    tiny: Callable[[str], Backbone],
) -> None:
    """Against the tokens being part of the sequence, with what they attend to thrown away."""
    from mmrobust.models.layers import Prompts, run_layer
    from mmrobust.models.sequence import TokenSequence

    layer = tiny("tiny-cavmae").eval().layers("joint")[0]
    torch.manual_seed(0)
    tokens, context = torch.randn(2, 5, 128), torch.randn(4, 128)
    sequence = TokenSequence(tokens, None, (("audio", 5),))
    ours = run_layer(layer, sequence, Prompts(context_PD=context)).tokens_BLD
    whole = TokenSequence(torch.cat([context.expand(2, -1, -1), tokens], 1), None, (("audio", 9),))
    torch.testing.assert_close(ours, run_layer(layer, whole).tokens_BLD[:, 4:], **close)


def test_only_prompts_train_unless_the_head_is_asked_to(tiny: Callable[[str], Backbone]) -> None:
    names = {f"method.tokens.{m}.{case}" for m in AUDIO_IMAGE for case in CASES}
    assert set(classifier_of(tiny("tiny-cavmae")).trained()) == names
    head = {f"head.{n}" for n in ("dense.weight", "dense.bias")}
    assert set(classifier_of(tiny("tiny-cavmae"), train_head=True).trained()) == names | head


def test_a_backbone_without_a_stream_per_modality_is_refused(tiny: Callable[[str], Backbone]) -> None:
    with pytest.raises(UsageError, match="needs a stream for each modality, as CAV-MAE has; vilt has only joint"):
        PromptTheMissing(PtmConfig(), tiny("tiny-vilt"), CASES)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"level": "atention"}, "unknown prompt level 'atention': did you mean 'attention'"),
        ({"length": 0}, "1 or more"),
    ],
)
def test_settings_out_of_range(config: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        PtmConfig(**config)


def settings_of(digits: Dataset, backbone: Path | str, **changes: Any) -> TrainSettings:
    values = {
        "data": digits.folder,
        "backbone": str(backbone),
        "method": "ptm",
        "head": "linear",
        "recipe": default_recipe("ptm", "full").changed(epochs=2, batch_size=10),
        "modalities": AUDIO_IMAGE,
        "scenario": "noisy-both",
        "method_settings": {"length": 2},
    }
    return TrainSettings(**{**values, **changes})


def test_its_recipe_is_the_released_one() -> None:
    recipe = default_recipe("ptm", "runs/full")
    assert (recipe.optimizer, recipe.lr, recipe.weight_decay, recipe.epochs) == ("adam", 1e-3, 5e-7, 5)
    assert (recipe.batch_size, recipe.share, recipe.label_smoothing, recipe.loss) == (128, 0.3, 0.1, "head")


def test_the_checkpoint_holds_the_head_it_kept(trained: Callable[..., Path], digits: Dataset, tmp_path: Path) -> None:
    full = trained("full", "linear", AUDIO_IMAGE)
    config = train(settings_of(digits, full), tmp_path / "ptm")
    theirs, ours = (load_file(folder / "model.safetensors") for folder in (full, tmp_path / "ptm"))
    kept = {name for name in theirs if name.startswith("head.")}
    assert kept and all(torch.equal(ours[name], theirs[name]) for name in kept)
    assert config.cases == CASES
    assert config.training["trained_parameters"] == 2 * 4 * 2 * 128
    loaded = load_checkpoint(tmp_path / "ptm")
    assert torch.equal(loaded.classifier.head.dense.weight, theirs["head.dense.weight"])

    save_file({name: t * 2 if name in kept else t for name, t in ours.items()}, tmp_path / "ptm" / "model.safetensors")
    assert load_checkpoint(tmp_path / "ptm").fingerprint != loaded.fingerprint


def test_its_loss_is_the_one_that_the_head_was_fine_tuned_with(
    trained: Callable[..., Path], digits: Dataset, tmp_path: Path
) -> None:
    full = trained("full", "linear", AUDIO_IMAGE)
    recipe = default_recipe("ptm", "full").changed(epochs=1, batch_size=10)
    assert train(settings_of(digits, full, recipe=recipe), tmp_path / "a").training["recipe"]["loss"] == "task"
    binary = recipe.changed(loss="bce", batching="mixed", share=1.0)
    changes = {"method": "full", "recipe": binary, "method_settings": {}}
    train(settings_of(digits, full, **changes), tmp_path / "full")
    config = train(settings_of(digits, tmp_path / "full", recipe=recipe), tmp_path / "b")
    assert config.training["recipe"]["loss"] == "bce"
    assert head_loss("tiny") == "bce"


def test_a_trained_head_begins_as_the_fine_tuned_one(
    trained: Callable[..., Path], digits: Dataset, tmp_path: Path
) -> None:
    full = trained("full", "linear", AUDIO_IMAGE)
    recipe = default_recipe("ptm", "full").changed(epochs=1, batch_size=10, lr=1e-9)
    changes = {"recipe": recipe, "method_settings": {"length": 2, "train_head": True}}
    train(settings_of(digits, full, **changes), tmp_path / "ptm")
    theirs, ours = (load_file(folder / "model.safetensors") for folder in (full, tmp_path / "ptm"))
    torch.testing.assert_close(ours["head.dense.weight"], theirs["head.dense.weight"], **close)
    other = settings_of(digits, full, head="prototype", method_settings={"length": 2, "train_head": True})
    assert train(other, tmp_path / "prototype").head["name"] == "prototype"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"head": "prototype"}, "has a linear head, not prototype: .* or train the head with --train-head"),
        ({"backbone": "tiny"}, "keeps the head of the fine-tuned backbone as it is, but tiny is no fine-tuned check"),
        ({"method_settings": {"depth": 2}}, "unknown ptm method setting 'depth'"),
        ({"noise_profile": "loud"}, "unknown noise profile 'loud'"),
    ],
)
def test_what_does_not_fit(
    trained: Callable[..., Path], digits: Dataset, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(MmrobustError, match=message):
        train(settings_of(digits, **{"backbone": trained("full", "linear", AUDIO_IMAGE), **change}), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_prototype_head_of_other_settings_is_not_the_fine_tuned_one(
    trained: Callable[..., Path], digits: Dataset, tmp_path: Path
) -> None:
    recipe = default_recipe("full", "tiny").changed(epochs=1, share=0.3)
    changes = {"method": "full", "head": "prototype", "recipe": recipe, "method_settings": {}, "missing_rate": 0.0}
    train(settings_of(digits, trained("full", "linear", AUDIO_IMAGE), **changes), tmp_path / "full")
    recipe = default_recipe("ptm", "full").changed(epochs=1)
    for head, fits in (({"margin": 0.3}, True), ({"normalise": "joint"}, False), ({"scale": 16.0}, False)):
        student = settings_of(digits, tmp_path / "full", head="prototype", recipe=recipe, head_settings=head)
        if fits:
            train(student, tmp_path / "ptm")
            continue
        with pytest.raises(MmrobustError, match="has a prototype head of other settings"):
            train(student, tmp_path / "other")
