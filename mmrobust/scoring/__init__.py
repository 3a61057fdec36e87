"""The cheap half of an evaluation: predictions joined with missing tables, metrics, statistics. Never imports torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]
Bools = npt.NDArray[np.bool_]
Targets = npt.NDArray[Any]
"""Whether samples belong to classes [N, C]; in a regression task, their numbers [N, 1]."""
