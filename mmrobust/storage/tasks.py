"""The tasks of data sets, and the metrics of each: :mod:`mmrobust.scoring.metrics` computes them."""

from __future__ import annotations

TASK_METRICS = {
    "single-label": ("accuracy", "macro_f1"),
    "multi-label": ("macro_f1", "micro_f1", "weighted_f1", "samples_f1", "map"),
    "binary": ("auroc", "accuracy"),
}
"""Task → its metrics. The first is the usual headline metric."""
TASKS = tuple(TASK_METRICS)
RANGES = {name: (0.0, 1.0) for names in TASK_METRICS.values() for name in names}
"""Metric → the least and the largest value that it can have."""
