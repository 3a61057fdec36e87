from __future__ import annotations

import gzip
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest

from mmrobust.data import Dataset
from mmrobust.data.decoding import decode_image
from mmrobust.data.prepare.av_digits import read_idx
from mmrobust.data.prepare.av_mnist import prepare_av_mnist
from mmrobust.errors import DataError


@pytest.fixture
def source(shared: Path, recordings: list[Path], tmp_path: Path) -> Path:
    """MNIST's test files, and george's recordings 0 to 19 of each digit."""
    root = tmp_path / "av-mnist"
    (root / "recordings").mkdir(parents=True)
    for name in ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"):
        shutil.copyfile(shared / "data" / "av-digits" / name, root / name)
    for file in recordings:
        _, speaker, number = file.stem.split("_")
        if speaker == "george" and int(number) < 20:
            shutil.copyfile(file, root / "recordings" / file.name)
    return root


def mnist_part(root: Path, part: str, numbers: slice) -> None:
    """A part of MNIST's test set under the name of its training set, unpacked, as some mirrors have it."""
    for kind, dimensions in (("images", 3), ("labels", 1)):
        values = read_idx(root / f"t10k-{kind}-idx{dimensions}-ubyte.gz", dimensions)[numbers]
        header = bytes((0, 0, 8, dimensions)) + struct.pack(f">{dimensions}I", *values.shape)
        (root / f"{part}-{kind}.idx{dimensions}-ubyte").write_bytes(header + values.tobytes())


def test_the_recipe(source: Path, tmp_path: Path) -> None:
    info = prepare_av_mnist(source, tmp_path / "out")
    assert (info.name, info.modalities, info.task) == ("av-mnist", ("audio", "image"), "single-label")
    assert info.splits == {
        "train": 135,
        "validation": 15,
        "test": 50,
    }  # recordings 0 to 4 are test, a tenth of the rest
    images = {image.tobytes(): i for i, image in enumerate(read_idx(source / "t10k-images-idx3-ubyte.gz", 3))}
    labels = read_idx(source / "t10k-labels-idx1-ubyte.gz", 1)
    seen = set()
    for split in info.splits:
        for sample in Dataset(tmp_path / "out").split(split):
            digit, speaker, number = sample.id.split("_")
            assert (sample.label, speaker) == ((int(digit),), "george")
            assert (split == "test") == (int(number) < 5)
            assert sample.audio == (source / "recordings" / f"{sample.id}.wav").read_bytes()
            picture = np.asarray(decode_image(sample.image or b"", sample.id))[:, :, 0]
            index = images[picture.tobytes()]
            assert labels[index] == int(digit)
            seen.add(index)
    assert len(seen) == 200  # no picture is used twice
    assert prepare_av_mnist(source, tmp_path / "again").fingerprint == info.fingerprint


def test_pictures_of_mnist_s_training_set_are_for_training(source: Path, tmp_path: Path) -> None:
    mnist_part(source, "train", slice(0, 3000))
    prepare_av_mnist(source, tmp_path / "out")
    dataset = Dataset(tmp_path / "out")
    assert set(dataset.splits) == {"train", "validation", "test"}
    train = read_idx(source / "train-images.idx3-ubyte", 3)
    for sample in list(dataset.split("train"))[:20]:
        picture = np.asarray(decode_image(sample.image or b"", sample.id))[:, :, 0]
        assert (train == picture).all(axis=(1, 2)).any()


def test_more_recordings_than_pictures(source: Path, tmp_path: Path) -> None:
    mnist_part(source, "train", slice(0, 100))
    info = prepare_av_mnist(source, tmp_path / "out")
    assert sum(info.left_out.values()) + info.splits["train"] + info.splits["validation"] == 150
    assert list(info.left_out) == ["no picture of MNIST left for the recording"]


def test_what_is_no_source(source: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: no such folder"):
        prepare_av_mnist(tmp_path / "nowhere", tmp_path / "out")
    (source / "more").mkdir()
    shutil.copyfile(source / "recordings" / "0_george_0.wav", source / "more" / "0_george_0.wav")
    with pytest.raises(DataError, match=r"0_george_0\.wav would be the same sample"):
        prepare_av_mnist(source, tmp_path / "out")
    shutil.rmtree(source / "more")
    (source / "recordings" / "0_george_0.wav").write_bytes(b"RIFF")
    with pytest.raises(DataError, match=r"0_george_0\.wav: the recording cannot be read"):
        prepare_av_mnist(source, tmp_path / "out")
    content = gzip.decompress((source / "t10k-labels-idx1-ubyte.gz").read_bytes())
    (source / "t10k-labels-idx1-ubyte").write_bytes(content[:4] + (9999).to_bytes(4, "big") + content[8:-1])
    (source / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match="t10k has 10000 pictures and 9999 labels"):
        prepare_av_mnist(source, tmp_path / "out")
    (source / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match=r"holds no t10k-images-idx3-ubyte\.gz with its labels"):
        prepare_av_mnist(source, tmp_path / "out")


def test_spectrograms_are_refused(shared: Path, tmp_path: Path) -> None:
    root = tmp_path / "avmnist"
    for kind, shape in (("image", (2, 784)), ("audio", (2, 112, 112))):
        (root / kind).mkdir(parents=True)
        np.save(root / kind / "train_data.npy", np.zeros(shape))
    with pytest.raises(DataError, match=r"is the AV-MNIST of spectrograms .* give MNIST's idx files and recordings"):
        prepare_av_mnist(root, tmp_path / "out")
    shutil.copyfile(shared / "data" / "av-digits" / "t10k-images-idx3-ubyte.gz", root / "t10k-images-idx3-ubyte.gz")
    shutil.copyfile(shared / "data" / "av-digits" / "t10k-labels-idx1-ubyte.gz", root / "t10k-labels-idx1-ubyte.gz")
    shutil.rmtree(root / "audio")
    with pytest.raises(DataError, match=r"holds no recordings named \{digit\}_\{speaker\}_\{number\}\.wav"):
        prepare_av_mnist(root, tmp_path / "out")
