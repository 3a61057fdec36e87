"""Results whose figures are known."""

from __future__ import annotations

import pandas as pd
import pytest


@pytest.fixture
def curve():
    """The function that makes results of one checkpoint."""

    def make(checkpoint, values, prompting="situation", width=0.01, **more):
        """Results of one checkpoint from rate → value, one seed, on 1,000 samples."""
        frame = pd.DataFrame({"missing_rate": list(values), "value": list(values.values())})
        about = {
            "checkpoint": checkpoint,
            "dataset": "d",
            "split": "test",
            "scenario": "missing-text",
            "seed": 0,
            "n": 1000,
        }
        about |= {"prompting": prompting, "metric": "accuracy", "method": "mmp", "head": "linear", **more}
        return frame.assign(ci_low=frame["value"] - width, ci_high=frame["value"] + width, **about)

    return make
