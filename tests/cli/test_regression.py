"""Regression from raw numbers to the gate, on scikit-learn's diabetes data: two groups of measurements, one number."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.datasets import load_diabetes

import mmrobust
from mmrobust.data import Dataset
from mmrobust.data.prepare import prepare_manifest
from mmrobust.models.checkpoint import CheckpointConfig, load_checkpoint
from mmrobust.storage.results import read_results
from mmrobust.training.loop import train
from mmrobust.training.recipe import Recipe
from mmrobust.training.settings import TrainSettings

Cli = Callable[..., Any]
MODALITIES = ("body=features:body", "serum=features:serum")
GROUPS = {"body": slice(0, 4), "serum": slice(4, 10)}


def write_table(file: Path, **changes: Any) -> Path:
    """The 442 patients of the data set, with ``changes`` to their columns."""
    found = load_diabetes()
    columns = {name: found.data[:, part].tolist() for name, part in GROUPS.items()}
    columns |= {"id": [f"p{i:03d}" for i in range(442)], "progression": found.target.tolist()}
    pq.write_table(pa.table(columns | changes), file)
    return file


@pytest.fixture(scope="module")
def diabetes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("diabetes")
    columns = mmrobust.data.prepare.ManifestColumns(label="progression")
    source = write_table(folder / "diabetes.parquet")
    prepare_manifest(source, folder / "data", columns=columns, modalities=MODALITIES, task="regression")
    return folder / "data"


def settings(data: Path, backbone: str = "tiny", method: str = "full", head: str = "linear", epochs: int = 6) -> Any:
    recipe = Recipe(epochs=epochs, batch_size=32, lr=1e-3)
    own = {"joint_width": 32} if backbone == "tiny" else {}
    rate = 0.0 if method == "full" else 0.5
    return TrainSettings(data, backbone, method, head, recipe, missing_rate=rate, backbone_settings=own)


@pytest.fixture(scope="module")
def full(diabetes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("checkpoints") / "full"
    train(settings(diabetes), out)
    return out


def test_towers_of_features_do_without_the_models_of_transformers(full: Path) -> None:
    code = f"import sys, mmrobust; mmrobust.load({str(full)!r}); print('transformers.modeling_utils' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_a_data_set_of_numbers(cli: Cli, diabetes: Path) -> None:
    facts = json.loads((diabetes / "dataset.json").read_text())
    assert (facts["task"], facts["classes"], facts["headline_metric"]) == ("regression", ["progression"], "mae")
    assert facts["format_version"] == 4
    dataset = Dataset(diabetes)
    labels = {row: label for split in dataset.splits for row, label in zip(*_ids(dataset, split), strict=True)}
    assert labels == {f"p{i:03d}": (number,) for i, number in enumerate(load_diabetes().target.tolist())}
    code, out, _ = cli("data", "verify", diabetes)
    assert code == 0 and "442 samples, 0 faults" in out
    code, out, _ = cli("data", "info", diabetes, "--json")
    numbers = np.asarray(dataset.split("train").labels)
    said = json.loads(out)["splits"]["train"]
    assert said["label"]["mean"] == pytest.approx(numbers.mean()) and "class_balance" not in said
    code, out, _ = cli("data", "info", diabetes)
    assert code == 0 and "mean of progression" in out
    source = ("--source", diabetes.parent / "diabetes.parquet", "--label-column", "progression", "--task", "regression")
    flags = [word for modality in MODALITIES for word in ("--modality", modality)]
    code, out, _ = cli("data", "prepare", "manifest", *source, *flags, "--dry-run")
    assert code == 0 and "regression, of progression, mae" in out and "label: progression 151" in out
    page = diabetes.parent / "page.html"
    code, _, err = cli("data", "preview", diabetes, "--scenario", "missing-body", "--samples", 2, "--out", page)
    assert code == 0 and "progression " in page.read_text(), err


def _ids(dataset: Dataset, split: str) -> tuple[Any, Any]:
    return dataset.split(split).ids, dataset.split(split).labels


@pytest.mark.parametrize(
    ("labels", "further", "message"),
    [
        ([0.5] * 441 + ["0,7"], (), "label '0,7' is not a finite number, as --task regression wants; write decimals"),
        (["1"] * 441 + ["nan"], (), "label 'nan' is not a finite number"),
        ([3.0] * 442, (), "every label is 3: there is nothing to predict"),
        ([[1.0, 2.0]] * 442, (), "is not a finite number"),
        (None, ("--label-as-class",), "--task regression takes numbers"),
    ],
)
def test_labels_that_are_no_numbers(cli: Cli, tmp_path: Path, labels: Any, further: Any, message: str) -> None:
    if labels is not None and any(isinstance(label, str) for label in labels):
        labels = [str(label) for label in labels]
    table = write_table(tmp_path / "table.parquet", **({} if labels is None else {"progression": labels}))
    flags = [word for modality in MODALITIES for word in ("--modality", modality)]
    where = ("--source", table, "--label-column", "progression", "--out", tmp_path / "out")
    code, _, err = cli("data", "prepare", "manifest", *where, *flags, "--task", "regression", *further)
    assert code == 2 and message in err.replace("\n", " ") and not (tmp_path / "out").exists()


def test_other_sources_have_classes(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "lists").mkdir()
    words = ("--source", tmp_path / "lists", "--task", "regression", "--out", tmp_path / "out")
    code, _, err = cli("data", "prepare", "cav-mae-json", *words)
    assert code == 2 and "this source has classes; numbers are read from a manifest" in err.replace("\n", " ")


def test_from_numbers_to_the_gate(cli: Cli, diabetes: Path, full: Path, tmp_path: Path) -> None:
    prompted, results = tmp_path / "mmp", tmp_path / "results"
    words = ("--method", "mmp", "--head", "mlp", "--epochs", 2, "--out", prompted)
    code, out, err = cli("train", "--data", diabetes, "--backbone", full, *words)
    assert code == 0 and "validation mae" in out, err
    grid = ("--missing-rate", "0,0.5,1", "--seeds", 2)
    code, out, err = cli("eval", full, prompted, "--data", diabetes, *grid, "--out", results)
    assert code == 0 and "mae, less is better" in out, err
    frame, provenance = read_results(results)
    assert set(frame.metric) == {"mae", "rmse", "pearson"} and provenance["dataset"]["task"] == "regression"
    assert provenance["scoring"]["threshold"] == 0.5
    labels = np.asarray(Dataset(diabetes).split("test").labels)
    complete = frame[(frame.checkpoint == "full") & (frame.metric == "mae") & (frame.missing_rate == 0)]
    assert 0 < complete.value.iloc[0] < np.abs(labels - np.median(labels)).mean()
    code, out, err = cli("score", results, "--metric", "rmse,pearson", "--missing-rate", 1, "--out", tmp_path / "2")
    assert code == 0 and set(read_results(tmp_path / "2").frame.metric) == {"rmse", "pearson"}, err
    code, out, err = cli("compare", results, results, "--checkpoints", "full,mmp", "--json")
    assert code == 0 and json.loads(out)["metric"] == "mae", err
    code, out, err = cli("check", results, "--baseline", results, "--fail", "auc:+0.5")
    assert code == 0 and "auc.mae" in out, err
    code, _, err = cli("report", results, "--html", tmp_path / "page.html", "--data", diabetes)
    assert code == 2 and "samples are lost where a class is" in err.replace("\n", " ")
    code, out, err = cli("check", results, "--baseline", results, "--fail", "mae<=1")
    assert code == 1 and "mae<=1" in out, err


def test_the_best_epoch_has_the_least_error(diabetes: Path, full: Path) -> None:
    curves, config = pd.read_parquet(full / "training.parquet"), CheckpointConfig.read(full)
    best = config.training["best_epoch"]
    assert curves.validation.idxmin() + 1 == best and config.training["validation"] == curves.validation.min()
    labels = np.asarray(Dataset(diabetes).split("train").labels)
    assert config.label_scale == pytest.approx({"mean": labels.mean(), "std": labels.std()})
    assert "regression, of progression" in (full / "README.md").read_text()
    split = Dataset(diabetes).split("validation")
    predicted = mmrobust.load(full).logits([sample.media for sample in split.read(range(len(split)))])
    assert predicted.shape == (len(split), 1)
    assert np.abs(predicted.numpy() - np.asarray(split.labels)).mean() == pytest.approx(
        curves.validation.min(), rel=1e-4
    )


@pytest.mark.parametrize("method", ["none", "msp", "ptm", "lora", "adapter"])
def test_every_method_predicts_numbers(diabetes: Path, full: Path, tmp_path: Path, method: str) -> None:
    config = train(settings(diabetes, str(full), method, epochs=1), tmp_path / method)
    assert 0 < config.training["validation"] < 200
    assert load_checkpoint(tmp_path / method).classifier.head.label_scale is not None


def test_a_head_of_classes_is_refused(cli: Cli, diabetes: Path, full: Path, tmp_path: Path) -> None:
    words = ("--backbone", full, "--method", "none", "--head", "prototype", "--out", tmp_path / "out")
    code, _, err = cli("train", "--data", diabetes, *words)
    message = "head prototype needs classes; for a regression task take --head linear or mlp"
    assert code == 2 and message in err.replace("\n", " ") and not (tmp_path / "out").exists()


def test_what_depends_on_labels_is_refused(cli: Cli, diabetes: Path, full: Path, tmp_path: Path) -> None:
    words = ("--scenario", "missing-body^label=progression:0.5", "--missing-rate", 0.5)
    code, _, err = cli("eval", full, "--data", diabetes, *words, "--out", tmp_path / "out")
    assert code == 2 and "the labels are not known here, or are numbers" in err.replace("\n", " ")


def predict(samples: list[Any], case: str | None) -> list[float]:
    return [150.0 if sample["body"] is None else 150.0 + 900 * float(sample["body"][2]) for sample in samples]


def own(**changes: Any) -> mmrobust.Model:
    fields = {"name": "bmi", "version": "1", "modalities": ("body", "serum"), "predict": predict}
    return mmrobust.Model(**fields | {"classes": ("progression",), "task": "regression"} | changes)


def test_a_model_of_ones_own(diabetes: Path) -> None:
    flat = mmrobust.evaluate(own(), diabetes, rates=(0.0, 1.0), seeds=1)
    column = mmrobust.evaluate(
        own(predict=lambda s, c: np.asarray(predict(s, c))[:, None]), diabetes, rates=(0, 1), seeds=1
    )
    pd.testing.assert_frame_equal(flat, column)
    test = Dataset(diabetes).split("test")
    numbers = np.asarray(predict([sample.media for sample in test.read(range(len(test)))], None), dtype=np.float32)
    error = np.abs(numbers - np.asarray(test.labels)[:, 0]).mean()
    assert flat[(flat.metric == "mae") & (flat.missing_rate == 0)].value.iloc[0] == pytest.approx(error)
    blind = flat[(flat.metric == "pearson") & (flat.missing_rate == 1) & (flat.scenario == "missing-body")]
    assert (blind.value == 0).all()  # one number for all


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": ("a", "b")}, "a regression task has numbers, not 2 classes: name the number"),
        ({"scale": "probabilities"}, "a regression task has numbers, not scale='probabilities'"),
        ({"predict": lambda samples, case: np.zeros((len(samples), 2))}, "it must return a number for each sample"),
        ({"classes": ("price",)}, r"knows a number to predict \(price\), .* has a number to predict \(progression\)"),
        ({"task": "binary", "classes": ("no", "yes")}, "knows 2 binary classes"),
    ],
)
def test_a_model_that_does_not_fit_is_refused(diabetes: Path, changes: Any, message: str) -> None:
    with pytest.raises(mmrobust.errors.MmrobustError, match=message):
        mmrobust.evaluate(own(**changes), diabetes, rates=(0.0,), seeds=1)


def test_predictions_made_elsewhere(cli: Cli, diabetes: Path, tmp_path: Path) -> None:
    test = Dataset(diabetes).split("test")
    rows = [
        (name, case, label[0] + 3)
        for case in ("complete", "missing-body")
        for name, label in zip(test.ids, test.labels, strict=True)
    ]
    pd.DataFrame(rows, columns=["id", "case", "progression"]).to_csv(tmp_path / "theirs.csv", index=False)
    words = ("--data", diabetes, "--name", "theirs", "--out", tmp_path / "results", "--scenario", "missing-body")
    code, _, err = cli("import", "predictions", tmp_path / "theirs.csv", *words)
    assert code == 0, err
    frame = read_results(tmp_path / "results").frame
    assert frame[frame.metric == "mae"].value.to_numpy() == pytest.approx(3.0, abs=1e-4)
    assert frame[frame.metric == "pearson"].value.to_numpy() == pytest.approx(1.0)
    code, _, err = cli("import", "predictions", tmp_path / "theirs.csv", *words, "--scale", "probabilities")
    assert code == 2 and "has numbers to predict" in err.replace("\n", " ")
    pd.DataFrame(rows, columns=["id", "case", "progresion"]).to_csv(tmp_path / "wrong.csv", index=False)
    code, _, err = cli("import", "predictions", tmp_path / "wrong.csv", *words)
    assert code == 2 and "no column 'progression', the number to predict" in err.replace("\n", " ")


def test_an_audit_speaks_of_numbers(cli: Cli, diabetes: Path, full: Path) -> None:
    code, out, err = cli("audit", full, "--data", diabetes, "--limit", 20, "--json")
    found = {check["check"]: check for check in json.loads(out)["checks"]}
    assert code == 0 and found["calibration"]["said"] == "numbers have no confidence", err
    assert "deviations of the labels" in found["dtype-drift"]["said"]
    assert "labels above the median" in found["fill-leakage"]["said"]


def test_three_modalities_of_any_kind(cli: Cli, digits: Dataset, tmp_path: Path) -> None:
    """The digit itself as a number, from its picture, its name and its sound."""
    parts = [pq.read_table(file).drop_columns("label") for file in digits.split("train").files]
    table = pa.concat_tables(parts)
    numbers = [float(label[0]) for label in digits.split("train").labels]
    table = table.append_column("digit", pa.array(numbers)).replace_schema_metadata(None)
    pq.write_table(table, tmp_path / "d.parquet")
    words = ("--source", tmp_path / "d.parquet", "--label-column", "digit", "--task", "regression")
    code, _, err = cli("data", "prepare", "manifest", *words, "--out", tmp_path / "data")
    assert code == 0, err
    words = ("--backbone", "tiny-towers", "--method", "full", "--epochs", 1, "--backbone-set", "joint_width=32")
    code, _, err = cli("train", "--data", tmp_path / "data", *words, "--out", tmp_path / "full")
    assert code == 0, err
    lost = ("image", "text", "audio", "image+missing-audio", "image+missing-text", "text+missing-audio")
    scenarios = ",".join(("missing-any", *(f"missing-{one}" for one in lost)))
    words = ("--scenario", scenarios, "--missing-rate", "0,1", "--seeds", 1, "--out", tmp_path / "results")
    code, out, err = cli("eval", tmp_path / "full", "--data", tmp_path / "data", *words)
    assert code == 0 and "mae, less is better" in out, err
    code, out, err = cli("report", tmp_path / "results", "--details")
    assert code == 0 and "What each modality is worth: mae" in out, err
