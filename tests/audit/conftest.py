"""Subjects for the audit: untrained classifiers on tiny backbones, before real samples."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mmrobust.audit.checkpoint_subject import CheckpointSubject
from mmrobust.cases import missing_cases, noisy_cases
from mmrobust.configuration import from_mapping
from mmrobust.data import Dataset
from mmrobust.models.backbone import Backbone
from mmrobust.models.checkpoint import Checkpoint, CheckpointConfig
from mmrobust.models.classifier import Classifier
from mmrobust.models.heads import head_class
from mmrobust.models.methods import method_class


@pytest.fixture(scope="session")
def subject(tiny: Callable[[str], Backbone], digits: Dataset) -> Callable[..., CheckpointSubject]:
    """A classifier with that method and head on that tiny backbone, as the audit sees a checkpoint of it."""

    def build(
        backbone: str,
        method: str = "none",
        head: str = "linear",
        *,
        method_set: dict[str, Any] | None = None,
        backbone_set: dict[str, Any] | None = None,
        noisy: bool = False,
        data: Dataset = digits,
        limit: int = 4,
    ) -> CheckpointSubject:
        built = tiny(backbone)
        built.configure(backbone_set or {})
        fingerprint = built.fingerprint()
        method_cls, head_cls = method_class(method), head_class(head)
        torch.manual_seed(0)
        classifier = Classifier(
            built,
            method_cls,
            from_mapping(method_cls.config_class, method_set or {}, method),
            head_cls,
            head_cls.config_class(),
            classes=digits.info.classes,
            task=digits.info.task,
            cases=(noisy_cases if noisy else missing_cases)(built.modalities),
        )
        with torch.no_grad():  # at their first values prompts hardly show
            for parameter in classifier.method.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.3)
        config = CheckpointConfig(
            method={"name": method},
            head={"name": head},
            backbone={"fingerprint": fingerprint},
            modalities=list(built.modalities),
            classes=list(classifier.classes),
            task=classifier.task,
            headline_metric="accuracy",
            cases=list(classifier.cases),
            fill="ones",
            dataset={},
            training={},
        )
        checkpoint = Checkpoint(classifier, Path("planted"), config, "0" * 32)
        return CheckpointSubject(checkpoint, data, split="test", limit=limit, seed=0)

    return build
