from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmrobust.data import Dataset
from mmrobust.data.prepare.hf import prepare_hf
from mmrobust.data.prepare.manifest import ManifestColumns, prepare_manifest
from mmrobust.errors import DataError, UsageError

datasets = pytest.importorskip("datasets")

Pictures = list[Any]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is left in the user's cache."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def test_a_prepared_folder_comes_back_as_it_was(shared: Path, tmp_path: Path) -> None:
    prepared = prepare_manifest(shared / "data" / "emoji" / "manifest.csv", tmp_path / "emoji", limit=20)
    info = prepare_hf(tmp_path / "emoji", tmp_path / "out")
    assert info.fingerprint == prepared.fingerprint
    assert (info.name, info.modalities, info.classes, info.task) == (
        "emoji",
        ("image", "text"),
        prepared.classes,
        "single-label",
    )


def test_what_save_to_disk_wrote_with_columns_of_other_names(emoji: Pictures, tmp_path: Path) -> None:
    table = {
        "photo": [{"bytes": picture.png, "path": None} for picture in emoji[:4]],
        "caption": [picture.text for picture in emoji[:3]] + [""],
        "kinds": [["a", "b"], ["c"], ["a"], ["b"]],
    }
    data = datasets.Dataset.from_dict(table).cast_column("photo", datasets.Image())
    datasets.DatasetDict(train=data, extra=data, val=data).save_to_disk(tmp_path / "saved")
    columns = ManifestColumns(text="caption", label="kinds")
    remarks: list[str] = []
    info = prepare_hf(
        tmp_path / "saved", tmp_path / "out", columns=columns, name="mine", licence="CC0", remark=remarks.append
    )
    assert (info.name, info.licence, info.task, info.classes) == ("mine", "CC0", "multi-label", ("a", "b", "c"))
    assert info.splits == {"train": 4, "validation": 4}
    assert remarks[0] == "split 'extra' is dropped: it is not train, validation or test"
    assert remarks[1:] == ["8 pictures are transparent in places, and laid on white"]
    last = list(Dataset(tmp_path / "out").split("train"))[-1]
    assert (last.id, last.label, last.text) == ("train-000003", (1,), None)
    assert last.image == emoji[3].png


def test_an_image_folder_with_withheld_labels_and_a_broken_picture(emoji: Pictures, tmp_path: Path) -> None:
    for number, kind in enumerate(("cat", "dog", "dog")):
        (tmp_path / "in" / "train" / kind).mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / "train" / kind / f"{number}.png").write_bytes(emoji[number].png)
    info = prepare_hf(tmp_path / "in", tmp_path / "out")
    assert (info.modalities, info.classes, info.splits) == (("image",), ("cat", "dog"), {"train": 3})
    (tmp_path / "in" / "train" / "dog" / "1.png").write_bytes(emoji[1].png[:300])
    with pytest.raises(DataError, match=r"in \(train, row 1\): .*1\.png: the picture cannot be read"):
        prepare_hf(tmp_path / "in", tmp_path / "no")

    labelled = datasets.ClassLabel(names=["a", "b"])
    data = datasets.Dataset.from_dict({"text": ["x", "y", "z"], "label": [0, 1, -1]}).cast_column("label", labelled)
    datasets.DatasetDict(test=data).save_to_disk(tmp_path / "withheld")
    info = prepare_hf(tmp_path / "withheld", tmp_path / "two")
    assert (info.splits, info.left_out) == ({"test": 2}, {"no label": 1})


def test_what_cannot_be_opened(tmp_path: Path) -> None:
    def fails(source: Path, message: str, kind: type[Exception] = DataError, **settings: Any) -> None:
        with pytest.raises(kind, match=message) as raised:
            prepare_hf(source, tmp_path / "out", **settings)
        assert "\n" not in str(raised.value)

    fails(tmp_path / "nowhere", "datasets cannot open it .*; name a folder or a repository id")
    saved = tmp_path / "saved"
    datasets.DatasetDict(train=datasets.Dataset.from_dict({"words": ["x"], "label": ["a"]})).save_to_disk(saved)
    fails(saved, "no image, audio or text among words, label; name them with --image-column")
    fails(saved, r"--text-column: unknown column 'word': did you mean 'words'\?", columns=ManifestColumns(text="word"))
    fails(saved, "column 'label' has fewer than two classes", columns=ManifestColumns(text="words"))
    fails(saved, "unknown task 'singel-label'", UsageError, task="singel-label")
    decimal = datasets.Dataset.from_dict({"text": ["x", "y"], "label": [0.5, 2.0]})
    datasets.DatasetDict(train=decimal).save_to_disk(tmp_path / "decimal")
    fails(tmp_path / "decimal", "'label' holds decimal numbers, such as 0.5; .*data prepare manifest --task regression")
    fails(saved, "this source has classes; numbers are read from a manifest", UsageError, task="regression")
    datasets.DatasetDict(extra=datasets.Dataset.from_dict({"text": ["x"]})).save_to_disk(tmp_path / "extra")
    fails(tmp_path / "extra", r"none of its splits \(extra\) is train, validation or test")
    datasets.DatasetDict(train=datasets.Dataset.from_dict({"text": ["x"]})).save_to_disk(tmp_path / "bare")
    fails(tmp_path / "bare", "no label among text; name it with --label-column")


def test_splits_that_are_one_and_cells_that_are_empty(tmp_path: Path) -> None:
    data = datasets.Dataset.from_dict({"id": ["1", "2"], "text": ["x", "y"], "label": ["a", "b"]})
    datasets.DatasetDict(val=data, dev=data).save_to_disk(tmp_path / "twice")
    with pytest.raises(DataError, match=r"two of its splits \(val, dev\) are validation"):
        prepare_hf(tmp_path / "twice", tmp_path / "out")
    kind = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.Value("string"), "image": datasets.Image()}
    )
    cells = [
        {"text": "x", "label": "a", "image": None},
        {"text": "y", "label": "b", "image": {"bytes": None, "path": None}},
    ]
    (tmp_path / "gap").mkdir()
    pq.write_table(pa.Table.from_pylist(cells, schema=kind.arrow_schema), tmp_path / "gap" / "train.parquet")
    info = prepare_hf(tmp_path / "gap", tmp_path / "two")
    assert not Dataset(tmp_path / "two").split("train").presence["image"].any()
    assert info.splits == {"train": 2}
    nameless = datasets.Dataset.from_dict({"id": ["1", None], "text": ["x", "y"], "label": ["a", "b"]})
    datasets.DatasetDict(train=nameless).save_to_disk(tmp_path / "nameless")
    with pytest.raises(DataError, match=r"nameless \(train, row 1\): has no id"):
        prepare_hf(tmp_path / "nameless", tmp_path / "three")


def test_where_datasets_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UsageError, match=r"pip install 'mmrobust\[hf\]'"):
        prepare_hf(tmp_path, tmp_path / "out")
