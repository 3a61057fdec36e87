"""What identifies the evidence in a cell: held against its definition, cell by cell."""

from __future__ import annotations

import numpy as np
import pytest

from mmrobust.gate.evidence import columns_of
from mmrobust.scoring.paired import make_pair, over_seeds
from mmrobust.scoring.store import predictions_behind
from mmrobust.storage.results import read_results


def deaf_to_images(truth, logits):
    """A model that ignores the image, and whose predictions of the first half do not depend on the text either."""
    half = len(truth.ids) // 2
    for (case, prompting), values in logits.items():
        if case == "missing-image":
            values[:] = logits["complete", prompting]
        values[:half] = logits["complete", prompting][:half]


@pytest.fixture
def side(evaluate_into):
    """The function that makes the predictions of one side."""

    def make(folder, **settings):
        evaluate_into(folder, n=60, **settings)
        return predictions_behind(folder, read_results(folder), "mmp")

    return make


@pytest.mark.parametrize("task", ["single-label", "multi-label"])
@pytest.mark.parametrize("depends", [True, False])
def test_columns_are_those_of_the_logits_in_each_cell(side, tmp_path, task, depends):
    settings = {"task": task, "change": deaf_to_images, "classes": 9}
    pair = make_pair(side(tmp_path / "a", **settings), side(tmp_path / "b", seed=1, depends=depends, **settings))
    columns = columns_of(pair, "mmp", ())
    targets = pair.baseline.truth.targets
    cells = [(cell, keys.tolist()) for cell, keys in over_seeds(pair.tables)["key"]]
    scored, decided = {}, {}
    for cell, keys in cells:
        logits = [[one.chosen(pair.tables, key) for one in pair.sides] for key in keys]
        decisions = [[one.predicted(z) for one, z in zip(pair.sides, of, strict=True)] for of in logits]
        scored[cell] = sorted(b"".join(z.tobytes() for z in of) for of in logits)
        decided[cell] = sorted(b"".join(d.tobytes() for d in of) for of in decisions)
        right = [[(d == targets).all(axis=1) for d in of] for of in decisions]
        flips = [((a & ~b).sum(), (b & ~a).sum()) for a, b in right]
        assert columns.flips[cell][:2] == tuple(np.mean(flips, axis=0))
    for expected, found in ((scored, columns.scored), (decided, columns.decided)):
        assert {(a, b) for a in found for b in found if found[a] == found[b]} == {
            (a, b) for a in expected for b in expected if expected[a] == expected[b]
        }
    assert 1 < len(set(columns.scored.values())) < len(cells)
    assert not columns.identical


def test_identical_cells_are_those_whose_chosen_rows_are_equal(side, tmp_path):
    def other_without_text(truth, logits):
        for (case, _), values in logits.items():
            values[:] += case == "missing-text"

    pair = make_pair(side(tmp_path / "a"), side(tmp_path / "b", change=other_without_text))
    identical = columns_of(pair, "mmp", ()).identical
    assert {rate for scenario, rate, _ in identical if scenario == "missing-text"} == {0.0}
    assert {rate for scenario, rate, _ in identical if scenario == "missing-image"} == {0.0, 0.5, 1.0}
