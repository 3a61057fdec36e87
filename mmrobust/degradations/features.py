"""Common corruptions of features: noise, a gap, and dimensions that fail.

They act on standardised features, float64 [D], or [T, D] along time: those of the training split have mean 0 and
variance 1 in each dimension. What is lost becomes 0, the mean. The strengths are ours.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mmrobust.degradations.keys import GAP, Draws

Array = npt.NDArray[np.float64]

NOISE_STD = (0.2, 0.5, 1.0, 2.0, 4.0)
DROPPED = (0.1, 0.2, 0.3, 0.4, 0.5)


def gaussian(values: Array, severity: int, draws: Draws) -> Array:
    """White noise with 0.2 to 4 standard deviations of each dimension."""
    return values + NOISE_STD[severity - 1] * draws.normal(values.shape)


def gap(values: Array, severity: int, draws: Draws) -> Array:
    """The mean over 10 to 90 % of the time steps, in one piece; of a single vector, over that share of its dimensions.

    At least one is lost, and one stays where there are several.
    """
    start, end = draws.stretch(len(values), GAP[severity - 1])
    holed = values.copy()
    holed[start:end] = 0.0
    return holed


def dimension_drop(values: Array, severity: int, draws: Draws) -> Array:
    """The mean in 10 to 50 % of the dimensions, at least one, the same at all time steps."""
    width = values.shape[-1]
    places = list(range(width))
    dropped = values.copy()
    for _ in range(max(1, round(width * DROPPED[severity - 1]))):
        dropped[..., places.pop(draws.between(0, len(places) - 1))] = 0.0
    return dropped
