"""UrbanSound8K-AV and CIFAR10-AV, as their folders lie and by Prompt the Missing's lists."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmrobust.data import Dataset
from mmrobust.data.prepare.cifar10_av import DESCRIPTION as CIFAR
from mmrobust.data.prepare.cifar10_av import prepare_cifar10_av
from mmrobust.data.prepare.urbansound8k_av import DESCRIPTION as URBAN
from mmrobust.data.prepare.urbansound8k_av import freesound_recording, prepare_urbansound8k_av
from mmrobust.errors import DataError

Pictures = list[Any]
WriteJson = Callable[[Path, Any], Path]


@pytest.fixture
def urban(emoji: Pictures, recordings: list[Path], tmp_path: Path) -> Path:
    """Ten cuts of each class, of eight Freesound recordings, in the release's folders."""
    root = tmp_path / "UrbanSound8K-AV"
    for number, label in enumerate(URBAN.classes):
        sounds, pictures = root / "Dataset_v3_sound" / label, root / "Dataset_v3_vision" / label
        sounds.mkdir(parents=True)
        pictures.mkdir(parents=True)
        for cut in range(10):
            name = f"{1000 * number + max(cut - 2, 0)}-{number}-0-{cut}"  # the first three of one recording
            (sounds / f"{name}.wav").write_bytes(recordings[10 * number + cut].read_bytes())
            (pictures / f"{name}.jpg").write_bytes(emoji[cut].jpeg)
    (root / "Dataset_v3_sound" / "siren" / ".DS_Store").write_bytes(b"?")
    (root / "__MACOSX" / "siren").mkdir(parents=True)
    (root / "__MACOSX" / "siren" / "x.wav").write_bytes(b"?")
    return root


def test_urbansound8k_av(urban: Path, emoji: Pictures, recordings: list[Path], tmp_path: Path) -> None:
    info = prepare_urbansound8k_av(urban, tmp_path / "out")
    assert (info.name, info.modalities, info.task) == ("urbansound8k-av", ("audio", "image"), "single-label")
    assert info.classes == URBAN.classes
    assert sum(info.splits.values()) == 100
    assert f"100 samples in all, the release of urbansound8k-av has {URBAN.size:,}" in info.notes
    samples = {s.id: (name, s) for name in info.splits for s in Dataset(tmp_path / "out").split(name)}
    split, sample = samples["siren/8003-8-0-5"]
    assert sample.label == (URBAN.classes.index("siren"),)
    assert sample.audio == recordings[85].read_bytes()
    assert sample.image == emoji[5].jpeg
    # Cuts of one Freesound recording are never on both sides.
    for sample_id, (split, _) in samples.items():
        label, recording = sample_id.partition("/")[0], freesound_recording(sample_id)
        assert {s for i, (s, _) in samples.items() if i.startswith(f"{label}/{recording}-")} == {split}
    for name, share in (("train", 63), ("validation", 7), ("test", 30)):
        assert abs(info.splits[name] - share) <= 5
    assert prepare_urbansound8k_av(urban.parent, tmp_path / "again").fingerprint == info.fingerprint


def test_a_few_samples_are_of_every_class(urban: Path, tmp_path: Path) -> None:
    remarks: list[str] = []
    info = prepare_urbansound8k_av(urban, tmp_path / "out", limit=20, remark=remarks.append)
    assert info.splits["train"] == info.splits["test"] == 20
    for split in ("train", "test"):
        assert {sample.label[0] for sample in Dataset(tmp_path / "out").split(split)} == set(range(10))
    assert not any("classes" in remark for remark in remarks)


@pytest.fixture
def cifar(emoji: Pictures, recordings: list[Path], tmp_path: Path) -> Path:
    """Two pairs of each class and split, in a release's processed form."""
    root = tmp_path / "cifar10-av"
    for number, label in enumerate(CIFAR.classes):
        for split in ("train", "test"):
            for kind in ("audio", "visual"):
                (root / split / kind / label).mkdir(parents=True)
            for pair in range(2):
                sound = recordings[20 * number + pair].read_bytes()
                (root / split / "audio" / label / f"{pair:04d}.wav").write_bytes(sound)
                (root / split / "visual" / label / f"{pair:04d}.png").write_bytes(emoji[number].png)
    return root


def test_cifar10_av_with_splits_by_folder(cifar: Path, tmp_path: Path) -> None:
    info = prepare_cifar10_av(cifar, tmp_path / "out")
    assert (info.name, info.classes, info.splits) == ("cifar10-av", CIFAR.classes, {"train": 20, "test": 20})
    assert info.notes[1:] == ("40 pictures are transparent in places, and laid on white",)
    assert next(iter(Dataset(tmp_path / "out").split("test"))).id == "test/airplane/0000"


def test_a_tenth_of_each_class_is_for_validation_where_no_folder_is(cifar: Path, tmp_path: Path) -> None:
    said: list[str] = []
    prepare_cifar10_av(cifar, tmp_path / "few", remark=said.append)
    assert said[-1].startswith("no sample is in the validation split, which training needs")
    for file in [*cifar.glob("train/*/dog/0000.*")]:
        for number in range(2, 10):
            (file.parent / f"{number:04d}{file.suffix}").write_bytes(file.read_bytes())
    info = prepare_cifar10_av(cifar, tmp_path / "out", remark=said.append)
    assert info.splits == {"train": 27, "validation": 1, "test": 20}
    assert info.notes[0] == "no folder names a validation split: a tenth of each class of train goes there, by a hash"


def test_names_that_differ_are_paired_in_order_and_that_is_said(cifar: Path, tmp_path: Path) -> None:
    folder = cifar / "train" / "visual" / "dog"
    for picture in sorted(folder.iterdir()):
        picture.rename(folder / f"dog_{picture.name}")
    info = prepare_cifar10_av(cifar, tmp_path / "out")
    assert info.splits == {"train": 20, "test": 20}
    assert info.notes[0] == "recordings and pictures bear different names: paired by class, in the order of their names"


def test_a_recording_without_its_picture(cifar: Path, tmp_path: Path) -> None:
    (cifar / "train" / "visual" / "dog" / "0001.png").unlink()
    (cifar / "test" / "audio" / "cat" / "0000.wav").unlink()
    with pytest.raises(DataError, match=r"2 samples cannot be used: .*0000\.png: no recording .*0001\.wav: no picture"):
        prepare_cifar10_av(cifar, tmp_path / "out")
    info = prepare_cifar10_av(cifar, tmp_path / "out", allow_incomplete=True)
    assert info.left_out == {"no recording": 1, "no picture": 1}
    assert info.splits == {"train": 19, "test": 19}


def test_what_is_no_release(cifar: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: no such folder"):
        prepare_cifar10_av(tmp_path / "nowhere", tmp_path / "out")
    with pytest.raises(DataError, match=r"no recordings in folders named after the classes \(air_conditioner"):
        prepare_urbansound8k_av(cifar, tmp_path / "out")
    (cifar / "more" / "dog").mkdir(parents=True)
    stray = cifar / "more" / "dog" / "0009.wav"
    stray.write_bytes((cifar / "train" / "audio" / "dog" / "0000.wav").read_bytes())
    with pytest.raises(DataError, match=r"0009\.wav: lies in no split's folder, but others do"):
        prepare_cifar10_av(cifar, tmp_path / "out")
    stray.rename(cifar / "train" / "audio" / "dog" / "0000.flac")
    with pytest.raises(DataError, match=r"0000\.wav and .*0000\.flac would be the same sample"):
        prepare_cifar10_av(cifar, tmp_path / "out")
    for picture in cifar.rglob("*.png"):
        picture.unlink()
    (cifar / "train" / "audio" / "dog" / "0000.flac").unlink()
    with pytest.raises(DataError, match="no pictures in folders named after the classes"):
        prepare_cifar10_av(cifar, tmp_path / "out")


def test_the_lists_of_prompt_the_missing_are_used_where_they_are(
    urban: Path, tmp_path: Path, write_json: WriteJson
) -> None:
    rows = "\n".join(f"{i},/m/{i},{name}" for i, name in enumerate(URBAN.classes))
    (urban / "class_labels_indices_urban.csv").write_text(f"index,mid,display_name\n{rows}\n")
    for split, cut in (("train", 0), ("test", 1)):
        entries = [
            {
                "id": f"{1000 * i}-{i}-0-{cut}",
                "wav": f"/home/somebody/data/Dataset_v3_sound/{label}/{1000 * i}-{i}-0-{cut}.wav",
                "img_path": f"/home/somebody/data/Dataset_v3_vision/{label}/{1000 * i}-{i}-0-{cut}.jpg",
                "labels": label,
            }
            for i, label in enumerate(URBAN.classes)
        ]
        write_json(urban / f"{split}.json", {"data": entries})
    info = prepare_urbansound8k_av(urban, tmp_path / "out")
    assert (info.name, info.splits, info.classes) == ("urbansound8k-av", {"train": 10, "test": 10}, URBAN.classes)
    assert "CC BY-NC" in info.licence
    assert prepare_urbansound8k_av(urban / "test.json", tmp_path / "one").splits == {"test": 10}
