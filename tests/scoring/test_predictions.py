"""Predictions read back from disk give the cells that the evaluation gave."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest

from mmrobust.cases import Case
from mmrobust.errors import DataError
from mmrobust.scenarios.grid import Grid
from mmrobust.scoring.metrics import Outcomes, WeightedTruth, accuracy, target_matrix
from mmrobust.scoring.store import predictions_behind
from mmrobust.storage.parquet import write_table
from mmrobust.storage.results import read_results


def scored_again(stored):
    """Accuracy of every cell, from what was read."""
    tables = stored.truth.draw(stored.cells)
    targets = target_matrix(stored.truth.labels, stored.truth.classes)
    weights = WeightedTruth(targets, np.ones((1, len(stored.truth.ids))))
    return {
        cell: accuracy(Outcomes(stored.chosen(tables, key), weights, False))[0]
        for cell, key in zip(stored.cells, tables.of_cell, strict=True)
    }


def values(frame, metric="accuracy"):
    rows = frame[frame["metric"] == metric]
    return dict(
        zip(zip(rows.scenario, rows.missing_rate, rows.seed, rows.prompting, strict=True), rows.value, strict=True)
    )


def test_every_cell_is_what_it_was(tmp_path, evaluate_into):
    evaluate_into(tmp_path)
    results = read_results(tmp_path)
    again = scored_again(predictions_behind(tmp_path, results, "mmp"))
    assert {(c.scenario, c.missing_rate, c.seed, c.prompting): v for c, v in again.items()} == pytest.approx(
        values(results.frame)
    )


def as_version_1(folder):
    """Take from the shards what version 1 did not have: where a sample stands, and what it lacked by nature."""
    for shard in (folder / "predictions").iterdir():
        table = pq.read_table(shard)
        provenance = {**json.loads(table.schema.metadata[b"mmrobust"]), "schema_version": 1}
        write_table(shard, table.drop_columns(["position", "natural"]), provenance)


@pytest.mark.parametrize("version", [1, 2])
def test_naturally_missing_modalities_are_found_again(tmp_path, evaluate_into, version):
    modalities = ("image", "text")
    lacking = {i: Case.missing(modalities, "text" if i % 3 else "image") for i in range(0, 300, 7)}
    natural = tuple(lacking.get(i, Case.complete(modalities)) for i in range(300))
    _, truth, _ = evaluate_into(tmp_path, natural=natural)
    if version == 1:
        as_version_1(tmp_path)
    results = read_results(tmp_path)
    stored = predictions_behind(tmp_path / "results.parquet", results, "mmp").ordered_as(truth.ids)
    assert stored.truth.natural == natural
    again = scored_again(stored)
    assert {(c.scenario, c.missing_rate, c.seed, c.prompting): v for c, v in again.items()} == pytest.approx(
        values(results.frame)
    )


def test_one_prompting_stands_for_both_where_it_makes_no_difference(tmp_path, evaluate_into):
    only = Grid(("missing-text",), (0.0, 1.0), (0,), ("situation",))
    evaluate_into(tmp_path, grid=only)
    results = read_results(tmp_path)
    assert ("complete", "concat") not in predictions_behind(tmp_path, results, "mmp").keys
    results.provenance["checkpoints"]["mmp"]["depends_on_prompting"] = False
    stored = predictions_behind(tmp_path, results, "mmp")
    assert stored.get("complete", "concat") is stored.logits["complete", "situation"]


def test_samples_come_in_the_order_that_is_asked_for(tmp_path, evaluate_into):
    evaluate_into(tmp_path)
    stored = predictions_behind(tmp_path, read_results(tmp_path), "mmp")
    ids = stored.truth.ids[::-1]
    ordered = stored.ordered_as(ids)
    assert (ordered.truth.ids, ordered.truth.labels) == (ids, stored.truth.labels[::-1])
    np.testing.assert_array_equal(ordered.logits["complete", "concat"], stored.logits["complete", "concat"][::-1])
    with pytest.raises(DataError, match="are of other samples: sample 'x' is not among them"):
        stored.ordered_as(("x", *ids[1:]))
    with pytest.raises(DataError, match="they are of 300, not 299"):
        stored.ordered_as(ids[1:])


def test_shards_of_other_checkpoints_are_not_taken(tmp_path, evaluate_into):
    evaluate_into(tmp_path, name="other", seed=1)
    evaluate_into(tmp_path, name="mmp")  # the same folder: its results now speak of this one alone
    results = read_results(tmp_path)
    assert predictions_behind(tmp_path, results, "mmp").truth.classes == 4
    results.provenance["checkpoints"]["mmp"]["fingerprint"] = "unknown"
    with pytest.raises(
        DataError, match="no checkpoint of the results made these predictions, and there are none of 'mmp'"
    ):
        predictions_behind(tmp_path, results, "mmp")


def test_predictions_that_are_not_those_of_the_results_are_refused(tmp_path, evaluate_into):
    evaluate_into(tmp_path)
    results = read_results(tmp_path)
    results.frame["n"] = 299  # evaluated with --limit 299, beside predictions of all
    assert predictions_behind(tmp_path, results, "mmp").truth.ids[-1] == "s00298"
    results.frame["n"] = 301
    with pytest.raises(DataError, match="holds predictions of 300 of the 301 samples that 'mmp' is evaluated on"):
        predictions_behind(tmp_path, results, "mmp")
    shard = next((tmp_path / "predictions").iterdir())
    shard.write_bytes(b"torn")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        predictions_behind(tmp_path, read_results(tmp_path), "mmp")


def test_reading_needs_no_torch():
    code = "import sys, mmrobust.scoring.predictions, mmrobust.report.analyses; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
