"""The prototype head: its score, its margin and its losses, by default and with every option."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmrobust.cases import missing_cases
from mmrobust.errors import UsageError
from mmrobust.models.heads.base import HeadSizes
from mmrobust.models.heads.prototype import VERSION_0_1, PrototypeConfig, PrototypeHead
from mmrobust.models.heads.prototype_losses import supervised_contrast, with_margin
from mmrobust.models.pooling import Features
from mmrobust.scenarios.scenario import Scenario

CASES = missing_cases(("image", "text"))
SIZES = HeadSizes(pooled=6, by_modality={"image": 4, "text": 6}, normed=False)


def head(**settings: Any) -> PrototypeHead:
    torch.manual_seed(0)
    return PrototypeHead(PrototypeConfig(**settings), SIZES, 3, CASES)


def features(count: int = 5) -> Features:
    draws = torch.Generator().manual_seed(1)
    return Features(None, {m: torch.randn(count, size, generator=draws) for m, size in SIZES.by_modality.items()})


TARGETS = torch.eye(3)[[0, 1, 2, 0, 1]]


def cosines(one: PrototypeHead, seen: Features, case: str, j: int = 0) -> torch.Tensor:
    """[modalities present, B, classes] of the prototypes numbered ``j``."""
    return torch.stack(
        [
            torch.cosine_similarity(seen.by_modality[m][:, None], w[None, :, j], dim=-1)
            for m, w in one.prototypes[case].items()
        ]
    )


@pytest.mark.parametrize("case", ["complete", "missing-text", "missing-image"])
def test_a_class_scores_by_the_mean_cosine_of_what_is_present(case: str) -> None:
    one, seen = head(), features()
    torch.testing.assert_close(one(seen, (case,)), 32.0 * cosines(one, seen, case).mean(0))


def test_the_length_of_a_modalitys_features_decides_under_joint_normalisation_alone() -> None:
    seen = features()
    longer = Features(None, {**seen.by_modality, "text": 9 * seen.by_modality["text"]})
    for normalise, same in (("parts", True), ("joint", False)):
        one = head(normalise=normalise)
        assert torch.allclose(one(seen, ("complete",)), one(longer, ("complete",)), atol=1e-4) is same


def test_three_modalities_count_as_much_as_two() -> None:
    names = ("image", "text", "audio")
    sizes = HeadSizes(pooled=5, by_modality=dict.fromkeys(names, 5), normed=False)
    three = PrototypeHead(PrototypeConfig(), sizes, 4, missing_cases(names))
    seen = Features(None, {m: torch.randn(3, 5) for m in names})
    torch.testing.assert_close(three(seen, ("complete",)), 32.0 * cosines(three, seen, "complete").mean(0))
    assert len(three.prototypes["missing-audio"]) == 2
    _, own = three.learn(seen, ("missing-audio",), torch.eye(4)[:3])
    assert own > 0


@pytest.mark.parametrize("normalise", ["parts", "joint"])
def test_a_class_scores_by_the_best_of_its_prototypes(normalise: str) -> None:
    several, seen = head(per_class=3, scale=2.0, normalise=normalise), features()
    if normalise == "parts":
        best = torch.stack([cosines(several, seen, "complete", j).mean(0) for j in range(3)]).amax(0)
    else:
        h = torch.cat([seen.by_modality[m] for m in ("image", "text")], -1)
        w = torch.cat([several.prototypes["complete"][m] for m in ("image", "text")], -1)
        best = torch.cosine_similarity(h[:, None, None], w[None], dim=-1).amax(-1)
    torch.testing.assert_close(several(seen, ("complete",)), 2.0 * best)


def test_where_the_case_is_unknown_the_best_or_the_least_entropy_counts() -> None:
    seen, names = features(), tuple(case.name for case in CASES)
    best, least = head(), head(unknown="entropy")
    by_case = torch.stack([best(seen, (name,)) for name in names])
    assert torch.equal(best(seen, names), by_case.amax(0))
    entropies = torch.distributions.Categorical(logits=by_case).entropy()
    assert len(set(entropies.argmin(0).tolist())) > 1
    for row, logits in enumerate(least(seen, names)):
        assert torch.equal(logits, by_case[entropies[:, row].argmin(), row])
        assert torch.equal(logits, least(seen.rows(torch.tensor([row])), names)[0])
    assert torch.equal(least(seen, ("missing-text",)), best(seen, ("missing-text",)))


def test_prototypes_begin_by_xavier() -> None:
    sizes = HeadSizes(pooled=100, by_modality={"image": 100, "text": 100}, normed=False)
    torch.manual_seed(0)
    drawn = PrototypeHead(PrototypeConfig(), sizes, 50, CASES).prototypes["complete"]["image"]
    assert drawn.std().item() == pytest.approx(math.sqrt(2 / 150), rel=0.05)
    assert not head().starts_from_features and head(init="means").starts_from_features


def test_what_is_missing_has_no_say() -> None:
    one, seen = head(), features()
    changed = Features(None, {**seen.by_modality, "text": torch.zeros(5, 6)})
    assert torch.equal(one(seen, ("missing-text",)), one(changed, ("missing-text",)))


def test_several_prototypes_begin_around_the_class_mean() -> None:
    several = head(per_class=2, init="means")
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
    plain, strict, seen = head(margins={}, margin=0.0, prototype_loss=0.0), head(prototype_loss=0.0), features()
    logits = plain(seen, ("complete",))
    assert torch.equal(strict(seen, ("complete",)), logits)
    learned, own = strict.learn(seen, ("complete",), TARGETS)
    assert torch.equal(learned[TARGETS == 0], logits[TARGETS == 0])
    assert (learned[TARGETS > 0] < logits[TARGETS > 0]).all()
    assert own == 0
    assert torch.equal(plain.learn(seen, ("complete",), TARGETS)[0], logits)


def test_each_case_has_its_margin() -> None:
    seen, margins = features(), {"complete": 0.1, "missing-text": 0.4}
    found = head(margin=0.2, margins=margins)
    for case, margin in {**margins, "missing-image": 0.2}.items():
        learned, _ = found.learn(seen, (case,), TARGETS)
        moved = with_margin(found(seen, (case,)) / 32.0, margin) * 32.0
        torch.testing.assert_close(learned[TARGETS > 0], moved[TARGETS > 0])


def test_of_several_labels_each_has_the_margin() -> None:
    seen, targets = features(), torch.tensor([[1.0, 1.0, 0.0]] * 5)
    learned, _ = head().learn(seen, ("complete",), targets)
    assert (learned[:, :2] < head()(seen, ("complete",))[:, :2]).all()


def test_a_margin_of_a_case_that_there_is_not_is_refused() -> None:
    with pytest.raises(UsageError, match="unknown case in the prototype head's margins 'missing-txt': did you mean"):
        head(margins={"missing-txt": 0.2})


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


def test_the_loss_over_samples_is_weighted() -> None:
    seen = features()
    own = [
        head(contrastive=weight, prototype_loss=0.0).learn(seen, ("missing-text",), TARGETS)[1] for weight in (1.0, 0.5)
    ]
    assert own[0] > 0
    torch.testing.assert_close(own[1] * 2, own[0])


EQUAL = HeadSizes(pooled=8, by_modality={"image": 4, "text": 4}, normed=False)
OF_SCENARIO = {
    "missing-both": [("complete", "image"), ("missing-text", "image"), ("complete", "text"), ("missing-image", "text")],
    "missing-text": [("complete", "image"), ("missing-text", "image"), ("complete", "text")],
    "missing-image": [("complete", "image"), ("complete", "text"), ("missing-image", "text")],
}


@pytest.mark.parametrize("per_class", [1, 2])
@pytest.mark.parametrize("scenario", OF_SCENARIO)
def test_the_loss_over_prototypes_is_of_the_cases_that_training_can_produce(scenario: str, per_class: int) -> None:
    torch.manual_seed(0)
    config = PrototypeConfig(per_class=per_class, prototype_loss=2.0, prototype_temperature=0.5)
    one = PrototypeHead(config, EQUAL, 3, CASES)
    one.train_under(["complete", *(case.name for case in Scenario.parse(scenario, ("image", "text")).cases)])
    views = OF_SCENARIO[scenario]
    w = [
        torch.nn.functional.normalize(one.prototypes[case][m][k, j].detach(), dim=-1)
        for case, m in views
        for k in range(3)
        for j in range(per_class)
    ]
    items, expected = 3 * per_class, 0.0
    for i in range(len(w)):
        below = sum(math.exp(w[i] @ w[a] / 0.5) for a in range(len(w)) if a != i)
        shares = [math.log(math.exp(w[i] @ w[p] / 0.5) / below) for p in range(i % items, len(w), items) if p != i]
        expected -= sum(shares) / len(shares) / len(w)
    seen = Features(None, {m: torch.randn(5, 4) for m in ("image", "text")})
    _, own = one.learn(seen, ("complete",), TARGETS)
    assert own.item() / 5 == pytest.approx(2.0 * expected, rel=1e-5)  # training divides by the five samples
    own.backward()
    for case, prototypes in one.prototypes.items():
        for m, prototype in prototypes.items():
            assert (prototype.grad is not None) == ((case, m) in views)


def test_modalities_of_different_sizes_are_contrasted_separately() -> None:
    config = {"prototype_loss": 1.0, "margin": 0.0, "margins": {}}
    _, own = head(**config).learn(features(), ("complete",), TARGETS)
    views = [("complete", "missing-text", "image"), ("complete", "missing-image", "text")]
    expected = 0.0
    for *cases, modality in views:
        w = torch.cat(
            [torch.nn.functional.normalize(head().prototypes[case][modality][:, 0], dim=-1) for case in cases]
        )
        expected += supervised_contrast(w, torch.eye(3).repeat(2, 1), 1.0).item() / 12
    assert own.item() / 5 == pytest.approx(expected, rel=1e-5)


def test_one_view_alone_has_nothing_to_be_contrasted_with() -> None:
    sizes = HeadSizes(pooled=4, by_modality={"image": 4}, normed=False)
    single = PrototypeHead(PrototypeConfig(), sizes, 3, missing_cases(("image", "text"))[2:])
    _, own = single.learn(Features(None, {"image": torch.randn(5, 4)}), ("missing-text",), TARGETS)
    assert own == 0


def test_settings_of_0_1_keep_their_meaning() -> None:
    old = {"scale": 8.0, "per_class": 2, "margin": 0.3}  # what a config.json of 0.1 holds, or part of it
    found = PrototypeConfig(**PrototypeConfig.of_checkpoint(old))
    assert (found.normalise, found.learned_scale, found.init) == ("joint", True, "means")
    assert (found.scale, found.margin, found.margins, found.prototype_loss) == (8.0, 0.3, {}, 0.0)
    assert PrototypeConfig.of_checkpoint({"normalise": "parts"}) == {"normalise": "parts"}
    assert VERSION_0_1.keys() <= PrototypeConfig.__dataclass_fields__.keys()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"margin": -0.1}, "margin -0.1 must be at least 0 and"),
        ({"margin": 2.0}, "margin 2.0 must be at least 0"),
        ({"contrastive": -1.0}, "contrastive -1.0 must not be negative"),
        ({"temperature": 0.0}, "temperature 0.0 must be positive"),
        ({"margins": {"missing-text": 1.6}}, "margin 1.6 of missing-text must be at least 0"),
        ({"prototype_loss": -1.0}, "prototype_loss -1.0 must not be negative"),
        ({"prototype_temperature": 0.0}, "prototype_temperature 0.0 must be positive"),
        (
            {"prototype_anchors": "al"},
            "unknown value of the prototype head's prototype_anchors 'al': did you mean 'all'",
        ),
        ({"normalise": "part"}, "unknown value of the prototype head's normalise 'part': did you mean 'parts'"),
        ({"unknown": "least"}, "unknown value of the prototype head's unknown 'least'"),
        ({"per_class": 0}, "per_class 0: must be 1 or more"),
        ({"init": "mean"}, "did you mean 'means'"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        PrototypeConfig(**settings)
