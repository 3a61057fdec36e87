"""The invariants that make "predict once" exact: a sample's logits are its own, and the backbone stays frozen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import mmrobust
from mmrobust.cases import PROMPTINGS, Case
from mmrobust.data import Dataset
from mmrobust.data.decoding import decode
from mmrobust.data.encoded_split import EncodedSplit
from mmrobust.errors import UsageError
from mmrobust.models.classifier import Classifier

FAMILIES = [("image", "text"), ("audio", "image")]
KINDS = [(method, head) for method in ("none", "mmp") for head in ("linear", "mlp", "prototype")]
TOLERANCE = 1e-5


def encoded(classifier: Classifier, digits: Dataset) -> EncodedSplit:
    return EncodedSplit(digits.split("test"), classifier.backbone.processor, classifier.modalities, classifier.fill)


def logits(
    classifier: Classifier, split: EncodedSplit, positions: list[int], case: str, prompting: str
) -> torch.Tensor:
    samples = split.samples(positions, Case.parse(case, classifier.modalities))
    with torch.no_grad():
        return classifier(split.processor.collate(samples), case, prompting)


@pytest.mark.parametrize("modalities", FAMILIES, ids="+".join)
@pytest.mark.parametrize(("method", "head"), KINDS)
def test_a_samples_logits_are_its_own(
    trained: Callable[..., Path], digits: Dataset, method: str, head: str, modalities: tuple[str, ...]
) -> None:
    classifier = mmrobust.load(trained(method, head, modalities))
    split = encoded(classifier, digits)
    for case in classifier.cases:
        for prompting in PROMPTINGS:
            together = logits(classifier, split, list(range(7)), case, prompting)
            turned = logits(classifier, split, list(range(7))[::-1], case, prompting)
            alone = torch.cat([logits(classifier, split, [i], case, prompting) for i in range(7)])
            assert torch.allclose(together, alone, atol=TOLERANCE, rtol=0)
            assert torch.allclose(turned.flip(0), alone, atol=TOLERANCE, rtol=0)


def test_longer_texts_and_larger_images_beside_a_sample_change_nothing(trained: Callable[..., Path]) -> None:
    classifier = mmrobust.load(trained("mmp", "linear"))
    torch.manual_seed(0)
    processor = classifier.backbone.processor
    small = {"text": processor.encode("text", "a seven"), "image": torch.rand(3, 48, 64)}
    large = {"text": processor.encode("text", "seven or eight or nine " * 9), "image": torch.rand(3, 96, 112)}
    with torch.no_grad():
        alone = classifier(processor.collate([small]))
        beside = classifier(processor.collate([small, large]))[:1]
    assert torch.allclose(alone, beside, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("modalities", FAMILIES, ids="+".join)
@pytest.mark.parametrize(("method", "head"), KINDS)
def test_under_concat_the_case_label_says_nothing(
    trained: Callable[..., Path], digits: Dataset, method: str, head: str, modalities: tuple[str, ...]
) -> None:
    classifier = mmrobust.load(trained(method, head, modalities))
    split = encoded(classifier, digits)
    inputs = split.processor.collate(split.samples(range(5), Case.complete(classifier.modalities)))
    with torch.no_grad():
        said = [classifier(inputs, case, "concat") for case in classifier.cases]
        told = [classifier(inputs, case, "situation") for case in classifier.cases]
    assert all(torch.equal(said[0], other) for other in said[1:])
    differs = any(not torch.equal(told[0], other) for other in told[1:])
    assert differs == classifier.depends_on_prompting == (method == "mmp" or head == "prototype")


def test_a_prototype_head_sees_nothing_of_what_is_missing(trained: Callable[..., Path]) -> None:
    classifier = mmrobust.load(trained("none", "prototype"))
    sizes = classifier.pooling.modality_sizes
    parts = {modality: torch.randn(4, size) for modality, size in sizes.items()}
    other = {"image": parts["image"], "text": torch.randn(4, sizes["text"])}
    score = classifier.head._cosines
    assert torch.equal(score(parts, "missing-text"), score(other, "missing-text"))
    assert not torch.allclose(score(parts, "complete"), score(other, "complete"))
    assert score(parts, "complete").abs().max() <= 1 + 1e-6


def test_what_trains(trained: Callable[..., Path]) -> None:
    names = {kind: set(mmrobust.load(trained(*kind)).trained()) for kind in KINDS}
    assert names["none", "linear"] == {"head.dense.weight", "head.dense.bias"}
    assert {name.split(".")[0] for name in names["mmp", "linear"]} == {"method", "pooling", "head"}
    assert {name.split(".")[0] for name in names["mmp", "prototype"]} == {"method", "head"}
    full = mmrobust.load(trained("full", "linear"))
    assert set(full.trained()) == {name for name, _ in full.named_parameters()}


def test_raw_samples(trained: Callable[..., Path], digits: Dataset) -> None:
    classifier = mmrobust.load(trained("mmp", "prototype"))
    split = digits.split("test")
    samples = [{m: decode(sample, m) for m in ("image", "text")} for sample in split.read([0, 1, 2])]
    expected = logits(classifier, encoded(classifier, digits), [0, 1, 2], "complete", "concat")
    assert torch.allclose(classifier.logits(samples, prompting="concat"), expected, atol=TOLERANCE, rtol=0)

    without = [{"image": sample["image"], "text": None} for sample in samples]
    missing = classifier.logits(without, case="missing-text")
    assert torch.equal(missing, classifier.logits(samples, case="missing-text"))
    with pytest.raises(UsageError, match="has no text, but case 'complete' says it is present"):
        classifier.logits(without)
    with pytest.raises(UsageError, match="no samples"):
        classifier.logits([])


def test_names_that_do_not_exist(trained: Callable[..., Path]) -> None:
    classifier = mmrobust.load(trained("none", "linear"))
    with pytest.raises(UsageError, match=r"unknown case 'missing-txt': did you mean 'missing-text'"):
        classifier({}, "missing-txt")
    with pytest.raises(UsageError, match=r"unknown prompting 'situaton': did you mean 'situation'"):
        classifier({}, "complete", "situaton")


def test_any_case_will_do_where_nothing_is_trained_for_one(classifier: Any, samples: Any) -> None:
    built = {kind: classifier("tiny-cavmae", *kind) for kind in (("none", "linear"), ("mmp", "linear"))}
    inputs = built["none", "linear"].backbone.processor.collate(samples("tiny-cavmae", 2))
    with torch.no_grad():
        for case in ("noisy-both", "missing-audio+noisy-image", "noisy-image"):
            assert built["none", "linear"](inputs, case).isfinite().all()
            concat = built["mmp", "linear"](inputs, case, "concat")
            assert torch.equal(concat, built["mmp", "linear"](inputs, "complete", "concat"))
            with pytest.raises(
                UsageError, match=r"mmp \+ linear checkpoint was trained for case .* only for complete, "
            ):
                built["mmp", "linear"](inputs, case)
            prototypes = classifier("tiny-cavmae", "none", "prototype")
            with pytest.raises(UsageError, match="--prompting concat works for any case"):
                prototypes(inputs, case)


def test_bfloat16_is_near_float32(trained: Callable[..., Path], digits: Dataset) -> None:
    exact, rough = (mmrobust.load(trained("mmp", "linear"), dtype=dtype) for dtype in ("float32", "bfloat16"))
    split = encoded(exact, digits)
    ours, theirs = (logits(c, split, list(range(8)), "complete", "situation") for c in (exact, rough))
    assert theirs.dtype == torch.float32
    assert 0 < (ours - theirs).abs().max() < 0.05
