"""Many cells at once give what each gives alone, and equal tables are scored once."""

from __future__ import annotations

import numpy as np
import pytest

from mmrobust.scoring.bootstrap import resample_weights
from mmrobust.scoring.cell_values import resampled_values
from mmrobust.scoring.metrics import METRICS, Outcomes, WeightedTruth
from mmrobust.scoring.store import predictions_behind
from mmrobust.storage.results import read_results

EVERY = [(task, metric) for task, metrics in METRICS.items() for metric in metrics]


@pytest.mark.parametrize(("task", "metric"), EVERY)
def test_every_metric_is_what_it_is_alone(tmp_path, evaluate_into, task, metric):
    evaluate_into(tmp_path, task=task, n=80, classes=2 if task == "binary" else 5)
    stored = predictions_behind(tmp_path, read_results(tmp_path), "mmp")
    truth, tables = stored.truth, stored.truth.draw(stored.cells)
    (weights,) = resample_weights(80, 20)
    together = resampled_values(stored, tables, metric, weights)
    weighted = WeightedTruth(truth.targets, weights)
    for key in range(len(tables.keys)):
        alone = METRICS[task][metric](Outcomes(stored.chosen(tables, key), weighted, task == "multi-label"))
        np.testing.assert_allclose(together[key], alone, atol=1e-6)


def test_equal_tables_are_scored_once(tmp_path, evaluate_into):
    evaluate_into(tmp_path)
    stored = predictions_behind(tmp_path, read_results(tmp_path), "mmp")
    tables = stored.truth.draw(stored.cells)
    assert len(tables.cells) == 3 * 3 * 2 * 2
    # rate 0 is one table for all, rate 1 of a single modality one for both seeds; the rest differ
    assert len(tables.tables) == 1 + 2 + 2 + 3 * 2
    assert len(tables.keys) == 2 * len(tables.tables)
