"""Untrained classifiers on tiny backbones, with prompts strong enough to matter."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch

from mmrobust.cases import missing_cases
from mmrobust.data import Dataset
from mmrobust.models.backbone import Backbone
from mmrobust.models.backbones.tiny import make_tiny
from mmrobust.models.classifier import Classifier
from mmrobust.models.heads import head_class
from mmrobust.models.methods import method_class


@pytest.fixture(scope="session")
def tiny_clip(digits: Dataset) -> Backbone:
    return make_tiny("tiny-clip", ("image", "text"), digits.split("train"), 0)


@pytest.fixture(scope="session")
def on_tiny_clip(tiny_clip: Backbone) -> Callable[..., Classifier]:
    """(method, head, settings of the method) → a classifier over ten classes."""

    def build(method: str, head: str, **settings: Any) -> Classifier:
        torch.manual_seed(1)
        method_cls, head_cls = method_class(method), head_class(head)
        classifier = Classifier(
            copy.deepcopy(tiny_clip),  # LoRA adapts a backbone in place
            method_cls,
            method_cls.config_class(**settings),
            head_cls,
            head_cls.config_class(),
            classes=[str(digit) for digit in range(10)],
            task="single-label",
            cases=missing_cases(tiny_clip.modalities),
        )
        with torch.no_grad():  # at their first values (N(0, 0.02²)) prompts hardly show
            for parameter in classifier.method.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.3)
        return classifier

    return build
