"""Reliability under missingness: whether a model that sees less also knows less. Needs the predictions.

A model is calibrated where, of the predictions made with confidence p, the share p is right. The expected calibration
error is the mean gap between the two over bins of confidence, weighted by how many predictions fall into each:

    ECE = Σ_b n_b / n · |right_b − confidence_b|

Guo et al., On Calibration of Modern Neural Networks, ICML 2017, with its 15 bins of equal width. Confidence is the
largest softmax probability. Of a multi-label model every (sample, class) decision counts, with the sigmoid of its logit
as the probability that the class is there: the marginal calibration error of Kumar et al., Verified Uncertainty
Calibration, NeurIPS 2019, with the absolute gap, over all classes together.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from mmrobust.scoring.metrics import target_matrix
from mmrobust.scoring.predictions import Predictions

BINS = 15

Floats = npt.NDArray[np.floating[Any]]


def expected_calibration_error(confidence: Floats, right: npt.NDArray[np.bool_], bins: int = BINS) -> float:
    """ECE of predictions of these confidences [n], of which these are right [n].

    Bins are (i/bins, (i+1)/bins]; a confidence of 0 falls into the first.
    """
    at = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    gaps = np.bincount(at, weights=right - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(confidence))


def confidences(logits: Floats, labels: tuple[tuple[int, ...], ...], task: str) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """The confidence of every prediction, and whether it is right: [N], or [N·C] where the task is multi-label."""
    logits = logits.astype(np.float64)
    targets = target_matrix(labels, logits.shape[1])
    if task == "multi-label":
        return (0.5 * (1 + np.tanh(logits / 2))).ravel(), targets.ravel()  # the sigmoid, without overflow
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    chosen = logits.argmax(axis=1)
    return raised.max(axis=1) / raised.sum(axis=1), targets[np.arange(len(logits)), chosen]


def reliability(stored: Predictions) -> pd.DataFrame:
    """Calibration of one checkpoint at each missing rate, mean over mask seeds.

    Returns:
        One row per scenario, prompting and missing rate: ``ece``, ``confidence`` (mean), ``right`` (share), and
        ``overconfidence``: confidence − right.
    """
    truth, tables = stored.truth, stored.truth.draw(stored.cells)
    figures = []
    for key in range(len(tables.keys)):
        confidence, right = confidences(stored.chosen(tables, key), truth.labels, truth.task)
        figures.append((expected_calibration_error(confidence, right), confidence.mean(), right.mean()))
    by_key = pd.DataFrame(figures, columns=["ece", "confidence", "right"])
    keys = ["scenario", "prompting", "missing_rate"]
    cells = pd.DataFrame([(c.scenario, c.prompting, c.missing_rate) for c in stored.cells], columns=keys)
    joined = pd.concat([cells, by_key.iloc[tables.of_cell].reset_index(drop=True)], axis=1)
    means = joined.groupby(keys, sort=True, observed=True).mean().reset_index()
    return means.assign(overconfidence=means["confidence"] - means["right"])
