"""Which classes break first."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score

from mmrobust.scoring.by_class import broken_first, class_curves
from mmrobust.scoring.store import predictions_behind
from mmrobust.storage.results import read_results

NAMES = ("c0", "c1", "c2", "c3")


def test_f1_of_every_class_is_scikit_learns(tmp_path, evaluate_into):
    _, truth, logits = evaluate_into(tmp_path)
    curves = class_curves(predictions_behind(tmp_path, read_results(tmp_path), "mmp"), NAMES)
    actual = [label for (label,) in truth.labels]
    for case, scenario, rate in (("complete", "missing-image", 0.0), ("missing-text", "missing-text", 1.0)):
        rows = curves[(curves.scenario == scenario) & (curves.missing_rate == rate) & (curves.prompting == "concat")]
        expected = f1_score(actual, logits[case, "concat"].argmax(axis=1), average=None)
        assert rows.set_index("class")["f1"].to_dict() == pytest.approx(dict(zip(NAMES, expected, strict=True)))
        assert rows["support"].tolist() == np.bincount(actual).tolist()


def test_a_class_breaks_where_it_has_lost_more_than_ten_points():
    def rows(name, *f1):
        return [("missing-text", "situation", rate, name, 10, v) for rate, v in zip((0.0, 0.5, 1.0), f1, strict=True)]

    curves = pd.DataFrame(
        [
            *rows("holds", 0.9, 0.9, 0.8),
            *rows("late", 0.9, 0.85, 0.3),
            *rows("early", 0.9, 0.7, 0.6),
            *rows("least", 0.5, 0.5, 0.45),
        ],
        columns=["scenario", "prompting", "missing_rate", "class", "support", "f1"],
    )
    table = broken_first(curves)
    assert table["class"].tolist() == ["early", "late", "holds", "least"]
    assert table["breaks_at"].tolist()[:2] == [0.5, 1.0]
    assert table["breaks_at"].isna().tolist() == [False, False, True, True]
    assert table["lost"].tolist() == pytest.approx([0.3, 0.6, 0.1, 0.05])
