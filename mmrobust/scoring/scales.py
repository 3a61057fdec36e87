"""The scales on which a model outside this package gives its scores, and the logits that stand for them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

LOGITS, PROBABILITIES = SCALES = ("logits", "probabilities")
SMALLEST = float(np.finfo(np.float32).tiny)
"""Probabilities below this, 1.2e-38, count as this much: their logarithm stays finite, and hardly any order is lost."""
ROUNDING = 1e-6
"""How far a probability may lie outside [0, 1]: float32 rounding."""
SUM_SLACK = 0.02
"""How far the probabilities of a sample may sum to something other than 1: rounding in half precision."""


def logits_of_probabilities(probabilities: npt.ArrayLike, *, several: bool) -> npt.NDArray[np.float32]:
    """Logits [n, C] whose probabilities are ``probabilities`` [n, C].

    The logarithm, which a softmax turns back; with ``several`` classes per sample log(p / (1 − p)), for a sigmoid.
    Probabilities are clipped at :data:`SMALLEST` before the logarithm.
    """
    p = np.clip(np.asarray(probabilities, dtype=np.float64), 0.0, 1.0)
    logits = np.log(np.maximum(p, SMALLEST))
    if several:
        logits -= np.log(np.maximum(1.0 - p, SMALLEST))
    return logits.astype(np.float32)


def outside(probabilities: npt.NDArray[np.float64], task: str) -> tuple[npt.NDArray[np.bool_], str]:
    """Which rows of ``probabilities`` [n, C] are none [n], and what a probability must be.

    They must lie in [0, 1] and, unless the task is multi-label, sum to 1.
    """
    beyond = np.abs(probabilities - 0.5).max(axis=1) > 0.5 + ROUNDING
    if beyond.any() or task == "multi-label":
        return np.asarray(beyond), "lie in [0, 1]"
    return np.asarray(np.abs(probabilities.sum(axis=1) - 1) > SUM_SLACK), "sum to 1"
