"""Shards of predictions, by case."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from mmrobust.storage.shards import PREDICTIONS_SCHEMA, read_shard, write_shard

PROVENANCE = dict.fromkeys(("identity", "checkpoint", "dataset", "split", "dtype"), "a")


def test_rows_of_a_case_are_found_wherever_they_stand(tmp_path):
    """3,000 rows are read in parts; the cases of one prompting alternate, the other's rows follow one another."""
    n = 3000
    logits = np.random.default_rng(0).normal(size=(n, 3)).astype(np.float32)
    prompting = ["situation"] * 2000 + ["concat"] * 1000
    case = [("complete", "missing-text")[row % 2] if row < 2000 else "complete" for row in range(n)]
    columns = {
        "id": [f"s{row}" for row in range(n)],
        "position": range(n),
        "natural": ["complete"] * n,
        "case": case,
        "prompting": prompting,
        "noise_seed": [None] * n,
        "label": [[row % 3] for row in range(n)],
        "logits": logits.tolist(),
    }
    path = tmp_path / "shard.parquet"
    write_shard(path, pa.table(columns, schema=PREDICTIONS_SCHEMA), PROVENANCE)
    found = dict(read_shard(path).by_case())
    assert list(found) == [("complete", "concat"), ("complete", "situation"), ("missing-text", "situation")]
    for key, (positions, values) in found.items():
        expected = [row for row in range(n) if (case[row], prompting[row]) == key]
        assert positions.tolist() == expected
        assert np.array_equal(values, logits[expected])
