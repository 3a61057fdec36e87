"""A model of your own from scikit-learn: pixels and tf-idf, each with a logistic regression; their mean is the answer.

    python examples/own_model_sklearn.py data/digits         # fits it, in seconds, into own_model_sklearn.joblib
    mmrobust eval examples/own_model_sklearn.py:model --data data/digits --out results/sklearn

Where a modality is missing, the regression on the other one answers alone.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import mmrobust

FITTED = Path("own_model_sklearn.joblib")
SIDE = 16


def pixels(images: list[Any]) -> np.ndarray:
    """Pictures as vectors [n, 16 · 16 · 3] in [0, 1]."""
    return np.stack([np.asarray(image.resize((SIDE, SIDE))).ravel() / 255 for image in images])


def fit(folder: str) -> None:
    """Fit both regressions on a data set of mmrobust's; yours may come from anywhere."""
    from mmrobust.data import Dataset
    from mmrobust.data.decoding import decode

    split = Dataset(folder).split("train")
    images, texts = zip(*((decode(sample, "image"), sample.text) for sample in split), strict=True)
    labels = [label for (label,) in split.labels]
    of_pixels = make_pipeline(StandardScaler(), LogisticRegression(C=0.001, max_iter=300)).fit(pixels(images), labels)
    of_words = make_pipeline(TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4)), LogisticRegression(C=10))
    held = {"image": of_pixels, "text": of_words.fit(texts, labels), "classes": list(split.info.classes)}
    joblib.dump(held, FITTED)


def model() -> mmrobust.Model:
    """What the command line is given: own_model_sklearn.py:model."""
    fitted = joblib.load(FITTED)

    def predict(samples: list[dict[str, Any]], case: str | None) -> np.ndarray:
        """Probabilities [n, classes]: the mean over the modalities that are there."""
        votes, voters = np.zeros((len(samples), len(fitted["classes"]))), np.zeros((len(samples), 1))
        for modality, features in (("image", pixels), ("text", list)):
            there = [row for row, sample in enumerate(samples) if sample[modality] is not None]
            if there:
                votes[there] += fitted[modality].predict_proba(features([samples[row][modality] for row in there]))
                voters[there] += 1
        return votes / voters

    return mmrobust.Model(
        name="pixels-tfidf",
        version=hashlib.sha256(FITTED.read_bytes()).hexdigest(),
        modalities=("image", "text"),
        classes=fitted["classes"],
        task="single-label",
        predict=predict,
        scale="probabilities",
    )


if __name__ == "__main__":
    fit(sys.argv[1])
