from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mmrobust.data.dataset import Dataset
from mmrobust.data.decoding import decode_audio, decode_image
from mmrobust.data.prepare.av_digits import IMAGES_FILE, LABELS_FILE, PAIRS_FILE, prepare_av_digits, read_idx
from mmrobust.errors import DataError


@pytest.fixture
def source(shared: Path, tmp_path: Path) -> Path:
    """The first twelve pairs of the real data, to damage."""
    folder = tmp_path / "source"
    (folder / "recordings").mkdir(parents=True)
    lines = (shared / "data" / "av-digits" / PAIRS_FILE).read_text().splitlines()[:13]
    (folder / PAIRS_FILE).write_text("\n".join(lines) + "\n")
    for file in (IMAGES_FILE, LABELS_FILE):
        shutil.copyfile(shared / "data" / "av-digits" / file, folder / file)
    for line in lines[1:]:
        recording = line.split(",")[1]
        shutil.copyfile(shared / "data" / "av-digits" / recording, folder / recording)
    return folder


def test_the_whole_data_set(shared: Path, tmp_path: Path) -> None:
    ticks = []
    info = prepare_av_digits(shared / "data" / "av-digits", tmp_path / "out")
    assert (info.name, info.modalities, info.task) == ("av-digits", ("audio", "image"), "single-label")
    assert info.splits == {"train": 2400, "validation": 300, "test": 300}
    assert "CC BY-SA 4.0" in info.licence
    images = read_idx(shared / "data" / "av-digits" / IMAGES_FILE, dimensions=3)
    test = Dataset(tmp_path / "out").split("test")
    assert test.natural_cases(("audio", "image")) is None
    pairs = {
        line.split(",")[0]: line.split(",")
        for line in (shared / "data" / "av-digits" / PAIRS_FILE).read_text().splitlines()
    }
    for sample in test:
        _, recording, index, label, split = pairs[sample.id]
        assert (sample.label, split) == ((int(label),), "test")
        assert sample.audio == (shared / "data" / "av-digits" / recording).read_bytes()
        picture = np.asarray(decode_image(sample.image or b"", sample.id))
        assert np.array_equal(picture[:, :, 0], images[int(index)])
        ticks.append(decode_audio(sample.audio, sample.id)[1])
    assert set(ticks) == {8000}


def test_a_limit_is_per_split_and_progress_is_told(source: Path, tmp_path: Path) -> None:
    info = prepare_av_digits(source, tmp_path / "out", limit=2)
    assert info.splits == {"train": 2, "test": 2}


def change_pairs(old: str, new: str) -> Callable[[Path], None]:
    def damage(source: Path) -> None:
        file = source / PAIRS_FILE
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new, 1))

    return damage


def wrong_images(source: Path) -> None:
    (source / IMAGES_FILE).write_bytes((source / LABELS_FILE).read_bytes())


def fewer_images(source: Path) -> None:
    content = gzip.decompress((source / IMAGES_FILE).read_bytes())
    (source / IMAGES_FILE).write_bytes(gzip.compress(content[:-784]))


def fewer_labels(source: Path) -> None:
    labels = gzip.decompress((source / LABELS_FILE).read_bytes())
    header = labels[:4] + (9999).to_bytes(4, "big")
    (source / LABELS_FILE).write_bytes(gzip.compress(header + labels[8:-1]))


def cut_images(source: Path) -> None:
    (source / IMAGES_FILE).write_bytes((source / IMAGES_FILE).read_bytes()[:1000])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda s: (s / PAIRS_FILE).unlink(), r"pairs\.csv: no such file; --source names the folder"),
        (lambda s: (s / IMAGES_FILE).unlink(), r"t10k-images-idx3-ubyte\.gz: no such file"),
        (lambda s: (s / "recordings/0_george_1.wav").unlink(), r"row 2 \('0_george_1'\): audio .*0_george_1\.wav"),
        (lambda s: (s / "recordings/0_george_1.wav").write_bytes(b"RIFF"), r"0_george_1\.wav: the recording cannot"),
        (lambda s: (s / LABELS_FILE).write_bytes(b"no gzip"), "cannot be unpacked"),
        (cut_images, "cannot be unpacked"),
        (wrong_images, "is not an idx file of unsigned bytes in 3 dimensions"),
        (fewer_images, "its header promises 10000×28×28"),
        (fewer_labels, "has 10000 pictures, .* 9999 labels"),
        (change_pairs("mnist_index", "index"), "no column 'mnist_index'"),
        (change_pairs("6818,0,test", "6818,1,test"), r"row 1 \('0_george_0'\): label 1, but .* picture 6818 is 0"),
        (change_pairs("6818,0,test", "99999,0,test"), "mnist_index 99999 is outside the 10000 pictures"),
        (change_pairs("6818,0,test", "six,0,test"), "mnist_index 'six' is not a whole number"),
        (change_pairs("6818,0,test", "6818,0,tst"), "row 1 .*: split 'tst' is not one of train"),
        (change_pairs(",0,test", ""), "row 1 .*: has 3 fields"),
        (change_pairs("\n0_george_1,", "\n0_george_0,"), "id '0_george_0' is used twice"),
    ],
)
def test_a_damaged_source_is_named_and_nothing_is_written(
    source: Path, tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    damage(source)
    with pytest.raises(DataError, match=message) as raised:
        prepare_av_digits(source, tmp_path / "out")
    assert "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == [source]


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: no such folder"):
        prepare_av_digits(tmp_path / "nowhere", tmp_path / "out")


def test_an_idx_file_that_unpacks_without_end(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "bomb.gz", "wb", compresslevel=1) as file:
        for _ in range(2**8 + 1):
            file.write(bytes(2**20))
    with pytest.raises(DataError, match=r"bomb\.gz: holds more than 268,435,456 bytes, more than any part of MNIST"):
        read_idx(tmp_path / "bomb.gz", dimensions=3)
