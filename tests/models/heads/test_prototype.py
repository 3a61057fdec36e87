"""The prototype head: its score, and the two options that act in training."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmrobust.cases import missing_cases
from mmrobust.errors import UsageError
from mmrobust.models.backbone import Features
from mmrobust.models.heads.base import HeadSizes
from mmrobust.models.heads.prototype import PrototypeConfig, PrototypeHead, supervised_contrast, with_margin

CASES = missing_cases(("image", "text"))
SIZES = HeadSizes(pooled=6, by_modality={"image": 4, "text": 6}, normed=False)


def head(**settings: Any) -> PrototypeHead:
    torch.manual_seed(0)
    return PrototypeHead(PrototypeConfig(**settings), SIZES, 3, CASES)


def features(count: int = 5) -> Features:
    draws = torch.Generator().manual_seed(1)
    return Features(None, {m: torch.randn(count, size, generator=draws) for m, size in SIZES.by_modality.items()})


TARGETS = torch.eye(3)[[0, 1, 2, 0, 1]]


def test_a_class_scores_by_the_best_of_its_prototypes() -> None:
    several, seen = head(per_class=3, scale=2.0), features()
    h = torch.nn.functional.normalize(torch.cat([seen.by_modality["image"], seen.by_modality["text"]], -1), dim=-1)
    sets = torch.cat([several.prototypes["complete"][m] for m in ("image", "text")], -1)
    for k in range(3):
        cosines = [torch.cosine_similarity(h, w[None]) for w in sets[k]]
        expected = 2.0 * torch.stack(cosines).amax(0)
        torch.testing.assert_close(several(seen, ("complete",))[:, k], expected)


def test_what_is_missing_has_no_say() -> None:
    one, seen = head(), features()
    changed = Features(None, {**seen.by_modality, "text": torch.zeros(5, 6)})
    assert torch.equal(one(seen, ("missing-text",)), one(changed, ("missing-text",)))


def test_several_prototypes_begin_around_the_class_mean() -> None:
    several = head(per_class=2)
    draws = torch.Generator().manual_seed(2)
    parts = {m: torch.randn(60, size, generator=draws) for m, size in SIZES.by_modality.items()}
    labels = torch.eye(3).repeat(20, 1)
    several.start_from({case.name: (parts, labels) for case in CASES})
    for m, begun in several.prototypes["complete"].items():
        means = (labels.T @ parts[m]) / 20
        assert (begun - means[:, None]).abs().max() < 0.6
        assert not torch.equal(begun[:, 0], begun[:, 1])


@given(cosine=st.floats(-0.999, 0.999), margin=st.floats(0.01, 1.5))
def test_the_margin_is_added_to_the_angle(cosine: float, margin: float) -> None:
    angle = math.acos(cosine)
    found = with_margin(torch.tensor(cosine, dtype=torch.float64), margin).item()
    if angle + margin < math.pi:
        assert found == pytest.approx(math.cos(angle + margin), abs=1e-6)
    assert found < cosine


def test_the_margin_lies_on_the_true_class_and_in_training_alone() -> None:
    plain, strict, seen = head(), head(margin=0.4), features()
    logits = plain(seen, ("complete",))
    assert torch.equal(strict(seen, ("complete",)), logits)
    learned, own = strict.learn(seen, ("complete",), TARGETS)
    assert torch.equal(learned[TARGETS == 0], logits[TARGETS == 0])
    assert (learned[TARGETS > 0] < logits[TARGETS > 0]).all()
    assert own == 0


def test_the_margins_gradient_is_finite_on_a_prototype_itself() -> None:
    cosine = torch.tensor([1.0, -1.0], requires_grad=True)
    with_margin(cosine, 0.5).sum().backward()
    assert cosine.grad is not None and cosine.grad.isfinite().all()


def test_the_contrastive_term_is_the_papers() -> None:
    h = torch.nn.functional.normalize(torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), dim=-1)
    targets = torch.eye(3)[[0, 0, 1, 1, 1, 2]]
    expected = 0.0
    for i in range(6):  # equation 2 of Khosla et al., term by term
        positives = [p for p in range(6) if p != i and targets[p].equal(targets[i])]
        below = sum(math.exp(h[i] @ h[a] / 0.2) for a in range(6) if a != i)
        terms = [math.log(math.exp(h[i] @ h[p] / 0.2) / below) for p in positives]
        expected -= sum(terms) / len(terms) if terms else 0.0
    assert supervised_contrast(h, targets, 0.2).item() == pytest.approx(expected, rel=1e-5)


def test_samples_that_share_one_of_several_labels_attract() -> None:
    targets = torch.tensor([[1.0, 1.0, 0.0], [0.0, 1.0, 1.0], [1.0, 0.0, 0.0]])
    h = torch.nn.functional.normalize(torch.tensor([[1.0, 0.1], [1.0, 0.0], [0.0, 1.0]]), dim=-1)
    nearer = torch.nn.functional.normalize(torch.tensor([[1.0, 0.1], [1.0, 0.1], [0.0, 1.0]]), dim=-1)
    assert supervised_contrast(nearer, targets, 0.5) != supervised_contrast(h, targets, 0.5)


@pytest.mark.parametrize("rows", [[0], [0, 1]])
def test_a_batch_without_pairs_adds_nothing(rows: list[int]) -> None:
    h = torch.nn.functional.normalize(features().by_modality["image"][rows], dim=-1).requires_grad_()
    own = supervised_contrast(h, TARGETS[rows], 0.1)
    own.backward()
    assert own == 0 and h.grad is not None and h.grad.isfinite().all()


def test_the_heads_own_term_is_weighted() -> None:
    seen = features()
    _, one = head(contrastive=1.0).learn(seen, ("missing-text",), TARGETS)
    _, half = head(contrastive=0.5).learn(seen, ("missing-text",), TARGETS)
    assert one > 0
    torch.testing.assert_close(half * 2, one)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"margin": -0.1}, "margin -0.1 must be at least 0 and"),
        ({"margin": 2.0}, "margin 2.0 must be at least 0"),
        ({"contrastive": -1.0}, "contrastive -1.0 must not be negative"),
        ({"temperature": 0.0}, "temperature 0.0 must be positive"),
        ({"per_class": 0}, "per_class 0 must be positive"),
        ({"init": "mean"}, "did you mean 'means'"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        PrototypeConfig(**settings)
