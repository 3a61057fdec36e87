"""Files of every released schema version still read, report, compare and check."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from mmrobust.storage.results import RESULTS_VERSION

HISTORIC = Path(__file__).parents[1] / "historic_results"
VERSIONS = sorted(folder for folder in HISTORIC.iterdir() if folder.is_dir())


@pytest.fixture(params=VERSIONS, ids=lambda folder: folder.name)
def version(request):
    return request.param


def test_there_is_one_of_every_version():
    assert [folder.name for folder in VERSIONS] == [f"v{number + 1}" for number in range(RESULTS_VERSION)]
    for folder in VERSIONS:
        said = json.loads(pq.read_schema(folder / "baseline" / "results.parquet").metadata[b"mmrobust"])
        assert f"v{said['schema_version']}" == folder.name


def test_it_reports(cli, version):
    code, out, _ = cli("report", version / "candidate", version / "baseline", "--details")
    assert code == 0
    for said in ("digits · test · 360 samples · accuracy in %", "mmp-linear", "Standings", "Classes that break first"):
        assert said in out
    assert "Reliability" in out


def test_it_checks_with_its_predictions(cli, version):
    code, out, _ = cli("check", version / "candidate", "--baseline", version / "baseline", "--json")
    verdict = json.loads(out)
    assert (code, verdict["passed"], verdict["compared"], verdict["failed"]) == (1, False, 33, 16)
    worst = verdict["outcomes"][0]
    assert (worst["scenario"], worst["missing_rate"], round(worst["difference"], 4)) == ("missing-text", 1.0, -0.1028)
    assert all(outcome["p_value"] is not None for outcome in verdict["outcomes"])
    assert cli("check", version / "baseline", "--baseline", version / "baseline").code == 0


def test_it_compares(cli, version):
    code, out, _ = cli("compare", version / "baseline", version / "candidate")
    assert code == 0
    assert "none-linear against mmp-linear, accuracy, 360 samples: surely better in 0, surely worse in" in out


def test_it_is_a_baseline(cli, version, tmp_path):
    assert cli("baseline", "save", version / "baseline", tmp_path / "main").code == 0
    assert cli("check", version / "baseline", "--baseline", tmp_path / "main").code == 0
