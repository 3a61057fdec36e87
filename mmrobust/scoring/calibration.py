"""Calibration as inputs go missing: does a model that sees less also become less confident? Needs the predictions.

A model is calibrated where, of the predictions made with confidence p, the share p is correct. The expected calibration
error is the mean gap between the two over bins of confidence, weighted by the number of predictions in each:

    ECE = Σ_b n_b / n · |correct_b − confidence_b|

Guo et al., On Calibration of Modern Neural Networks, ICML 2017, with its 15 bins of equal width. Confidence is the
largest softmax probability. Of a multi-label model every (sample, class) decision counts, with the sigmoid of its logit
as the probability that the sample belongs to the class: the marginal calibration error of Kumar et al., Verified
Uncertainty Calibration, NeurIPS 2019, with the absolute gap, over all classes together.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from mmrobust.scoring import Bools, Floats
from mmrobust.scoring.cell_values import mean_over_seeds
from mmrobust.scoring.metrics import target_matrix
from mmrobust.scoring.predictions import Predictions
from mmrobust.scoring.pseudo_values import PseudoValues

BINS = 15


def expected_calibration_error(confidence: Floats, correct: Bools, bins: int = BINS) -> float:
    """ECE of predictions with these confidences [n], given which of them are correct [n].

    Bins are (i/bins, (i+1)/bins]; a confidence of 0 falls into the first.
    """
    at = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    gaps = np.bincount(at, weights=correct - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(confidence))


def calibration_pseudo_values(confidence: Floats, correct: Bools, samples: int, bins: int = BINS) -> PseudoValues:
    """ECE with the pseudo-value of each of N samples, from what :func:`confidences` gives for them."""
    at = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    decisions = len(confidence) // samples
    own = np.repeat(np.arange(samples), decisions) * bins + at
    gaps = np.bincount(own, weights=correct - confidence, minlength=samples * bins).reshape(samples, bins)
    rest = np.abs(gaps.sum(axis=0) - gaps).sum(axis=1) / (max(samples - 1, 1) * decisions)
    return PseudoValues.without_each(float(np.abs(gaps.sum(axis=0)).sum() / len(confidence)), rest)


def confidences(logits: Floats, labels: tuple[tuple[int, ...], ...], task: str) -> tuple[Floats, Bools]:
    """The confidence of every prediction, and whether it is correct: [N], or [N·C] where the task is multi-label."""
    return confidences_in(logits, target_matrix(labels, logits.shape[1]), task)


def confidences_in(logits: Floats, targets: Bools, task: str) -> tuple[Floats, Bools]:
    """:func:`confidences`, from the classes of each sample [N, C]."""
    logits = logits.astype(np.float64)
    if task == "multi-label":
        return (0.5 * (1 + np.tanh(logits / 2))).ravel(), targets.ravel()  # the sigmoid, without overflow
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    predicted = logits.argmax(axis=1)
    return exponentials.max(axis=1) / exponentials.sum(axis=1), targets[np.arange(len(logits)), predicted]


def reliability(predictions: Predictions) -> pd.DataFrame:
    """Calibration of one checkpoint at each missing rate, averaged over mask seeds.

    Returns:
        One row per scenario, prompting and missing rate: ``ece``, ``confidence`` (mean), ``right`` (share of correct
        predictions), and ``overconfidence``: confidence − right.
    """
    truth, tables = predictions.truth, predictions.truth.draw(predictions.cells)
    figures = []
    for key in range(len(tables.keys)):
        confidence, correct = confidences_in(predictions.chosen(tables, key), truth.targets, truth.task)
        figures.append((expected_calibration_error(confidence, correct), confidence.mean(), correct.mean()))
    means = mean_over_seeds(tables, pd.DataFrame(figures, columns=["ece", "confidence", "right"]))
    return means.assign(overconfidence=means["confidence"] - means["right"])
