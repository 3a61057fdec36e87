"""Models of ``transformers`` in two lines: tiny ones with random weights, compared with the library's own answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

import mmrobust
from mmrobust.data import Dataset
from mmrobust.errors import UsageError
from mmrobust.models.backbones.tiny import BERT_ENDS, train_tokenizer

CLASSES = tuple("0123456789")
LABELS = {"id2label": dict(enumerate(CLASSES)), "label2id": {name: i for i, name in enumerate(CLASSES)}}
SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
PIXELS = {"image_size": 32, "patch_size": 16}
PICTURE = Image.fromarray(np.arange(32 * 32 * 3, dtype=np.uint8).reshape(32, 32, 3))


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return train_tokenizer(["the digit seven", "ein Bild", "this is three, I think"] * 20, BERT_ENDS)


@pytest.fixture(scope="module")
def text_model(tokenizer: Any) -> Any:
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, max_position_embeddings=64, **SMALL, **LABELS
    )
    return transformers.BertForSequenceClassification(config).eval()


@pytest.fixture(scope="module")
def image_model() -> Any:
    torch.manual_seed(0)
    return transformers.ViTForImageClassification(transformers.ViTConfig(**PIXELS, **SMALL, **LABELS)).eval()


@pytest.fixture(scope="module")
def vilt(tokenizer: Any) -> tuple[Any, Any]:
    """A processor for pictures and texts, and a classifier of both."""
    torch.manual_seed(0)
    config = transformers.ViltConfig(
        vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, max_position_embeddings=64, **PIXELS, **SMALL,
        **LABELS,
    )  # fmt: skip
    images = transformers.ViltImageProcessorPil(size={"shortest_edge": 32}, size_divisor=16)
    processor = transformers.ViltProcessor(images, tokenizer)
    return processor, transformers.ViltForQuestionAnswering(config).eval()


@pytest.fixture(scope="module")
def clip(tokenizer: Any) -> Any:
    """A zero-shot pipeline for pictures."""
    torch.manual_seed(0)
    ends = {"bos_token_id": tokenizer.cls_token_id, "eos_token_id": tokenizer.sep_token_id}
    text = {"vocab_size": len(tokenizer), "max_position_embeddings": 64, **SMALL, **ends}
    config = transformers.CLIPConfig(text_config=text, vision_config={**PIXELS, **SMALL}, projection_dim=8)
    images = transformers.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    model = transformers.CLIPModel(config).eval()
    return transformers.pipeline(
        "zero-shot-image-classification", model=model, tokenizer=tokenizer, image_processor=images
    )


def test_a_processor_and_a_model(vilt: tuple[Any, Any]) -> None:
    processor, classifier = vilt
    model = mmrobust.Model.from_transformers(processor, classifier)
    assert (model.modalities, model.classes, model.task) == (("image", "text"), CLASSES, "single-label")
    assert (model.scale, model.name, model.device) == ("logits", "ViltForQuestionAnswering", "cpu")
    samples = [{"image": PICTURE, "text": "the digit seven"}, {"image": PICTURE.rotate(90), "text": "ein Bild"}]
    found = model.predict(samples, None)
    for row, sample in zip(found, samples, strict=True):
        with torch.inference_mode():
            alone = classifier(**processor(images=[sample["image"]], text=[sample["text"]], return_tensors="pt")).logits
        torch.testing.assert_close(row, alone[0], atol=1e-5, rtol=0)


def test_fills_stand_in_since_processors_take_no_none(vilt: tuple[Any, Any]) -> None:
    model = mmrobust.Model.from_transformers(*vilt)
    assert model.fill["text"] == ""
    assert (model.fill["image"].size, model.fill["image"].getpixel((0, 0))) == ((224, 224), (255, 255, 255))
    black = Image.new("RGB", (32, 32))
    assert mmrobust.Model.from_transformers(*vilt, fill={"image": black}).fill["image"] is black


def test_a_tokenizer_or_an_image_processor_alone(tokenizer: Any, text_model: Any, image_model: Any) -> None:
    texts = mmrobust.Model.from_transformers(tokenizer, text_model, name="words")
    images = mmrobust.Model.from_transformers(
        transformers.ViTImageProcessorPil(size={"height": 32, "width": 32}), image_model
    )
    assert (texts.modalities, images.modalities) == (("text",), ("image",))
    assert texts.predict([{"text": "seven"}], None).shape == images.predict([{"image": PICTURE}], None).shape == (1, 10)


def test_a_feature_extractor_resamples(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = transformers.ASTConfig(max_length=32, num_mel_bins=32, patch_size=16, **SMALL, **LABELS)
    extractor = transformers.ASTFeatureExtractor(max_length=32, num_mel_bins=32)
    classifier = transformers.ASTForAudioClassification(config).eval()
    model = mmrobust.Model.from_transformers(extractor, classifier)
    assert model.modalities == ("audio",)
    wave = np.sin(np.arange(8000, dtype=np.float32) / 5).astype(np.float32)
    slow, fast = (model.predict([{"audio": (wave[::step], rate)}], None) for step, rate in ((1, 16000), (2, 8000)))
    torch.testing.assert_close(slow, fast, atol=0.05, rtol=0)
    pipeline = transformers.pipeline("audio-classification", model=classifier, feature_extractor=extractor)
    piped = mmrobust.Model.from_pipeline(pipeline)
    torch.testing.assert_close(
        torch.from_numpy(piped.predict([{"audio": (wave, 16000)}], None)), slow.softmax(-1).double(), atol=1e-5, rtol=0
    )


def test_a_pipeline_gives_the_probability_of_every_class(tokenizer: Any, text_model: Any, image_model: Any) -> None:
    words = transformers.pipeline("text-classification", model=text_model, tokenizer=tokenizer)
    images = transformers.ViTImageProcessorPil(size={"height": 32, "width": 32})
    pixels = transformers.pipeline("image-classification", model=image_model, image_processor=images)
    for pipeline, medium, modality in ((words, "the digit seven", "text"), (pixels, PICTURE, "image")):
        model = mmrobust.Model.from_pipeline(pipeline)
        assert (model.modalities, model.classes, model.scale) == ((modality,), CLASSES, "probabilities")
        (found,) = model.predict([{modality: medium}], None)
        best = pipeline(medium)[0]
        assert CLASSES[int(found.argmax())] == best["label"]
        assert found.max() == pytest.approx(best["score"])
        assert found.sum() == pytest.approx(1)


def test_a_multi_label_pipeline_gives_sigmoids(tokenizer: Any, text_model: Any) -> None:
    pipeline = transformers.pipeline("text-classification", model=text_model, tokenizer=tokenizer)
    model = mmrobust.Model.from_pipeline(pipeline, task="multi-label")
    (found,) = model.predict([{"text": "seven"}], None)
    with torch.inference_mode():
        expected = text_model(**tokenizer(["seven"], return_tensors="pt")).logits.sigmoid()[0]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_zero_shot_pipeline_takes_the_names_of_the_classes(clip: Any) -> None:
    model = mmrobust.Model.from_pipeline(clip, classes=["seven", "three"], settings={"hypothesis_template": "a {}"})
    (found,) = model.predict([{"image": PICTURE}], None)
    answer = clip(PICTURE, candidate_labels=["seven", "three"], hypothesis_template="a {}")
    assert dict(zip(model.classes, found, strict=True)) == pytest.approx({a["label"]: a["score"] for a in answer})
    with pytest.raises(UsageError, match=r"a zero-shot-image-classification pipeline needs the names of the classes"):
        mmrobust.Model.from_pipeline(clip)


def test_the_zero_shot_pipeline_of_texts_takes_an_empty_one(tokenizer: Any) -> None:
    torch.manual_seed(0)
    labels = {"id2label": {0: "entailment", 1: "other"}, "label2id": {"entailment": 0, "other": 1}}
    config = transformers.BertConfig(
        vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, max_position_embeddings=64, **SMALL, **labels
    )
    nli = transformers.BertForSequenceClassification(config).eval()
    pipeline = transformers.pipeline("zero-shot-classification", model=nli, tokenizer=tokenizer)
    model = mmrobust.Model.from_pipeline(pipeline, classes=["seven", "three"])
    found = model.predict([{"text": "the digit seven"}, {"text": ""}], None)
    assert found.shape == (2, 2)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-6)


def test_the_version_is_a_hash_of_weights_processor_and_settings(
    vilt: tuple[Any, Any], tokenizer: Any, text_model: Any, tmp_path: Path
) -> None:
    processor, classifier = vilt
    version = mmrobust.Model.from_transformers(processor, classifier).version
    classifier.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    again = (
        transformers.ViltProcessor.from_pretrained(tmp_path / "model"),
        transformers.ViltForQuestionAnswering.from_pretrained(tmp_path / "model"),
    )
    assert mmrobust.Model.from_transformers(*again).version == version
    others = [
        mmrobust.Model.from_transformers(processor, classifier, settings={"max_length": 8}),
        mmrobust.Model.from_transformers(
            transformers.ViltProcessor(
                transformers.ViltImageProcessorPil(size={"shortest_edge": 48}, size_divisor=16), tokenizer
            ),
            classifier,
        ),
    ]
    with torch.no_grad():
        again[1].classifier[-1].bias[0] += 1
    others.append(mmrobust.Model.from_transformers(processor, again[1]))
    piped = [
        mmrobust.Model.from_pipeline(
            transformers.pipeline("text-classification", text_model, tokenizer=tokenizer, **more)
        )
        for more in ({}, {"max_length": 8, "truncation": True})
    ]
    assert len({version, *(model.version for model in (*others, *piped))}) == 6


def test_what_cannot_be_wrapped_is_one_line(tokenizer: Any, text_model: Any) -> None:
    pipeline = transformers.pipeline("feature-extraction", model=text_model, tokenizer=tokenizer)
    with pytest.raises(UsageError, match=r"unknown task of a pipeline 'feature-extraction': .*image-classification"):
        mmrobust.Model.from_pipeline(pipeline)
    words = transformers.pipeline("text-classification", model=text_model, tokenizer=tokenizer)
    with pytest.raises(UsageError, match=r"a text-classification pipeline takes text, which is not among image"):
        mmrobust.Model.from_pipeline(words, modalities=["image"])
    with pytest.raises(UsageError, match=r"a object is no processor of images, texts or audio"):
        mmrobust.Model.from_transformers(object(), text_model)


def test_both_are_evaluated(vilt: tuple[Any, Any], tokenizer: Any, text_model: Any, digits: Dataset) -> None:
    joint = mmrobust.Model.from_transformers(*vilt)
    table = mmrobust.evaluate(joint, digits, rates=(0.0, 1.0), seeds=1, limit=10)
    assert set(table.scenario) == {"missing-image", "missing-text", "missing-both"}
    # A pipeline for one modality of two ignores the other.
    pipeline = transformers.pipeline("text-classification", model=text_model, tokenizer=tokenizer)
    words = mmrobust.Model.from_pipeline(pipeline, modalities=["image", "text"])
    table = mmrobust.evaluate(words, digits, rates=(0.0, 1.0), seeds=1, limit=10, scenarios=["missing-image"])
    values = table[table.metric == "accuracy"].value
    assert values.nunique() == 1
