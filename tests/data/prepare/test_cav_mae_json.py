from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmrobust.data import Dataset
from mmrobust.data.prepare.cav_mae_json import prepare_cav_mae_json
from mmrobust.errors import DataError, UsageError

Pictures = list[Any]
WriteJson = Callable[[Path, Any], Path]

LABELS = 'index,mid,display_name\n0,/m/09x0r,Speech\n1,/m/05zppz,"Male speech, man speaking"\n2,/m/0bt9lr,Dog\n'


@pytest.fixture
def source(emoji: Pictures, recordings: list[Path], tmp_path: Path) -> Path:
    """Six recordings and pictures, and the label CSV."""
    root = tmp_path / "lists"
    (root / "audio").mkdir(parents=True)
    for i in range(6):
        (root / "audio" / f"{i}.wav").write_bytes(recordings[i].read_bytes())
        (root / f"{i}.jpg").write_bytes(emoji[i].jpeg)
    (root / "class_labels_indices.csv").write_text(LABELS)
    return root


def entry(i: int, labels: str, **changes: Any) -> dict[str, Any]:
    return {"id": f"s{i}", "wav": f"audio/{i}.wav", "img_path": f"{i}.jpg", "labels": labels} | changes


def test_lists_of_prompt_the_missing(source: Path, emoji: Pictures, tmp_path: Path, write_json: WriteJson) -> None:
    write_json(source / "train_relative.json", {"data": [entry(0, "Dog"), entry(1, "Male speech, man speaking")]})
    write_json(source / "test_relative.json", {"data": [entry(2, "/m/09x0r")]})
    info = prepare_cav_mae_json(source, tmp_path / "out", name="mine", licence="CC0")
    assert (info.name, info.licence, info.modalities) == ("mine", "CC0", ("audio", "image"))
    assert (info.task, info.headline_metric) == ("single-label", "accuracy")
    assert info.classes == ("Speech", "Male speech, man speaking", "Dog")
    assert info.splits == {"train": 2, "test": 1}
    assert sorted(info.files) == ["test_relative.json", "train_relative.json"]
    first, second = Dataset(tmp_path / "out").split("train")
    assert (first.id, first.label, second.label) == ("s0", (2,), (1,))
    assert first.image == emoji[0].jpeg


def test_lists_of_cav_mae_with_several_labels_and_frames(source: Path, tmp_path: Path, write_json: WriteJson) -> None:
    for frame in (0, 3):  # of the ten, as where a video is short
        (source / "frames" / f"frame_{frame}").mkdir(parents=True)
        (source / "frames" / f"frame_{frame}" / "v.jpg").write_bytes((source / f"{frame}.jpg").read_bytes())
    data = [
        {"video_id": "v", "wav": "audio/0.wav", "video_path": "frames/", "labels": "/m/0bt9lr,/m/09x0r"},
        {"video_id": "w", "wav": "audio/1.wav", "labels": "/m/0bt9lr"},
    ]
    write_json(source / "eval.json", {"data": data})
    info = prepare_cav_mae_json(source / "eval.json", tmp_path / "out")
    assert (info.task, info.splits) == ("multi-label", {"test": 2})
    first, second = Dataset(tmp_path / "out").split("test")
    assert (first.id, first.label) == ("v", (0, 2))
    assert first.image == (source / "3.jpg").read_bytes()  # the last frame up to the middle one
    assert second.image is None  # missing by nature


def test_paths_of_another_machine(source: Path, tmp_path: Path, write_json: WriteJson) -> None:
    far = entry(0, "Dog", wav="/data/sls/lists/audio/0.wav", img_path="/data/elsewhere/0.jpg")
    write_json(tmp_path / "apart" / "train.json", {"data": [far]})
    with pytest.raises(DataError, match=r"train\.json, entry 1: audio /data/sls/lists/audio/0\.wav cannot be read"):
        prepare_cav_mae_json(tmp_path / "apart" / "train.json", tmp_path / "out", label_csv=source / LABELS_FILE)
    info = prepare_cav_mae_json(tmp_path / "apart", tmp_path / "out", label_csv=source / LABELS_FILE, media_root=source)
    assert info.splits == {"train": 1}


LABELS_FILE = "class_labels_indices.csv"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, r"no list in CAV-MAE's JSON whose name tells its split \(train\.json, test\.json\)"),
        ({"mine.json": {"data": []}}, "no list in CAV-MAE's JSON whose name tells its split"),
        ({"train.json": [1]}, r"train\.json: is not the list of recordings and pictures"),
        ({"train.json": {"date": []}}, r"train\.json: has no list 'data'"),
        ({"train.json": {"data": [1]}}, r"train\.json, entry 1: is not an object with 'labels'"),
        ({"train.json": {"data": [entry(0, "Dgo")]}}, r"entry 1: unknown label 'Dgo': did you mean 'Dog'\?"),
        ({"train.json": {"data": []}}, "no sample was found"),
        (
            {"train.json": {"data": []}, "train_relative.json": {"data": []}},
            r"train\.json and train_relative\.json both name the split train; move one of them away",
        ),
        ({"train.json": {"data": [entry(0, "Dog", wav="audio/9.wav")]}}, r"entry 1: audio .*9\.wav cannot be read"),
        ({"train.json": {"data": [entry(0, "Dog", id="")]}}, "sample id '' is empty"),
        ({"train.json": {"data": [entry(0, "Dog", wav=["a.wav"])]}}, r"entry 1: 'wav' is \['a\.wav'\], not a path"),
        ({"train.json": {"data": [entry(0, "Dog", video_path=3)]}}, "entry 1: 'video_path' is 3, not a path"),
        ({"train.json": {"data": [entry(0, "Dog", wav="/" + 300 * "x")]}}, r"entry 1: audio .*xxx cannot be read"),
    ],
)
def test_lists_that_do_not_fit(
    source: Path, tmp_path: Path, write_json: WriteJson, files: dict[str, Any], message: str
) -> None:
    for name, value in files.items():
        write_json(source / name, value)
    with pytest.raises(DataError, match=message) as raised:
        prepare_cav_mae_json(source, tmp_path / "out")
    assert "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == [source]


def test_a_label_csv_that_does_not_fit(source: Path, tmp_path: Path, write_json: WriteJson) -> None:
    write_json(source / "train.json", {"data": [entry(0, "Dog")]})
    file = source / LABELS_FILE
    for text, message in (
        ("index,mid,display_name\n0,/m/1,Dog\n2,/m/2,Cat\n", "not numbered from 0 to 1"),
        ("index,mid,display_name\nx,/m/1,Dog\n", "index 'x' is not a whole number"),
        ("number,mid\n0,/m/1\n", "holds no CSV with the columns index, mid, display_name; name it with --label-csv"),
    ):
        file.write_text(text)
        with pytest.raises(DataError, match=message):
            prepare_cav_mae_json(source, tmp_path / "out")
    file.write_text(LABELS)
    (source / "more.csv").write_text(LABELS)
    with pytest.raises(DataError, match=r"class_labels_indices\.csv and more\.csv are both CSVs with the columns"):
        prepare_cav_mae_json(source, tmp_path / "out")


def test_settings_that_do_not_fit(source: Path, tmp_path: Path, write_json: WriteJson) -> None:
    write_json(source / "train.json", {"data": [entry(0, "Dog")]})
    with pytest.raises(UsageError, match=r"unknown task 'single': did you mean 'single-label'"):
        prepare_cav_mae_json(source, tmp_path / "out", task="single")
    with pytest.raises(UsageError, match="unknown metric of the task multi-label 'accuracy'"):
        prepare_cav_mae_json(source, tmp_path / "out", task="multi-label", headline_metric="accuracy")
