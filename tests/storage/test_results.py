"""The results file: what is written is read, and everything else is refused by name."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmrobust.errors import DataError
from mmrobust.scenarios.grid import Grid
from mmrobust.scoring.join import ScoringSettings, score
from mmrobust.scoring.predictions import Predictions
from mmrobust.scoring.truth import SplitTruth
from mmrobust.storage.results import (
    INTERVALS,
    RESULTS_KEYS,
    RESULTS_SCHEMA,
    RESULTS_VERSION,
    read_results,
    write_results,
)

PROVENANCE = {
    "dataset": {"name": "digits", "task": "single-label", "headline_metric": "accuracy", "classes": ["a", "b"]},
    "checkpoints": {"mmp": {"fill": "ones"}},
    "command": "mmrobust eval …",
}


@pytest.fixture
def frame():
    """A scored grid of four samples."""
    truth = SplitTruth(("a", "b", "c", "d"), ((0,), (1,), (0,), (1,)), ("image", "text"), 2, "single-label")
    logits = np.asarray([[1, 0], [0, 1], [0, 1], [0, 1]], dtype=np.float32)
    cases = {(case, "situation"): logits for case in ("complete", "missing-text")}
    scored = score(
        Predictions(truth, cases),
        truth.draw_grid(Grid(("missing-text",), (0.0, 0.5), (0, 1), ("situation",))),
        ScoringSettings(resamples=20),
    )
    about = {"method": "mmp", "head": "linear", "backbone": "tiny-vilt"}
    return scored.assign(checkpoint="mmp", dataset="digits", split="test", **about)[RESULTS_SCHEMA.names]


def rewrite(path, table, metadata):
    pq.write_table(table.replace_schema_metadata(metadata), path)


def test_what_is_written_is_read_sorted_by_its_key(tmp_path, frame):
    path = tmp_path / "runs" / "results.parquet"
    write_results(path, frame.sample(frac=1, random_state=0), PROVENANCE)
    for place in (path, path.parent):
        results = read_results(place)
        expected = frame.sort_values(list(RESULTS_KEYS), ignore_index=True)
        pd.testing.assert_frame_equal(results.frame, expected, check_dtype=False)
        assert results.headline_metric == "accuracy"
        assert results.provenance["command"] == PROVENANCE["command"]
        assert results.provenance["schema_version"] == RESULTS_VERSION


def test_the_same_results_are_the_same_bytes(tmp_path, frame):
    for name, rows in (("a", frame), ("b", frame.sample(frac=1, random_state=1))):
        write_results(tmp_path / name, rows, PROVENANCE)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_intervals_that_were_not_computed_are_null(tmp_path, frame):
    write_results(tmp_path / "results.parquet", frame.assign(ci_low=np.nan, ci_high=np.nan), PROVENANCE)
    assert pq.read_table(tmp_path / "results.parquet")["ci_low"].null_count == len(frame)
    assert read_results(tmp_path).frame["ci_low"].isna().all()


def test_a_table_of_version_1_is_read_with_what_it_lacks_as_unknown(tmp_path, frame):
    old = [name for name in RESULTS_SCHEMA.names if name != "few" and name not in INTERVALS[2:]]
    write_results(tmp_path / "results.parquet", frame, PROVENANCE)
    table = pq.read_table(tmp_path / "results.parquet")
    metadata = json.dumps({**json.loads(table.schema.metadata[b"mmrobust"]), "schema_version": 1}).encode()
    rewrite(tmp_path / "results.parquet", table.select(old), {b"mmrobust": metadata})
    read = read_results(tmp_path).frame
    assert read.columns.tolist() == RESULTS_SCHEMA.names
    assert read[["few", *INTERVALS[2:]]].isna().all(axis=None)
    assert read["ci_low"].notna().all()
    write_results(tmp_path / "again.parquet", read[old], PROVENANCE)  # by a program that knows version 1
    pd.testing.assert_frame_equal(read_results(tmp_path / "again.parquet").frame, read)


def test_another_program_reads_it_with_its_provenance(tmp_path, frame):
    write_results(tmp_path / "results.parquet", frame, PROVENANCE)
    table = pq.read_table(tmp_path / "results.parquet")
    assert table.schema.remove_metadata() == RESULTS_SCHEMA
    assert json.loads(table.schema.metadata[b"mmrobust"])["dataset"]["name"] == "digits"


def test_a_missing_file_is_told_with_the_way_out(tmp_path):
    with pytest.raises(DataError, match="nowhere: no such file or folder; make results with: mmrobust eval"):
        read_results(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"contains no results\.parquet; make results with"):
        read_results(tmp_path)


def test_what_is_no_parquet_is_refused(tmp_path):
    file = tmp_path / "results.parquet"
    file.write_text("checkpoint,value\n")
    with pytest.raises(DataError, match=r"results\.parquet: cannot be read as Parquet \(.*run mmrobust eval again"):
        read_results(file)


def test_a_truncated_file_is_refused(tmp_path, frame):
    file = tmp_path / "results.parquet"
    write_results(file, frame, PROVENANCE)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        read_results(file)


@pytest.mark.parametrize("metadata", [{}, {b"mmrobust": b"no json"}, {b"mmrobust": b'{"kind": "predictions"}'}])
def test_foreign_parquet_is_refused(tmp_path, metadata):
    rewrite(tmp_path / "results.parquet", pa.table({"value": [1.0]}), metadata)
    with pytest.raises(DataError, match="was not written by mmrobust as results"):
        read_results(tmp_path)


def test_a_newer_schema_is_refused(tmp_path, frame):
    write_results(tmp_path / "results.parquet", frame, PROVENANCE)
    table = pq.read_table(tmp_path / "results.parquet")
    newer = json.dumps({"kind": "results", "schema_version": RESULTS_VERSION + 1}).encode()
    rewrite(tmp_path / "results.parquet", table, {b"mmrobust": newer})
    with pytest.raises(DataError, match=f"results of schema {RESULTS_VERSION + 1}, newer than this mmrobust reads"):
        read_results(tmp_path)


def test_an_absent_column_is_named(tmp_path, frame):
    write_results(tmp_path / "results.parquet", frame, PROVENANCE)
    table = pq.read_table(tmp_path / "results.parquet")
    rewrite(tmp_path / "results.parquet", table.drop_columns(["prompting"]), table.schema.metadata)
    with pytest.raises(DataError, match="is not a results table: no column prompting"):
        read_results(tmp_path)


def test_a_column_of_another_type_is_refused(tmp_path, frame):
    write_results(tmp_path / "results.parquet", frame, PROVENANCE)
    table = pq.read_table(tmp_path / "results.parquet")
    words = table.set_column(table.schema.get_field_index("value"), "value", pa.array(["much"] * len(frame)))
    rewrite(tmp_path / "results.parquet", words, table.schema.metadata)
    with pytest.raises(DataError, match="a column has the wrong type for results"):
        read_results(tmp_path)


def test_an_empty_table_is_refused(tmp_path, frame):
    write_results(tmp_path / "results.parquet", frame.iloc[:0], PROVENANCE)
    with pytest.raises(DataError, match="contains no rows; run mmrobust eval again"):
        read_results(tmp_path)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("value", np.inf, "a row has an infinite value"),
        ("ci_low", -np.inf, "a row has an infinite ci_low"),
        ("ci_high", np.inf, "a row has an infinite ci_high"),
        ("missing_rate", np.nan, "a row has (no missing_rate|a missing_rate of NaN)"),
        ("ci_low", 0.999, "a row has a ci_low above its (ci_high|value)"),
        ("ci_high", 0.001, "a row has a (ci_low|value) above its ci_high"),
        ("mean_low", 0.9999, "a row has a mean_low above its mean_high"),
    ],
)
def test_numbers_that_cannot_be_are_refused(tmp_path, frame, column, value, message):
    write_results(tmp_path / "results.parquet", frame, PROVENANCE)
    table = pq.read_table(tmp_path / "results.parquet")
    numbers = table[column].to_pylist()
    numbers[0] = value
    there = table.schema.get_field_index(column)
    rewrite(tmp_path / "results.parquet", table.set_column(there, column, pa.array(numbers)), table.schema.metadata)
    with pytest.raises(DataError, match=message):
        read_results(tmp_path)


def test_a_cell_that_occurs_twice_is_refused(tmp_path, frame):
    write_results(tmp_path / "results.parquet", pd.concat([frame, frame.iloc[:1].assign(value=0.2)]), PROVENANCE)
    with pytest.raises(DataError, match=r"a cell occurs twice \(checkpoint .*, metric .*remove the file, and run mmr"):
        read_results(tmp_path)


def test_costs_that_lack_half_are_refused(tmp_path, frame):
    damaged = {"mmp": {"training": {"efficiency": {"trained_parameters": 10}}}}
    write_results(tmp_path / "results.parquet", frame, {**PROVENANCE, "checkpoints": damaged})
    with pytest.raises(DataError, match=r"damaged \(checkpoints/mmp/training/efficiency/samples_per_epoch is missing"):
        read_results(tmp_path)
