"""``towers``: encoders whose tokens meet in a joint stream; what a frozen one gives for a sample is computed once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import (
    BertConfig,
    BertModel,
    ViTConfig,
    ViTImageProcessorPil,
    ViTModel,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Model,
)

import mmrobust
from mmrobust.cases import Case
from mmrobust.data import Dataset
from mmrobust.data.prepare.digits import encode_picture
from mmrobust.data.prepare.manifest import prepare_manifest
from mmrobust.errors import CheckpointError, MmrobustError, UsageError
from mmrobust.evaluation.evaluate import evaluate_models
from mmrobust.models.backbone import Backbone
from mmrobust.models.backbones import load_backbone
from mmrobust.models.backbones.pretrained_encoder import PretrainedEncoder
from mmrobust.models.backbones.tiny import BERT_ENDS, fitting_tiny, make_tiny, make_towers, train_tokenizer
from mmrobust.models.backbones.towers import TowersBackbone
from mmrobust.models.checkpoint import load_checkpoint
from mmrobust.models.classifier import Classifier
from mmrobust.scenarios.grid import Grid
from mmrobust.training.feature_cache import Cache, frozen_depths
from mmrobust.training.loop import train
from mmrobust.training.recipe import Recipe
from mmrobust.training.settings import TrainOptions, TrainSettings, parse_encoders

DIGITS = ("image", "text", "audio")
RECIPE = Recipe(epochs=2, batch_size=16, lr=1e-3)
close = {"rtol": 0, "atol": 1e-5}


@pytest.fixture(scope="module")
def pretrained(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """Kind → a folder with a small model of ``transformers`` and its processor, as anyone's pretrained weights lie."""
    folder = tmp_path_factory.mktemp("pretrained")
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    torch.manual_seed(0)
    tokenizer = train_tokenizer((str(sample.text) for sample in digits.split("train")), BERT_ENDS)
    waves = Wav2Vec2Config(**sizes, conv_dim=(8, 8), conv_kernel=(10, 8), conv_stride=(8, 8), num_conv_pos_embeddings=4)
    waves.num_conv_pos_embedding_groups, waves.num_feat_extract_layers = 2, 2
    models = {
        "text": (BertModel(BertConfig(**sizes, vocab_size=len(tokenizer), max_position_embeddings=32)), tokenizer),
        "image": (
            ViTModel(ViTConfig(**sizes, image_size=32, patch_size=16)),
            ViTImageProcessorPil(size={"height": 32, "width": 32}),
        ),
        "audio": (Wav2Vec2Model(waves), Wav2Vec2FeatureExtractor(sampling_rate=8000)),
    }
    for kind, (model, processor) in models.items():
        model.save_pretrained(folder / kind)
        processor.save_pretrained(folder / kind)
    return {kind: str(folder / kind) for kind in models}


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Two pictures, readings along time of different lengths, and an age: nothing is called as its kind."""
    folder = tmp_path_factory.mktemp("people")
    rows = ["id,front,back,imu,age,label,split"]
    for i in range(24):
        for place in ("front", "back"):
            (folder / f"{place}{i}.png").write_bytes(encode_picture(np.full((8, 8), 9 * i % 256, dtype=np.uint8)))
        np.save(folder / f"{i}.npy", np.random.default_rng(i).normal(size=(2 + i % 3, 4)).astype(np.float32))
        split = ("train", "train", "validation", "test")[i % 4]
        rows.append(f"s{i},front{i}.png,back{i}.png,{i}.npy,{20 + i},{'ab'[i // 4 % 2]},{split}")
    (folder / "manifest.csv").write_text("\n".join(rows))
    out = folder / "data"
    modalities = ("front=image:front", "back=image:back", "imu=features:imu", "age=features:age")
    prepare_manifest(folder / "manifest.csv", out, modalities=modalities)
    return Dataset(out)


def settings(data: Dataset, method: str = "full", backbone: str = "towers", **changed: Any) -> TrainSettings:
    rate = 0.0 if method == "full" else 0.7
    values = {"modalities": data.info.modalities, "missing_rate": rate, "scenario": "missing-any", **changed}
    return TrainSettings(data.folder, backbone, method, values.pop("head", "linear"), RECIPE, **values)


def inputs_of(backbone: Backbone, data: Dataset, count: int = 5, split: str = "train") -> list[dict[str, torch.Tensor]]:
    from mmrobust.data.encoded_split import EncodedSplit

    encoded = EncodedSplit(data.split(split), backbone.processor, backbone.modalities, "ones")
    return encoded.samples(range(count), Case.complete(backbone.modalities))


def test_tiny_is_towers_where_no_other_family_fits(people: Dataset, digits: Dataset) -> None:
    kinds = digits.info.kinds
    assert fitting_tiny(("text", "image"), kinds) == "tiny-vilt"
    assert fitting_tiny(DIGITS, kinds) == fitting_tiny(("text",), kinds) == "tiny-towers"
    assert fitting_tiny(("image", "text"), {"image": "features", "text": "text"}) == "tiny-towers"
    built = make_tiny("tiny", people.info.modalities, people.split("train"), 0)
    assert (built.source, built.modalities) == ("tiny-towers", ("front", "back", "imu", "age"))


@torch.inference_mode()
def test_any_modalities_of_any_kind(people: Dataset, classifier: Callable[..., Classifier], tmp_path: Path) -> None:
    built = classifier(make_towers(people.info.modalities, people.split("train"), 0), "mmp", method_set={"length": 2})
    several = inputs_of(built.backbone, people)
    assert len({len(sample["imu"]) for sample in several}) > 1  # of different lengths
    together = built(built.backbone.processor.collate(several))
    for row, sample in enumerate(several):
        torch.testing.assert_close(built(built.backbone.processor.collate([sample]))[0], together[row], **close)
    built.backbone.save(tmp_path)
    again = load_backbone(str(tmp_path), people.info.modalities).eval()
    assert again.fingerprint() == built.backbone.fingerprint()
    assert again.inputs_fingerprint() == built.backbone.inputs_fingerprint()
    old, new = (b(b.processor.collate(inputs_of(b, people)))["joint"].tokens_BLD for b in (built.backbone, again))
    assert torch.equal(old, new)


def test_features_are_standardised_by_the_training_split(people: Dataset) -> None:
    backbone = make_towers(("imu", "age"), people.split("train"), 0)
    encoded = inputs_of(backbone, people, count=12)
    for modality in ("imu", "age"):
        rows = torch.cat([sample[modality] for sample in encoded])
        torch.testing.assert_close(rows.mean(0), torch.zeros(rows.shape[1]), rtol=0, atol=1e-5)
        torch.testing.assert_close(rows.std(0, correction=0), torch.ones(rows.shape[1]), rtol=0, atol=1e-4)
    with pytest.raises(ValueError, match=r"features of shape \[3\], the model takes \[1\]"):
        backbone.processor.encode("age", np.zeros(3))


@torch.inference_mode()
def test_a_missing_modality_is_left_out_or_filled(classifier: Callable[..., Classifier], samples: Any) -> None:
    several = samples("tiny-towers", 3)
    for path in ("omit", "fill"):
        built = classifier("tiny-towers", "mmp", "prototype", backbone_set={"missing_path": path})
        batch = built.backbone.processor.collate(several)
        streams = built.backbone(batch, None, built.known_missing(("missing-text",)))
        expected = ["image", "audio"] if path == "omit" else ["image", "text", "audio"]
        assert [name for name, _ in streams["joint"].segments] == expected
        others = {**batch, "text": batch["text"].flip(0)}
        same = torch.equal(built(batch, "missing-text"), built(others, "missing-text"))
        assert same is (path == "omit")
        unknown = built.backbone(batch, None, built.known_missing(built.cases))  # concat: all run
        assert len(unknown["joint"].segments) == 3


def test_the_joint_stream_begins_as_a_linear_model(people: Dataset) -> None:
    backbone = make_towers(("imu", "age"), people.split("train"), 0).eval()
    encoded = {m: backbone.embed(m, backbone.processor.collate(inputs_of(backbone, people))) for m in ("imu", "age")}
    torch.testing.assert_close(backbone.fuse(encoded)["joint"].tokens_BLD, backbone.joint_input(encoded).tokens_BLD)


@pytest.mark.parametrize("kind", DIGITS)
@torch.inference_mode()
def test_an_encoder_gives_what_its_library_gives(pretrained: Mapping[str, str], digits: Dataset, kind: str) -> None:
    from transformers import AutoModel

    backbone = make_towers((kind,), digits.split("train"), 0, {kind: pretrained[kind]}).eval()
    several = inputs_of(backbone, digits)
    together = backbone.embed(kind, backbone.processor.collate(several))
    model = AutoModel.from_pretrained(pretrained[kind]).eval()
    for row, sample in enumerate(several):
        alone = model(**{model.main_input_name: sample[kind][None]}).last_hidden_state[0]
        torch.testing.assert_close(together.tokens_BLD[row, : len(alone)], alone, **close)
        assert together.mask_BL is not None and int(together.mask_BL[row].sum()) == len(alone)


def counted(patch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """What pretrained encoders are asked from now on: (kind, samples)."""
    asked: list[tuple[str, int]] = []
    true = PretrainedEncoder.forward

    def spied(self: PretrainedEncoder, values: torch.Tensor, sizes: torch.Tensor) -> Any:
        asked.append((self.kind, len(values)))
        return true(self, values, sizes)

    patch.setattr(PretrainedEncoder, "forward", spied)
    return asked


def test_frozen_encoders_run_once_for_each_sample(
    pretrained: Mapping[str, str], digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In training with ``full``, with prompts, and over all cases of an evaluation; the numbers stay the same."""
    full = settings(digits, encoders=dict(pretrained))
    train(full, tmp_path / "live", cache=Cache(on=False))
    asked = counted(monkeypatch)
    train(full, tmp_path / "full")
    assert {kind: sum(n for other, n in asked if other == kind) for kind in DIGITS} == dict.fromkeys(
        DIGITS, 121
    )  # one more to warm up
    losses = [pd.read_parquet(tmp_path / name / "training.parquet").train_loss for name in ("live", "full")]
    np.testing.assert_allclose(losses[0], losses[1], rtol=0, atol=1e-5)

    asked.clear()
    train(settings(digits, "mmp", str(tmp_path / "full"), method_settings={"length": 2}), tmp_path / "mmp")
    assert max(sum(n for other, n in asked if other == kind) for kind in DIGITS) <= 121

    asked.clear()
    names = ("missing-any", "missing-image+missing-audio")
    grid = Grid(names, (0.0, 1.0), (0, 1), ("situation",))
    checkpoint = load_checkpoint(tmp_path / "mmp")
    evaluate_models({"mmp": checkpoint}, digits, grid, tmp_path / "results")
    assert {kind: sum(n for other, n in asked if other == kind) for kind in DIGITS} == dict.fromkeys(DIGITS, 60)


def test_full_trains_the_joint_stream_and_pretrained_encoders_only_if_asked(
    pretrained: Mapping[str, str], digits: Dataset, tmp_path: Path
) -> None:
    named = {"text": pretrained["text"]}
    files = {}
    for name, asked in (("frozen", {}), ("trained", {"train_encoders": True})):
        train(settings(digits, encoders=named, backbone_settings=asked), tmp_path / name)
        backbone = load_checkpoint(tmp_path / name).classifier.backbone
        assert isinstance(backbone, TowersBackbone)
        files[name] = json.loads((tmp_path / name / "backbone" / "config.json").read_text())["towers"]
        own = load_encoder_weights(pretrained["text"])
        same = all(torch.equal(own[n], t) for n, t in backbone.model.encoder("text").held().items())
        assert same is (name == "frozen")
    assert [files[name]["text"]["stored"] for name in files] == [False, True]
    assert files["frozen"]["image"] == {"kind": "image", "encoder": "tiny", "stored": True, "settings": {}}
    weights = (tmp_path / "frozen" / "backbone" / "model.safetensors").read_bytes()
    assert b"encoders.of_text" not in weights and b"encoders.of_image" in weights


def load_encoder_weights(place: str) -> dict[str, torch.Tensor]:
    from mmrobust.models.backbones.pretrained_encoder import load_encoder

    return load_encoder("text", "it", place, "text").held()


def test_an_encoder_is_found_again_and_must_be_the_same(
    pretrained: Mapping[str, str], digits: Dataset, tmp_path: Path
) -> None:
    beside = Path(shutil.copytree(pretrained["text"], tmp_path / "a" / "bert"))
    backbone = make_towers(("text",), digits.split("train"), 0, {"text": str(beside)})
    backbone.save(tmp_path / "a" / "it")
    shutil.move(tmp_path / "a", tmp_path / "b")  # both move together
    assert load_backbone(str(tmp_path / "b" / "it"), ("text",)).fingerprint() == backbone.fingerprint()
    model = BertModel.from_pretrained(tmp_path / "b" / "bert")
    with torch.no_grad():
        next(iter(model.parameters())).add_(1)
    model.save_pretrained(tmp_path / "b" / "bert")
    with pytest.raises(CheckpointError, match=r"its encoder text=.*bert has other weights now"):
        load_backbone(str(tmp_path / "b" / "it"), ("text",))
    shutil.rmtree(tmp_path / "b" / "bert")
    with pytest.raises(CheckpointError, match="bert: no such folder; --encoder takes tiny, a folder of weights or a"):
        load_backbone(str(tmp_path / "b" / "it"), ("text",))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"encoders": {"txt": "tiny"}}, "unknown modality in --encoder 'txt': did you mean 'text'?"),
        ({"encoders": {"text": "/no/such/place"}}, "text=/no/such/place: no such folder; --encoder takes tiny"),
        (
            {"encoders": {"text": "no-such-model"}},
            "encoder text=no-such-model: is no folder here and no model in reach",
        ),
        ({"backbone": "tiny-vilt", "encoders": {"text": "x"}, "modalities": ("image", "text")}, "has its own encoders"),
        ({"backbone_settings": {"missing_path": "single"}}, "unknown missing path 'single'"),
        ({"backbone_settings": {"joint_width": 30, "joint_heads": 4}}, "joint_heads 4 divide it"),
        ({"method": "dcp"}, "method dcp needs one tower per modality, as clip has; towers has the streams image, text"),
        ({"method": "maple"}, "method maple needs one tower per modality"),
        (
            {"method": "ptm", "method_settings": {"level": "both", "train_head": True}},
            "towers has none: use --prompt-level",
        ),
    ],
)
def test_what_does_not_fit_is_refused(digits: Dataset, tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    values = {"method": "none", "backbone": "tiny-towers", "modalities": DIGITS, **changed}
    if "encoders" in changed and "backbone" not in changed:
        values["backbone"] = "towers"
    with pytest.raises(MmrobustError) as caught:
        train(settings(digits, values.pop("method"), values.pop("backbone"), **values), tmp_path / "out")
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_features_take_no_encoder(people: Dataset) -> None:
    with pytest.raises(UsageError, match="--encoder imu=bert: features need no encoder; they are mapped linearly"):
        make_towers(("imu",), people.split("train"), 0, {"imu": "bert"})
    for pair, message in (("text", "give NAME=ID"), ("=x", "give NAME=ID")):
        with pytest.raises(UsageError, match=message):
            parse_encoders([pair])
    with pytest.raises(UsageError, match="text has a already"):
        parse_encoders(["text=a", "text=b"])


def test_an_encoder_that_cannot_take_the_modality_is_one_line(pretrained: Mapping[str, str], digits: Dataset) -> None:
    build = partial(make_towers, ("image",), digits.split("train"), 0)
    with pytest.raises(CheckpointError, match=r"encoder image=.*text: weights or processor cannot be loaded"):
        build({"image": pretrained["text"]})


def test_a_noise_profile_has_no_noise_for_recordings(
    pretrained: Mapping[str, str], digits: Dataset, tmp_path: Path
) -> None:
    """A pretrained encoder takes waveforms, or spectrograms of its own; a named corruption acts on the recording."""
    asked = partial(settings, digits, "none", encoders={"audio": pretrained["audio"]}, modalities=("audio", "image"))
    refused = "case 'noisy-audio': .* the encoder makes none of audio; name a corruption, as in noisy-audio:babble@3"
    with pytest.raises(UsageError, match=refused):
        train(asked(scenario="noisy-audio"), tmp_path / "it")
    assert not (tmp_path / "it").exists()
    train(asked(scenario="noisy-audio:babble@3"), tmp_path / "it")
    model, run = load_checkpoint(tmp_path / "it"), tmp_path / "run"
    with pytest.raises(UsageError, match=refused):
        evaluate_models({"it": model}, digits, Grid(("noisy-audio",), (1.0,), (0,)), run)
    assert not list(run.rglob("*.parquet"))
    evaluate_models({"it": model}, digits, Grid(("noisy-audio:babble@3", "noisy-image"), (1.0,), (0,)), run)


def test_towers_take_every_modality_of_the_data_and_then_their_own(digits: Dataset, tmp_path: Path) -> None:
    asked = TrainOptions(method="full", backbone="towers")
    resolved = asked.resolve(digits.folder)
    assert (resolved.modalities, resolved.scenario, resolved.recipe.augment) == (DIGITS, "missing-any", True)
    assert TrainOptions(method="full", backbone="tiny").resolve(digits.folder).modalities is None
    train(
        settings(digits, "none", "tiny-towers", modalities=("text",), scenario="noisy-text"),
        tmp_path / "it",
    )
    on_it = TrainOptions(method="none", backbone=str(tmp_path / "it")).resolve(digits.folder)
    assert (on_it.modalities, on_it.scenario) == (("text",), "noisy-text")


def test_the_default_recipe_depends_on_what_trains(digits: Dataset, people: Dataset) -> None:
    def recipe(data: Dataset, method: str = "full", **asked: Any) -> tuple[float, bool]:
        found = TrainOptions(method=method, backbone="towers", **asked).resolve(data.folder).recipe
        return found.lr, found.augment

    bert = {"text": "some/bert"}
    assert recipe(digits) == (1e-3, True)
    assert recipe(digits, encoders=bert) == (1e-3, False)  # small encoders beside a frozen one
    assert recipe(digits, encoders=bert, modalities=("text",)) == (3e-4, False)
    assert recipe(people, modalities=("imu", "age")) == (3e-4, False)
    assert recipe(people, "none", modalities=("imu", "age")) == (1e-2, False)  # only the head trains
    assert recipe(people, modalities=("imu", "age"), recipe={"lr": 1e-2}) == (1e-2, False)


def test_nothing_but_encoders_is_kept_while_everything_else_trains(classifier: Callable[..., Classifier]) -> None:
    assert frozen_depths(classifier("tiny-towers", "none")) == dict.fromkeys(DIGITS, 0)
    assert frozen_depths(classifier("tiny-towers", "lora", method_set={"rank": 2})) == dict.fromkeys(DIGITS, 0)
    assert frozen_depths(classifier("tiny-towers", "full")) == {}


def test_raw_samples_through_the_python_face(digits: Dataset, tmp_path: Path) -> None:
    from mmrobust.data.decoding import decode

    train(settings(digits, "none", "tiny-towers", head="prototype"), tmp_path / "it")
    loaded = mmrobust.load(tmp_path / "it")
    (sample,) = digits.split("test").read([0])
    raw = {modality: decode(sample, modality) for modality in DIGITS}
    logits = loaded.logits([raw, {**raw, "text": None}], "missing-text")
    assert logits.shape == (2, 10) and torch.equal(logits[0], logits[1])
    card = (tmp_path / "it" / "README.md").read_text()
    assert '"image": PIL image, "text": str, "audio": (waveform, rate)' in card
