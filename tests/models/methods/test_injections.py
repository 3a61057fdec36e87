"""A method declares once where it changes the backbone: everything that is derived from that holds."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import pytest
import torch

from mmrobust.models.classifier import Classifier
from mmrobust.models.methods import METHODS
from mmrobust.models.methods.base import Injection, one_set_per_case

DECLARED: dict[str, tuple[str, dict[str, Any], bool, dict[str, list[int]]]] = {
    "none": ("tiny-cavmae", {}, False, {}),
    "full": ("tiny-cavmae", {}, False, {}),
    "mmp": ("tiny-cavmae", {"depth": 2}, True, {"audio": [0, 1], "image": [0, 1]}),
    "mmp late": ("tiny-cavmae", {"layers": [3]}, True, {"joint": [0]}),
    "msp": ("tiny-vilt", {"depth": 2}, True, {"joint": [0, 1]}),
    "dcp": ("tiny-clip", {"length": 3, "depth": 2}, True, {"image": [0, 1], "text": [0, 1]}),
    "maple": ("tiny-clip", {"depth": 2}, False, {"image": [0, 1], "text": [0, 1]}),
    "ptm": ("tiny-cavmae", {}, True, {"joint": [0]}),
    "ptm both": ("tiny-cavmae", {"level": "both"}, True, {"audio": [0], "image": [0], "joint": [0]}),
    "ptm fusion": ("tiny-cavmae-fusion", {}, True, {"fusion-audio": [0], "fusion-image": [0]}),
    "mmp towers": ("tiny-towers", {}, True, {"joint": [0, 1]}),
    "ptm towers": ("tiny-towers", {}, True, {"joint": [0, 1]}),
    "lora towers": ("tiny-towers", {"rank": 2}, False, {"joint": [0, 1]}),
    "adapter towers": ("tiny-towers", {}, False, {"joint": [0, 1]}),
    "lora": ("tiny-vilt", {"rank": 2}, False, {"joint": [0, 1, 2, 3]}),
    "adapter": ("tiny-vilt", {}, False, {"joint": [0, 1, 2, 3]}),
}


@pytest.fixture(params=DECLARED)
def built(request: pytest.FixtureRequest, classifier: Callable[..., Classifier]) -> tuple[str, Classifier]:
    method, _, _ = request.param.partition(" ")
    if method == "lora" and importlib.util.find_spec("peft") is None:
        pytest.skip("PEFT is not installed")
    backbone, method_set, *_ = DECLARED[request.param]
    return request.param, classifier(backbone, method, method_set=method_set)


def test_every_method_is_here() -> None:
    assert {name.partition(" ")[0] for name in DECLARED} == set(METHODS)


def test_what_follows_from_the_declaration(built: tuple[str, Classifier]) -> None:
    name, model = built
    method, (_, _, knows_case, layers) = model.method, DECLARED[name]
    assert {stream: list(injection.layers) for stream, injection in method.injections.items()} == layers
    assert method.knows_case is knows_case
    for stream in (*model.backbone.streams, *model.backbone.fusion_points):
        assert method.first_changed(stream) == min(layers.get(stream, []), default=None)
        keys = {method.prompts_key(stream, told) for told in (*((case,) for case in model.cases), model.cases)}
        assert len(keys) == (len(model.cases) + 1 if knows_case and stream in layers else 1)


@torch.inference_mode()
def test_something_is_added_exactly_where_it_is_declared(built: tuple[str, Classifier], samples: Any) -> None:
    name, model = built
    backbone, *_, layers = DECLARED[name]
    source, added = model.method.source(("complete",)), set()

    def spied(stream: str, layer: int, sequence: Any) -> Any:
        prompts = source(stream, layer, sequence)
        if prompts is not None:
            added.add((stream, layer))
        return prompts

    encoded = samples("tiny-vilt" if backbone == "tiny-clip" else backbone, 1)
    model.backbone(model.backbone.processor.collate(encoded), spied)
    inside_the_model = name.startswith("lora")
    assert added == (set() if inside_the_model else {(s, layer) for s, found in layers.items() for layer in found})


def test_the_sets_of_several_cases_are_added_once_each() -> None:
    injection = Injection([0], {"a": ("x", "y"), "b": ("x", "z")})
    assert injection.chosen(("a",)) == ("x", "y") and injection.chosen(("a", "b")) == ("x", "y", "z")
    assert Injection([0], one_set_per_case(("a", "b"))).chosen(("b",)) == ("b",)
    assert Injection([0]).chosen(("a", "b")) == ()


def test_the_default_recipes_differ_from_mmps_in_settings_that_exist() -> None:
    from mmrobust.models.methods import method_class
    from mmrobust.training.recipe import Recipe

    for name in METHODS:
        for random_weights in (True, False):
            Recipe(**method_class(name).default_recipe(random_weights))
