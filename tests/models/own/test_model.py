"""What a user says of their own model: fields that do not fit are one line, and every field but the function counts."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

import mmrobust
from mmrobust.errors import UsageError

FIELDS: dict[str, Any] = {
    "name": "mine",
    "version": "1",
    "modalities": ["image", "text"],
    "classes": ["a", "b", "c"],
    "task": "single-label",
    "predict": lambda samples, case: np.zeros((len(samples), 3)),
}


def made(**changed: Any) -> mmrobust.Model:
    return mmrobust.Model(**{**FIELDS, **changed})


def test_lists_become_tuples_and_the_rest_has_defaults() -> None:
    model = made()
    assert (model.modalities, model.classes) == (("image", "text"), ("a", "b", "c"))
    assert (model.scale, model.knows_case, dict(model.fill), model.device) == ("logits", False, {}, "cpu")


def test_neither_the_package_nor_the_class_imports_torch() -> None:
    heavy = ("torch", "transformers", "sklearn", "pandas", "scipy")
    code = (
        "import sys, mmrobust\n"
        "mmrobust.Model(name='m', version='1', modalities=['text'], classes=['a', 'b'], task='binary', predict=print)\n"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"name": " "}, r"a model needs a name: a text of one line, not ' '"),
        ({"version": 3}, r"a model needs a version: a text of one line, not 3"),
        ({"modalities": "image"}, r"model mine: modalities must be different names in a list, not 'image'"),
        ({"modalities": []}, r"model mine: modalities must be different names"),
        ({"modalities": ["image", "te xt"]}, r"modality 'te xt': a name is a letter, then letters, digits and _"),
        ({"classes": ["a", "a"]}, r"model mine: classes must be different names in a list"),
        ({"classes": [0, 1]}, r"model mine: classes must be different names in a list"),
        ({"classes": ["a"]}, r"model mine: a single-label task has two or more classes, not 1"),
        ({"task": "binary"}, r"model mine: a binary task has two classes, not 3"),
        ({"task": "single"}, r"unknown task of model mine: 'single': did you mean 'single-label'"),
        ({"scale": "logit"}, r"unknown scale of model mine: 'logit': did you mean 'logits'"),
        ({"predict": None}, r"model mine: predict must be a function of \(samples, case\), not None"),
        ({"fill": {"audio": 0}}, r"unknown modality in the fill of model mine: 'audio'"),
        ({"fill": {"text": {}}}, r"model mine: the fill of text must be a picture, a text, .* not \{\}"),
    ],
)
def test_a_field_that_does_not_fit_is_named(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        made(**changed)


def test_every_field_that_can_change_a_prediction_changes_the_fingerprint() -> None:
    white, black = (Image.new("RGB", (4, 4), colour) for colour in ("white", "black"))
    variants: list[dict[str, Any]] = [
        {},
        {"name": "other"},
        {"version": "2"},
        {"modalities": ["text", "image"]},
        {"modalities": ["image"]},
        {"classes": ["a", "c", "b"]},
        {"task": "multi-label"},
        {"scale": "probabilities"},
        {"knows_case": True},
        {"fill": {"text": ""}},
        {"fill": {"text": "none"}},
        {"fill": {"image": white}},
        {"fill": {"image": black}},
        {"fill": {"image": white.resize((2, 8))}},
        {"fill": {"image": np.asarray(white)}},
        {"modalities": ["audio"], "fill": {"audio": (np.zeros(8, np.float32), 8000)}},
        {"modalities": ["audio"], "fill": {"audio": (np.zeros(8, np.float32), 16000)}},
    ]
    assert len({made(**changed).fingerprint for changed in variants}) == len(variants)


@pytest.mark.parametrize(
    "changed", [{"predict": lambda samples, case: None}, {"device": "cuda"}, {"dtype": "bfloat16"}]
)
def test_where_and_how_it_runs_is_not_part_of_it(changed: dict[str, Any]) -> None:
    assert made(**changed).fingerprint == made().fingerprint


def test_an_equal_fill_gives_the_same_fingerprint() -> None:
    fill: Callable[[], dict[str, Any]] = lambda: {"image": Image.new("RGB", (4, 4), "red"), "text": ""}  # noqa: E731
    assert made(fill=fill()).fingerprint == made(fill=fill()).fingerprint
    assert made(fill={"text": None}).fingerprint == made().fingerprint
