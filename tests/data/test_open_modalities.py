"""Modalities of any name and kind: prepared, read back, degraded, evaluated."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import mmrobust
from mmrobust.cases import Case
from mmrobust.data.affected_split import apply_scenario
from mmrobust.data.dataset import Dataset
from mmrobust.data.decoded_split import DecodedSplit
from mmrobust.data.decoding import decode
from mmrobust.data.inspection import describe, verify
from mmrobust.data.prepare.digits import encode_picture
from mmrobust.data.prepare.manifest import prepare_manifest
from mmrobust.degradations import Noise
from mmrobust.errors import DataError, MmrobustError, UsageError
from mmrobust.preview import preview_samples, render_page

FURTHER = ("frame2=image:second", "imu=features:imu", "age=features:age", "caption=text:said")
NAMES = ("image", "frame2", "imu", "age", "caption")


def steps(number: int) -> npt.NDArray[np.float32]:
    """Readings [T, 4] of sample ``number``; samples have different lengths."""
    return (np.arange(4 * (3 + number % 3)).reshape(-1, 4) * (number + 1) % 7).astype(np.float32)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of 40 samples: two pictures, a path of readings, an age, a caption, and a column of no use."""
    folder = tmp_path_factory.mktemp("people")
    for i in range(40):
        for place in (1, 2):
            (folder / f"{i}-{place}.png").write_bytes(encode_picture(np.full((8, 8), 5 * i + place, dtype=np.uint8)))
        np.save(folder / f"{i}.npy", steps(i))
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "image", "second", "imu", "age", "said", "camera", "label", "split", "group"])
        for i in range(40):
            split = "test" if i >= 30 else "validation" if i >= 25 else "train"
            imu = "" if i == 31 else f"{i}.npy"
            row = [f"s{i:02d}", f"{i}-1.png", f"{i}-2.png", imu, 20 + i, f"caption {i}", "left", "ab"[i % 2], split]
            writer.writerow([*row, f"person-{i // 2}"])
    return folder / "manifest.csv"


@pytest.fixture(scope="module")
def people(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    said: list[str] = []
    folder = tmp_path_factory.mktemp("data") / "people"
    prepare_manifest(source, folder, modalities=FURTHER, remark=said.append)
    assert said[1:] == [f"{source}: camera is not used; --modality NAME=KIND:camera makes a modality of one"]
    return Dataset(folder)


def test_they_are_stored_and_read_back(people: Dataset) -> None:
    info = people.info
    assert info.modalities == NAMES
    assert info.kinds == dict(zip(NAMES, ("image", "image", "features", "features", "text"), strict=True))
    (sample,) = people.split("test").read([3])
    assert (sample.id, sample.group, sample.media["caption"]) == ("s33", "person-16", "caption 33")
    assert np.array_equal(decode(sample, "imu"), steps(33)) and decode(sample, "imu").dtype == np.float32
    assert decode(sample, "age").tolist() == [53.0]
    assert np.asarray(decode(sample, "frame2"))[0, 0, 0] == 5 * 33 + 2
    assert people.split("test").groups is not None and people.split("test").groups[:3] == ("person-15",) * 2 + (
        "person-16",
    )
    assert [bool(there) for there in people.split("test").presence["imu"][:3]] == [True, False, True]
    assert verify(people).faults == ()
    assert describe(people)["kinds"]["imu"] == "features"


def test_a_dry_run_shows_them(source: Path, cli: Callable[..., Any]) -> None:
    further = [word for text in FURTHER for word in ("--modality", text)]
    outcome = cli("data", "prepare", "manifest", "--source", source, "--dry-run", *further)
    assert outcome.code == 0, outcome.err
    lines = [line.strip() for line in outcome.out.splitlines()]
    assert lines[0].endswith("40 samples of image + frame2 + imu + age + caption")
    first = lines.index("sample 's00', train")
    assert lines[first + 2 : first + 7] == [
        *("image: 0-1.png, 8×8", "frame2: 0-2.png, 8×8", "imu: 3 × 4 (time × numbers)", "age: 1 numbers"),
        "caption: caption 0",
    ]


def test_features_are_standardised_by_the_training_split(people: Dataset) -> None:
    readings = np.concatenate([steps(i) for i in range(25)]).astype(np.float64)
    facts = people.info.features
    assert facts["imu"].steps and not facts["age"].steps
    assert facts["imu"].mean == pytest.approx(readings.mean(axis=0), abs=1e-12)
    assert facts["imu"].std == pytest.approx(readings.std(axis=0), abs=1e-12)
    ages = np.arange(20, 45)
    assert (facts["age"].mean[0], facts["age"].std[0]) == pytest.approx((ages.mean(), ages.std()))
    assert facts["imu"].standard.undo(facts["imu"].standard.of(steps(3))) == pytest.approx(steps(3), abs=1e-6)


def test_the_columns_are_those_of_the_format(people: Dataset) -> None:
    schema = pq.read_schema(people.folder / "test-00000-of-00001.parquet")
    assert schema.names == ["id", *NAMES, "group", "label"]
    assert schema.field("imu").type == pa.list_(pa.list_(pa.float32()))
    assert schema.field("age").type == pa.list_(pa.float32())
    features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    assert features["frame2"] == {"_type": "Image"} and features["caption"]["dtype"] == "string"


def test_datasets_opens_the_same_folder(people: Dataset) -> None:
    datasets = pytest.importorskip("datasets")
    row = datasets.load_dataset(str(people.folder), split="test")[3]
    assert (row["caption"], row["age"], row["group"]) == ("caption 33", [53.0], "person-16")
    assert np.array_equal(np.asarray(row["imu"], dtype=np.float32), steps(33))


def test_every_format_of_manifest_gives_the_same_features(tmp_path: Path) -> None:
    values = [[[0.5, 1.0], [2.0, -1.5]], [[3.0, 0.25]]]
    rows = [{"id": f"s{i}", "x": values[i], "n": i + 0.5, "label": "ab"[i]} for i in range(2)]
    (tmp_path / "m.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "m.parquet")
    infos = [
        prepare_manifest(tmp_path / f"m.{end}", tmp_path / end, modalities=["x=features:x", "n=features:n"], name="m")
        for end in ("jsonl", "parquet")
    ]
    assert infos[0].fingerprint == infos[1].fingerprint
    assert infos[0].features["x"].steps and infos[0].modalities == ("x", "n")


def test_a_degraded_modality_is_a_function_of_the_sample_alone(people: Dataset) -> None:
    split = people.split("test")
    decoded = DecodedSplit(split, NAMES, {}, Noise(seed=2))
    case = Case.parse("noisy-frame2:blur@4+noisy-imu:gap@3+noisy-age:gaussian@5+noisy-caption:gap@3", NAMES)
    media = {p: m for loaded in decoded.load([dict.fromkeys((0, 5), NAMES)]) for p, m in loaded.items()}
    first, again = (decoded.in_case(5, media[5], case) for _ in range(2))
    alone = DecodedSplit(people.split("test"), NAMES, {}, Noise(seed=2))
    (loaded,) = alone.load([{5: NAMES}])
    elsewhere = alone.in_case(5, loaded[5], case)
    for modality in ("imu", "age"):
        assert np.array_equal(first[modality], again[modality])
        assert np.array_equal(first[modality], elsewhere[modality])
        assert not np.array_equal(first[modality], media[5][modality])
    mean = np.asarray(people.info.features["imu"].mean, dtype=np.float32)
    lost = np.isclose(first["imu"], mean, atol=1e-5).all(axis=1)
    assert lost.sum() == round(len(lost) * 0.5) and np.array_equal(first["imu"][~lost], steps(35)[~lost])


def test_a_model_of_ones_own_meets_them_in_every_case(people: Dataset, tmp_path: Path) -> None:
    met: dict[str, set[Any]] = {"imu": set(), "caption": set()}

    def predict(samples: list[dict[str, Any]], case: str | None) -> list[list[float]]:
        for sample in samples:
            met["imu"].add(None if sample["imu"] is None else sample["imu"].shape[1])
            met["caption"].add(sample["caption"] is None)
        return [[0.0, float(sample["age"] is not None)] for sample in samples]

    model = mmrobust.Model(
        name="m", version="1", modalities=NAMES, classes=("a", "b"), task="single-label", predict=predict
    )
    frame = mmrobust.evaluate(
        model,
        people,
        scenarios=["missing-imu", "missing-caption", "noisy-imu:dimension-drop@2+noisy-caption:gap@1", "noisy-age"],
        rates=[0, 1],
        seeds=1,
        out=tmp_path / "out",
    )
    assert met == {"imu": {None, 4}, "caption": {False, True}}
    affected = frame[(frame["missing_rate"] == 1) & (frame["metric"] == "accuracy")].set_index("scenario")["n_affected"]
    assert affected.to_dict() == {
        "missing-imu": 9,  # one sample lacks it by nature
        "missing-caption": 10,
        "noisy-imu:dimension-drop@2+noisy-caption:gap@1": 10,
        "noisy-age": 10,
    }


def test_a_corruption_of_another_kind_is_refused_before_anything_runs(people: Dataset) -> None:
    def predict(samples: list[dict[str, Any]], case: str | None) -> list[list[float]]:
        raise AssertionError("nothing is predicted")

    model = mmrobust.Model(
        name="m", version="1", modalities=NAMES, classes=("a", "b"), task="single-label", predict=predict
    )
    for scenario, message in {
        "noisy-imu:blur@3": "unknown corruption of imu 'blur': Known: gaussian, gap, dimension-drop",
        "noisy-frame2:gap@3": "unknown corruption of frame2 'gap'",
        "noisy-frame3:blur@3": "unknown scenario for image and frame2 and imu and age and caption",
    }.items():
        with pytest.raises(UsageError, match=message):
            mmrobust.evaluate(model, people, scenarios=[scenario], rates=[1], seeds=1)


def test_the_preview_shows_them(people: Dataset) -> None:
    affected = apply_scenario(people, "test", "noisy-imu:gap@5+missing-frame2", 0.5, 0, NAMES)
    shown = preview_samples(affected, Noise(), 4)
    shown = [sample for sample in shown if sample.id != "s31"]  # it lacks imu by nature
    assert all(sample.before["imu"].picture and sample.before["age"].picture for sample in shown)
    assert shown[0].after["imu"].note.startswith("gap, severity 5; ")
    assert shown[0].after["imu"].picture != shown[0].before["imu"].picture
    assert "missing: the model gets" in shown[0].after["frame2"].note
    assert "caption" in render_page(affected, Noise(), shown)


@pytest.mark.parametrize(
    ("further", "message"),
    [
        ("frame2", "--modality frame2: give NAME=KIND:COLUMN, as in frame2=image:second_frame"),
        ("frame2=image", "--modality frame2=image: give NAME=KIND:COLUMN"),
        ("frame2=video:second", r"unknown kind of modality \(frame2\) 'video'"),
        ("both=image:second", "modality 'both': the word has a meaning of its own"),
        ("frame2=image:secnd", "unknown column 'secnd': did you mean 'second'.*, of modality 'frame2'"),
        ("frame2=image:imu", r"row 1 .*0\.npy: is not a picture"),
        ("imu=features:said", r"imu .*caption 0 cannot be read"),
        ("imu=features:second", r"imu .*0-2\.png: cannot be read as a \.npy file"),
    ],
)
def test_a_modality_that_cannot_be_had(source: Path, tmp_path: Path, further: str, message: str) -> None:
    with pytest.raises(MmrobustError, match=message):
        prepare_manifest(source, tmp_path / "out", modalities=[further])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([[1.0, 2.0], [1.0]], r"sample 's1': its x has shape \[1\], others have \[2\]"),
        ([[1.0], [[1.0]]], r"sample 's1': its x has shape \[1, 1\], others have \[1\]"),
        ([[1.0], ["a"]], "x: is no array of numbers"),
        ([[1.0], []], r"x: has shape \[0\], not \[D\], or \[T, D\] along time"),
        ([[1.0], [None]], "x: holds values that are missing, NaN or infinite"),
        ([[1.0], [1e300]], "x: holds values that are missing, NaN or infinite"),
        ([[[1.0, 2.0]], [[1.0, 2.0], [1.0]]], "x: is no array of numbers"),
    ],
)
def test_features_that_are_no_array(tmp_path: Path, values: list[Any], message: str) -> None:
    rows = [{"id": f"s{i}", "x": value, "label": "ab"[i]} for i, value in enumerate(values)]
    (tmp_path / "m.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    with pytest.raises(DataError, match=message):
        prepare_manifest(tmp_path / "m.jsonl", tmp_path / "out", modalities=["x=features:x"])


def test_labels_with_a_fraction_are_refused_with_what_to_type(tmp_path: Path, cli: Callable[..., Any]) -> None:
    file = tmp_path / "m.csv"
    file.write_text("id,text,label\na,x,0.5\nb,y,-0.027\nc,z,1\n")
    outcome = cli("data", "prepare", "manifest", "--source", file, "--out", tmp_path / "out")
    assert outcome.code == 2
    assert "the labels are decimal numbers: 0.5" in outcome.err and "--label-as-class" in outcome.err
    assert "give --task regression if they are to be predicted as numbers" in outcome.err
    command = ("data", "prepare", "manifest", "--source", file, "--out", tmp_path / "out")
    assert cli(*command, "--label-as-class").code == 0
    file.write_text("id,text,label\na,x,1.0\nb,y,2.0\n")  # whole numbers are classes
    assert cli("data", "prepare", "manifest", "--source", file, "--out", tmp_path / "whole").code == 0


def test_what_is_left_aside_is_named(digits: Dataset, cli: Callable[..., Any], tmp_path: Path) -> None:
    line = "digits has image, text, audio: only image and text used, audio left aside; --modalities chooses"
    assert line in cli("data", "missing-table", digits.folder, "--scenario", "missing-text", "--missing-rate", 1).err
    assert line in cli("plan", "--data", digits.folder, "--out", tmp_path / "plan").err
    chosen = ("--modalities", "image,text,audio")
    outcome = cli("data", "missing-table", digits.folder, "--scenario", "missing-text", "--missing-rate", 1, *chosen)
    assert outcome.code == 0 and "left aside" not in outcome.err
    trained = cli(
        *("train", "--data", digits.folder, "--backbone", "tiny", "--method", "none", "--epochs", 1),
        *("--out", tmp_path / "run"),
    )
    assert trained.code == 0 and line in trained.err
