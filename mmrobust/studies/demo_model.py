"""The demo's model of one's own: scikit-learn alone, a logistic regression for each modality, fitted in seconds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mmrobust.data.dataset import Dataset
from mmrobust.data.decoding import decode
from mmrobust.models.own.model import Model, Sample

SIDE, SPECTRUM = 16, 2048
"""Pictures are shrunk to 16 × 16 pixels; recordings are the first half of a spectrum of this many points."""


def fit(name: str, data: Path, modalities: Sequence[str]) -> Model:
    """Fit the model on the training split of the data set in ``data``: an image, a text and an audio, or some of them.

    Its probabilities are the mean of those of the modalities that are there; it does not need to be told the case.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, StandardScaler

    first_step: dict[str, Any] = {
        "image": (FunctionTransformer(_pixels), StandardScaler()),
        "text": (TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4)),),
        "audio": (FunctionTransformer(_spectra), StandardScaler()),
    }
    strength = {"image": 1e-3, "text": 10.0, "audio": 1e-3}
    split = Dataset(data).split("train")
    labels = [label for (label,) in split.labels]
    experts = {}
    for modality in modalities:
        expert = make_pipeline(*first_step[modality], LogisticRegression(C=strength[modality], max_iter=300))
        experts[modality] = expert.fit([decode(sample, modality) for sample in split], labels)

    def predict(samples: list[Sample], case: str | None) -> npt.NDArray[np.float64]:
        del case
        # All samples are in one case.
        there = [modality for modality in modalities if samples[0][modality] is not None]
        probabilities = np.zeros((len(samples), len(split.info.classes)))
        for modality in there:
            expert = experts[modality]
            probabilities[:, expert.classes_] += expert.predict_proba([sample[modality] for sample in samples])
        return probabilities / len(there)

    return Model(
        name=name,
        version=split.info.fingerprint,  # which, with the modalities, decides the weights
        modalities=modalities,
        classes=split.info.classes,
        task="single-label",
        predict=predict,
        scale="probabilities",
    )


def _pixels(pictures: Sequence[Any]) -> npt.NDArray[np.float64]:
    return np.stack(
        [np.asarray(picture.convert("L").resize((SIDE, SIDE)), dtype=float).ravel() for picture in pictures]
    )


def _spectra(recordings: Sequence[Any]) -> npt.NDArray[np.float64]:
    return np.stack([np.log1p(np.abs(np.fft.rfft(waveform, SPECTRUM))) for waveform, _ in recordings])
