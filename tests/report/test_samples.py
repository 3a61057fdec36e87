"""The samples that a missing input does the most harm to."""

from __future__ import annotations

import base64
import io
import shutil

import numpy as np
import pytest
from PIL import Image

from mmrobust.data.prepare.digits import prepare_digits
from mmrobust.errors import DataError, NotComparableError
from mmrobust.report.samples import MOST, find_worst
from mmrobust.results import read_results
from mmrobust.scoring.predictions import predictions_behind


@pytest.fixture(scope="module")
def worst(grid, digits):
    return find_worst([grid], [read_results(grid)], digits.folder)


def test_each_is_right_when_complete_and_wrong_in_the_case(worst, grid, digits):
    results = read_results(grid)
    stored = {name: predictions_behind(grid, results, name) for name in results.provenance["checkpoints"]}
    assert worst.checkpoints == len(stored) == 4
    assert set(worst.cases) <= {"missing-image", "missing-text"}
    assert any(worst.cases.values())
    for case, samples in worst.cases.items():
        assert len(samples) == min(MOST, worst.lost[case])
        for sample in samples:
            for failure in sample.failures:
                own = stored[failure.checkpoint]
                row = own.truth.ids.index(sample.id)
                (label,) = own.truth.labels[row]
                before, after = (own.logits[name, "situation"][row] for name in ("complete", case))
                assert before.argmax() == label
                assert digits.info.classes[after.argmax()] == failure.predicted != sample.truth
                assert failure.probability == pytest.approx(np.exp(after).max() / np.exp(after).sum(), rel=1e-5)


def test_those_that_most_checkpoints_lose_come_first(worst):
    for samples in worst.cases.values():
        keys = [(-len(sample.failures), -sample.harm) for sample in samples]
        assert keys == sorted(keys)


def test_they_come_with_their_text_and_a_thumbnail(worst, digits):
    split = digits.split("test")
    for samples in worst.cases.values():
        for sample in samples:
            (row,) = split.read([split.ids.index(sample.id)])
            assert sample.text == row.text
            head, _, encoded = sample.thumbnail.partition(",")
            assert head == "data:image/webp;base64"
            with Image.open(io.BytesIO(base64.b64decode(encoded))) as small:
                assert small.format == "WEBP"


def test_another_data_set_is_refused(grid, tmp_path):
    prepare_digits(tmp_path / "other", limit=20)
    with pytest.raises(NotComparableError, match="the results are of another data set"):
        find_worst([grid], [read_results(grid)], tmp_path / "other")


def test_results_without_predictions_are_named(grid, digits, tmp_path):
    shutil.copy(grid / "results.parquet", tmp_path)
    with pytest.raises(DataError, match="predictions: holds no predictions of '"):
        find_worst([tmp_path], [read_results(tmp_path)], digits.folder)
