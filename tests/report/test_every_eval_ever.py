"""Records of Every Eval Ever: valid by the published schema, complete, and where its data store expects them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from mmrobust.report.every_eval_ever import METRICS, SCHEMA_VERSION, write_records
from mmrobust.scoring.metrics import METRICS as METRICS_OF_TASKS
from mmrobust.storage.results import read_results, write_results

SCHEMA = json.loads((Path(__file__).parent / "every_eval_ever" / "eval.schema.json").read_text(encoding="utf-8"))
PLACE = r"data/made/{developer}/mmp/[0-9a-f]{{8}}-[0-9a-f]{{4}}-4[0-9a-f]{{3}}-[89ab][0-9a-f]{{3}}-[0-9a-f]{{12}}\.json"
Cli = Callable[..., Any]


def records(folder: Path) -> list[dict[str, Any]]:
    """The records in a folder, each valid."""
    found = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(folder.rglob("*.json"))]
    for record in found:
        jsonschema.Draft7Validator(SCHEMA).validate(record)
    return found


def test_every_metric_has_a_name_there() -> None:
    assert set(METRICS) == {name for names in METRICS_OF_TASKS.values() for name in names}
    assert SCHEMA["version"] == SCHEMA_VERSION


@pytest.mark.parametrize("task", ["single-label", "multi-label", "binary", "regression"])
def test_every_row_is_in_the_record(cli: Cli, evaluate_into: Any, tmp_path: Path, task: str) -> None:
    evaluate_into(tmp_path / "results", task=task, n=60, classes=2 if task == "binary" else 4)
    assert cli("score", tmp_path / "results").code == 0
    code, _, err = cli("report", tmp_path / "results", "--every-eval-ever", tmp_path / "data")
    assert (code, err) == (0, f"wrote 1 files into {tmp_path / 'data'}\n")
    (file,) = (tmp_path / "data").rglob("*.json")
    assert re.fullmatch(PLACE.format(developer="unknown"), file.relative_to(tmp_path).as_posix())
    (record,) = records(tmp_path / "data")
    frame = read_results(tmp_path / "results").frame
    results = record["evaluation_results"]
    assert len({result["evaluation_result_id"] for result in results}) == len(results) == len(frame)
    for row, result in zip(frame.itertuples(), results, strict=True):
        score = result["score_details"]
        assert (score["score"], score["uncertainty"]["num_samples"]) == (row.value, 60)
        interval = score["uncertainty"]["confidence_interval"]
        assert (interval["lower"], interval["upper"]) == (row.ci_low, row.ci_high)
        assert "no resamples" in interval["method"] and "num_bootstrap_samples" not in score["uncertainty"]
        assert score["details"]["scenario"] == row.scenario and score["details"]["prompting"] == row.prompting
        assert (float(score["details"]["missing_rate"]), int(score["details"]["seed"])) == (row.missing_rate, row.seed)
        assert result["evaluation_name"] == f"made/{row.scenario}/{row.missing_rate:g}"
        config = result["metric_config"]
        assert config["metric_id"] == METRICS[row.metric][0]
        assert config["lower_is_better"] == (row.metric in ("mae", "rmse"))
    assert record["eval_library"]["name"] == "mmrobust"
    assert record["evaluation_id"] == f"made/unknown/mmp/{record['retrieved_timestamp']}"
    details = record["model_info"]["additional_details"]
    assert details["modalities"] == "image + text" and details["deployment_type"] == "self_deployed"


def test_the_same_results_keep_their_place_and_others_get_another(cli: Cli, evaluate_into: Any, tmp_path: Path) -> None:
    for name in ("a", "b"):
        evaluate_into(tmp_path / name, seed=ord(name), n=40)
    words = ("--every-eval-ever", tmp_path / "data", "--organization", "Lab: one")
    for _ in range(2):
        code, _, err = cli("report", tmp_path / "a", *words)
        assert code == 0, err
    assert len(records(tmp_path / "data")) == 1
    code, _, err = cli("report", tmp_path / "a", tmp_path / "b", *words)  # two of one name are told apart
    assert code == 0 and "wrote 2 files" in err
    found = records(tmp_path / "data")
    assert {record["model_info"]["name"] for record in found} == {"mmp", "mmp (a)", "mmp (b)"}
    assert {record["model_info"]["developer"] for record in found} == {"Lab: one"}
    assert {record["source_metadata"]["evaluator_relationship"] for record in found} == {"first_party"}
    assert {path.name for path in (tmp_path / "data" / "made").iterdir()} == {"Lab_ one"}


def test_a_value_that_is_not_defined_is_left_out_and_counted(evaluate_into: Any, tmp_path: Path) -> None:
    results, *_ = evaluate_into(tmp_path, n=30)
    frame = results.frame.copy()
    frame.loc[frame.index[:3], "value"] = np.nan
    write_results(tmp_path / "results.parquet", frame, results.provenance)
    read = read_results(tmp_path)
    (file,) = write_records([read], tmp_path / "data")
    (record,) = records(tmp_path / "data")
    assert len(record["evaluation_results"]) == len(frame) - 3 and file.is_file()
    assert record["source_metadata"]["additional_details"]["undefined_results"] == "3"
    assert "confidence_interval" not in record["evaluation_results"][0]["score_details"]["uncertainty"]


def test_a_metric_without_a_name_there_is_refused(cli: Cli, evaluate_into: Any, tmp_path: Path) -> None:
    results, *_ = evaluate_into(tmp_path, n=30)
    frame = results.frame[results.frame.metric == "accuracy"].assign(metric="acuracy")
    write_results(tmp_path / "results.parquet", frame, results.provenance)
    words = ("--metric", "acuracy", "--every-eval-ever", tmp_path / "data")
    code, _, err = cli("report", tmp_path, *words)
    assert code == 2 and "unknown metric 'acuracy': did you mean 'accuracy'?" in err
    assert not (tmp_path / "data").exists()


def test_an_organization_alone_is_refused(cli: Cli, evaluate_into: Any, tmp_path: Path) -> None:
    evaluate_into(tmp_path, n=20)
    code, out, err = cli("report", tmp_path, "--organization", "Lab")
    assert (code, out) == (2, "") and "--organization is for the records: give --every-eval-ever DIR as well" in err


def test_imported_predictions_have_one_too(cli: Cli, digits: Any, tmp_path: Path) -> None:
    about = ("--data", digits.folder, "--scenario", "missing-text", "--missing-rate", 1, "--seeds", 1)
    assert cli("plan", *about, "--out", tmp_path / "plan").code == 0
    first, *pairs = (tmp_path / "plan" / "plan.csv").read_text().splitlines()
    lines = [",".join([first, *digits.info.classes]), *(f"{pair}{',0' * 10}" for pair in pairs)]
    (tmp_path / "it.csv").write_text("\n".join(lines))
    words = ("--name", "it", "--out", tmp_path / "out")
    assert cli("import", "predictions", tmp_path / "it.csv", *about, *words).code == 0
    assert cli("report", tmp_path / "out", "--every-eval-ever", tmp_path / "data").code == 0
    (record,) = records(tmp_path / "data")
    assert record["model_info"]["additional_details"]["deployment_type"] == "unknown"
    assert record["model_info"]["additional_details"]["method"] == "imported"
    assert "head" not in record["model_info"]["additional_details"]
