"""The tasks of data sets, and the metrics of each: :mod:`mmrobust.scoring.metrics` computes them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

REGRESSION = "regression"
"""The task whose labels are numbers. What other tasks have for each class it has once, under the number's name."""
TASK_METRICS = {
    "single-label": ("accuracy", "macro_f1"),
    "multi-label": ("macro_f1", "micro_f1", "weighted_f1", "samples_f1", "map"),
    "binary": ("auroc", "accuracy"),
    REGRESSION: ("mae", "rmse", "pearson"),
}
"""Task → its metrics. The first is the usual headline metric."""
TASKS = tuple(TASK_METRICS)
SHARE = (0.0, 1.0)
RANGES = {name: SHARE for names in TASK_METRICS.values() for name in names}
RANGES |= {"mae": (0.0, math.inf), "rmse": (0.0, math.inf), "pearson": (-1.0, 1.0)}
"""Metric → the least and the largest value that it can have."""
LESS_IS_BETTER = ("mae", "rmse")
"""The metrics that are errors, in the unit of the labels."""
Label = tuple[Any, ...]
"""The label of a sample: the index of its class, or of each of its classes; of a regression task, its number."""


def sign_of(metric: str) -> int:
    """1, or −1 for a metric of which less is better."""
    return -1 if metric in LESS_IS_BETTER else 1


def is_share(metric: str) -> bool:
    """Whether a metric is a share of 1, as all of classes are, and so is one of another program."""
    return RANGES.get(metric, SHARE) == SHARE


def label_names(label: Label, classes: Sequence[str], task: str) -> tuple[str, ...]:
    """The names of the classes of a label, or its number with the number's name, for people."""
    return tuple(f"{classes[0]} {one:g}" if task == REGRESSION else classes[one] for one in label)
