from __future__ import annotations

import json
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmrobust.data.dataset import Dataset, Split
from mmrobust.data.format import INFO_FILE, DatasetInfo, choose_modalities, parquet_schema
from mmrobust.data.inspection import describe
from mmrobust.data.writing import SampleRow, write_dataset
from mmrobust.errors import DataError, UsageError


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Six samples of image and text; one has no image, one no text."""
    rows = [
        SampleRow("train", f"t{i}", (i % 2,), image=b"png", image_path=f"{i}.png", text=f"text {i}") for i in range(3)
    ]
    rows += [SampleRow("test", "a", (0,), text="only text"), SampleRow("test", "b", (1,), image=b"only image")]
    rows += [SampleRow("test", "c", (1,), image=b"", text="")]  # empty is not missing
    folder = tmp_path / "small"
    write_dataset(
        folder,
        rows,
        name="small",
        modalities=("image", "text"),
        classes=("no", "yes"),
        task="single-label",
        headline_metric="accuracy",
        licence="CC0",
        source="made",
    )
    return folder


def test_what_was_written_is_read(small: Path) -> None:
    dataset = Dataset(small)
    assert dataset.splits == ("train", "test")
    train = dataset.split("train")
    assert (len(train), train.ids, train.labels) == (3, ("t0", "t1", "t2"), ((0,), (1,), (0,)))
    sample = train.read([2, 0])[0]
    assert (sample.id, sample.label, sample.image, sample.text, sample.audio) == ("t2", (0,), b"png", "text 2", None)
    assert "train, row 2" in sample.origin
    assert [s.id for s in train] == ["t0", "t1", "t2"]


def test_a_null_is_naturally_missing_and_an_empty_value_is_not(small: Path) -> None:
    test = Dataset(small).split("test")
    assert {m: p.tolist() for m, p in test.presence.items()} == {
        "image": [False, True, True],
        "text": [True, False, True],
    }
    natural = test.natural_cases(("image", "text"))
    assert natural is not None
    assert [case.name for case in natural] == ["missing-image", "missing-text", "complete"]
    assert [(s.image, s.text) for s in test] == [(None, "only text"), (b"only image", None), (b"", "")]
    assert Dataset(small).split("train").natural_cases(("image", "text")) is None
    with pytest.raises(DataError, match="sample 'a' has no image"):
        test.natural_cases(("image",))


def test_a_description_counts_classes_and_missing_modalities(small: Path) -> None:
    description = describe(Dataset(small))
    assert json.loads(json.dumps(description)) == description
    assert description["splits"]["test"] == {
        "samples": 3,
        "class_balance": {"no": 1, "yes": 2},
        "naturally_missing": {"image": {"samples": 1, "share": 1 / 3}, "text": {"samples": 1, "share": 1 / 3}},
        "complete": 1,
    }
    assert description["splits"]["train"]["complete"] == 3


def test_reading_in_any_order_across_row_groups(digits: Dataset) -> None:
    split = digits.split("train")
    backwards = split.read(np.arange(len(split))[::-1])
    assert backwards == list(split)[::-1]
    assert tuple(s.id for s in split) == split.ids
    assert tuple(s.label for s in split) == split.labels


def test_one_thread_at_a_time_reads_the_file(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of those that load ahead and those that decode a degraded sample."""
    split, table, reading, most = Dataset(small).split("train"), Split._table, list[int](), list[int]()

    def slow(self: Split, index: int) -> pa.Table:
        reading.append(index)
        time.sleep(0.05)
        most.append(len(reading))
        reading.pop()
        return table(self, index)

    monkeypatch.setattr(Split, "_table", slow)

    def read(position: int) -> str:
        split.release()
        return split.read([position])[0].id

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(read, range(3))) == ["t0", "t1", "t2"]
    assert max(most) == 1


def test_the_schema_names_the_features_for_datasets(small: Path) -> None:
    schema = pq.read_schema(small / "train-00000-of-00001.parquet")
    features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    assert list(features) == schema.names == ["id", "image", "text", "label"]
    assert features["image"] == {"_type": "Image"}
    assert features["label"] == {"names": ["no", "yes"], "_type": "ClassLabel"}
    multi = parquet_schema(("audio",), ("a", "b"), "multi-label")
    features = json.loads(multi.metadata[b"huggingface"])["info"]["features"]
    assert features["audio"] == {"_type": "Audio"}
    assert features["label"]["_type"] == "Sequence"
    assert multi.field("label").type == pa.list_(pa.int64())


def test_folders_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere: no such folder; make a data set with: mmrobust data prepare"):
        Dataset(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"holds no dataset\.json"):
        Dataset(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": "guess"}, "task 'guess' is none of single-label"),
        ({"headline_metric": "map"}, "metric 'map' does not fit single-label"),
        ({"modalities": ["image", "smell"]}, "smell is of kind 'smell', none of image, text, audio, features"),
        ({"modalities": []}, "has no modalities"),
        ({"modalities": ["image", "both"]}, "modality 'both': the word has a meaning of its own"),
        ({"modalities": ["image", "no-name"]}, "modality 'no-name': a name is a letter, then letters, digits and _"),
        ({"kinds": {"text": "features"}}, "must have the facts of every modality of kind features, and no others"),
        (
            {"kinds": {"text": "features"}, "features": {"text": {"steps": False, "mean": [0], "std": [1, 1]}}},
            "features need a mean and a standard deviation of each dimension",
        ),
        ({"classes": ["only"]}, "two or more classes"),
        ({"classes": ["a", "a"]}, "two or more classes"),
        ({"format_version": 99}, "format 99 is newer"),
        ({"colour": "red"}, "unknown key 'colour'"),
        ({"task": "binary", "headline_metric": "auroc", "classes": ["a", "b", "c"]}, "two classes, not 3"),
    ],
)
def test_a_description_that_contradicts_the_format(small: Path, change: dict[str, object], message: str) -> None:
    file = small / INFO_FILE
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(DataError, match=message) as raised:
        Dataset(small)
    assert str(file) in str(raised.value)


def test_a_description_that_is_incomplete_or_no_json(small: Path) -> None:
    file = small / INFO_FILE
    values = json.loads(file.read_text())
    del values["classes"]
    file.write_text(json.dumps(values))
    with pytest.raises(DataError, match="classes is missing"):
        DatasetInfo.read(small)
    file.write_text("[1]")
    with pytest.raises(DataError, match="a JSON object was expected"):
        DatasetInfo.read(small)
    file.write_text("{")
    with pytest.raises(DataError, match="cannot be read as the description of a data set"):
        DatasetInfo.read(small)


def test_an_unknown_split(small: Path) -> None:
    with pytest.raises(UsageError, match=r"'tset': did you mean 'test'\? Known: train, test"):
        Dataset(small).split("tset")


def test_files_that_do_not_agree_with_the_description(small: Path) -> None:
    train, test = (small / f"{split}-00000-of-00001.parquet" for split in ("train", "test"))
    whole = train.read_bytes()

    train.write_bytes(whole[:-20])
    with pytest.raises(DataError, match=r"train-00000-of-00001\.parquet: cannot be read as Parquet"):
        Dataset(small).split("train")

    pq.write_table(pq.read_table(test).slice(1), train)
    with pytest.raises(DataError, match=r"split 'train' has 2 rows, dataset\.json says 3"):
        Dataset(small).split("train")

    pq.write_table(pq.read_table(test).drop_columns("text"), train)
    with pytest.raises(DataError, match="no column 'text'"):
        Dataset(small).split("train")

    table = pq.read_table(test)
    column = table.schema.get_field_index("label")
    pq.write_table(table.set_column(column, "label", table["label"].cast(pa.string())), train)
    with pytest.raises(DataError, match="column 'label' is string, not int64"):
        Dataset(small).split("train")

    train.unlink()
    with pytest.raises(DataError, match="split 'train' has 0 rows"):
        Dataset(small).split("train")


def test_an_empty_split(small: Path) -> None:
    file = small / "train-00000-of-00001.parquet"
    pq.write_table(pq.read_table(file).slice(0, 0), file)
    description = json.loads((small / INFO_FILE).read_text())
    description["splits"]["train"] = 0
    (small / INFO_FILE).write_text(json.dumps(description))
    with pytest.raises(DataError, match="split 'train' is empty"):
        Dataset(small).split("train")


def test_a_copy_is_the_same_data_set(small: Path, tmp_path: Path) -> None:
    shutil.copytree(small, tmp_path / "copy")
    assert Dataset(tmp_path / "copy").info == Dataset(small).info


def test_modalities_of_a_model(digits: Dataset, small: Path) -> None:
    assert choose_modalities(digits.info, None) == ("image", "text")
    assert choose_modalities(digits.info, ("audio", "image")) == ("audio", "image")
    assert choose_modalities(Dataset(small).info, None) == ("image", "text")
    with pytest.raises(UsageError, match="unknown modality of small 'audio'"):
        choose_modalities(Dataset(small).info, ("image", "audio"))
    with pytest.raises(UsageError, match="names one twice"):
        choose_modalities(digits.info, ("image", "image"))
