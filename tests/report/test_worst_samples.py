"""The samples that a missing input does the most harm to."""

from __future__ import annotations

import base64
import io
import shutil

import numpy as np
import pytest
from PIL import Image

from mmrobust.data import Dataset
from mmrobust.data.prepare.digits import prepare_digits
from mmrobust.data.writing import SampleRow, write_dataset
from mmrobust.errors import DataError, NotComparableError
from mmrobust.report.worst_samples import MOST, find_worst_samples
from mmrobust.scenarios.grid import Grid
from mmrobust.scoring.join import ScoringSettings, score
from mmrobust.scoring.predictions import Predictions
from mmrobust.scoring.store import predictions_behind
from mmrobust.scoring.truth import SplitTruth
from mmrobust.scoring.writer import PredictionWriter
from mmrobust.storage.results import read_results, write_results


@pytest.fixture(scope="module")
def worst(grid, digits):
    return find_worst_samples({grid: read_results(grid)}, digits.folder)


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
        find_worst_samples({grid: read_results(grid)}, tmp_path / "other")


def test_results_without_predictions_are_named(grid, digits, tmp_path):
    shutil.copy(grid / "results.parquet", tmp_path)
    with pytest.raises(DataError, match="predictions: holds no predictions of '"):
        find_worst_samples({tmp_path: read_results(tmp_path)}, digits.folder)


def test_what_is_right_is_what_the_results_count_as_right(digits, tmp_path):
    rows = [
        SampleRow("test", sample.id, (0,), image=sample.image, image_path="x", text=sample.text)
        for sample in digits.split("test").read(range(3))
    ]
    common = {"name": "several", "classes": ["a", "b"], "task": "multi-label", "headline_metric": "macro_f1"}
    write_dataset(tmp_path / "data", rows, modalities=("image", "text"), licence="", source="", **common)
    dataset = Dataset(tmp_path / "data")
    ids = dataset.split("test").ids
    truth = SplitTruth(ids, ((0,),) * 3, ("image", "text"), 2, "multi-label")
    logits = {
        ("complete", "situation"): np.asarray([[4, -4], [1, -4], [4, -4]], dtype=np.float32),
        ("missing-text", "situation"): np.asarray([[1, -4], [1, -4], [4, -4]], dtype=np.float32),
    }
    grid = Grid(("missing-text",), (0.0, 1.0), (0,), ("situation",))
    about = {"method": "none", "head": "linear", "backbone": "tiny-vilt"}
    facts = {"fingerprint": "f", "modalities": ["image", "text"], "dtype": "float32", "device": "cpu", **about}
    facts["depends_on_prompting"] = True
    identity = {"checkpoint": "f", "dataset": dataset.info.fingerprint, "split": "test", "dtype": "float32"}
    data = {**common, "fingerprint": dataset.info.fingerprint, "split": "test", "n": 3}
    store = PredictionWriter(tmp_path / "run", truth, identity, name="it", described=facts, dataset=data, git=None)
    store.add({key: (np.arange(3), values) for key, values in logits.items()})
    store.flush()
    found = {}
    for threshold in (0.5, 0.9):
        frame = score(
            Predictions(truth, logits), truth.draw_grid(grid), ScoringSettings(resamples=0, threshold=threshold)
        )
        provenance = {
            "dataset": data,
            "checkpoints": {"it": facts},
            "scoring": {"threshold": threshold},
        }
        rows = frame.assign(checkpoint="it", dataset="several", split="test", **about)
        write_results(tmp_path / "run" / "results.parquet", rows, provenance)
        found[threshold] = find_worst_samples({tmp_path / "run": read_results(tmp_path / "run")}, dataset.folder)
    assert found[0.5].cases == {}  # every sample is right by a probability of one half
    ((sample,),) = found[0.9].cases.values()  # the first alone is right at first, and then not sure enough
    assert (sample.id, sample.truth, sample.failures[0].predicted) == (ids[0], "a", "none")
    assert np.isnan(sample.failures[0].probability)
