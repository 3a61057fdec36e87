"""The linear probe from which a tiny backbone starts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from mmrobust.cases import Case
from mmrobust.data import Dataset
from mmrobust.models.checkpoint import load_checkpoint
from mmrobust.training.loop import train
from mmrobust.training.settings import TrainOptions
from mmrobust.training.setup import set_up
from mmrobust.training.sources import LiveSource
from mmrobust.training.validation import validate

STILL = {"epochs": 1, "lr": 1e-9}
"""A training that leaves everything where it starts."""


@pytest.mark.parametrize("backbone", ["tiny-vilt", "tiny-cavmae", "tiny-towers"])
def test_full_fine_tuning_starts_as_a_logistic_regression_on_what_the_glance_sees(
    backbone: str, digits: Dataset, tmp_path: Path
) -> None:
    modalities = {"tiny-vilt": ("image", "text"), "tiny-cavmae": ("audio", "image")}.get(backbone)
    options = TrainOptions(method="full", backbone=backbone, modalities=modalities, recipe=STILL)
    settings = options.resolve(digits.folder)
    train(settings, tmp_path / "out")
    classifier = load_checkpoint(tmp_path / "out").classifier
    setup = set_up(settings, tmp_path / "again")
    source = LiveSource(classifier, setup.validation.encoded)
    found = validate(source, setup.validation, "accuracy")

    glance, split = classifier.backbone.glance, {"train": setup.train, "validation": setup.validation}
    assert glance is not None
    seen, labels = {}, {}
    for name, part in split.items():
        inputs = LiveSource(classifier, part.encoded).inputs(
            np.arange(60), Case.parse("complete", classifier.modalities)
        )
        with torch.no_grad():
            columns = [glance.sight(m)(*classifier.backbone.sight_inputs(m, inputs)) for m in glance.modalities]
        seen[name], labels[name] = torch.cat(columns, 1).numpy(), part.targets.argmax(1).numpy()
    probe = LogisticRegression(C=30, max_iter=1000).fit(seen["train"], labels["train"])
    # As good as scikit-learn's, whose penalty is one of those that the validation split chooses from.
    log_probabilities = probe.predict_log_proba(seen["validation"])[np.arange(60), labels["validation"]]
    assert found.loss <= -log_probabilities.mean() + 1e-3
