"""The data set ``av-mnist``: spoken digits, each with a handwritten digit of the same class (as SMIL, Ma et al., 2021).

Where to get it: MNIST's idx files (``train-images-idx3-ubyte.gz`` …, of any mirror), and the recordings of the Free
Spoken Digit Dataset (https://github.com/Jakobovski/free-spoken-digit-dataset) or of AudioMNIST
(https://github.com/soerenab/AudioMNIST). Terms: MNIST CC BY-SA 3.0 (LeCun, Cortes, Burges); Free Spoken Digit Dataset
CC BY-SA 4.0; AudioMNIST MIT. The source is a folder with, at any depth::

    train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz      gzipped or not
    t10k-images-idx3-ubyte.gz, t10k-labels-idx1-ubyte.gz
    recordings/0_george_0.wav …                                 {digit}_{speaker}_{number}.wav

There is no official list of pairs, nor an official size. As in the Free Spoken Digit Dataset, recordings numbered 0 to
4 are the test split; a tenth of the others is for validation. Test recordings are paired with pictures of MNIST's test
set, the others with pictures of its training set (where only the test set is available, with the rest of that). Within
a class, recordings and pictures are paired in the order of a hash, so that the pairs are the same everywhere; no
picture is used twice. The data set holds the WAVs byte for byte, and the pictures as BMP.

The AV-MNIST of Vielzeuf et al. and MultiBench (``image/train_data.npy``, ``audio/train_data.npy``) has spectrograms in
place of recordings. No backbone here takes them, so it is refused.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mmrobust.data.prepare.av_digits import read_idx
from mmrobust.data.prepare.digits import encode_picture
from mmrobust.data.prepare.preparer import Description, Intake, Listing, preparer
from mmrobust.data.prepare.source_files import SkipSample, check_folder, read_media
from mmrobust.data.writing import SampleRow
from mmrobust.errors import DataError

DESCRIPTION = Description(
    name="av-mnist",
    modalities=("audio", "image"),
    classes=tuple("0123456789"),
    licence="images: MNIST, CC BY-SA 3.0; audio: Free Spoken Digit Dataset, CC BY-SA 4.0, or AudioMNIST, MIT",
    source="MNIST and recordings of spoken digits, paired by class",
)
TEST_RECORDINGS = range(5)
"""Numbers, within a speaker and digit, of the recordings for test."""

_RECORDING = re.compile(r"(\d)_(\w+)_(\d+)\.wav")
_IDX = re.compile(r"(train|t10k)-(images|labels)[-.]idx[13]-ubyte(\.gz)?")

Picture = tuple[str, int]
"""The part of MNIST that a picture is in, and its number there."""


@preparer(source="the folder with MNIST's idx files and recordings of spoken digits")
def prepare_av_mnist(source: Path, intake: Intake) -> Listing:
    """List the recordings below the folder ``source``, each paired with a picture of MNIST."""
    idx, recordings = _find(source)
    images = {part: read_idx(files["images"], dimensions=3) for part, files in idx.items()}
    labels = {part: read_idx(files["labels"], dimensions=1) for part, files in idx.items()}
    for part in idx:
        if len(images[part]) != len(labels[part]):
            raise DataError(f"{source}: {part} has {len(images[part])} pictures and {len(labels[part])} labels")
    splits = _split(recordings)
    pictures = _pair(recordings, splits, labels)

    def read(split: str, name: str) -> Iterator[SampleRow]:
        if name not in pictures:
            raise SkipSample("no picture of MNIST left for the recording")
        part, number = pictures[name]
        yield SampleRow(
            split=split,
            id=name,
            label=(int(name[0]),),
            audio=read_media("audio", recordings[name]),
            audio_path=recordings[name].name,
            image=encode_picture(images[part][number]),
            image_path=f"{part}-{number:05d}.bmp",
        )

    samples = ((splits[name], name) for name in sorted(recordings))
    return Listing(DESCRIPTION, read, samples, len(recordings), by_class=True)


def _find(source: Path) -> tuple[dict[str, dict[str, Path]], dict[str, Path]]:
    """Find MNIST's idx files (part of MNIST → kind → file) and the recordings (name → file)."""
    check_folder(source, "the folder with MNIST's files and the recordings")
    idx: defaultdict[str, dict[str, Path]] = defaultdict(dict)
    recordings: dict[str, Path] = {}
    for folder, inner, names in os.walk(source):
        inner.sort()
        for name in sorted(names):
            file = Path(folder, name)
            if matched := _IDX.fullmatch(name):
                idx[matched[1]].setdefault(matched[2], file)
            elif _RECORDING.fullmatch(name) and recordings.setdefault(file.stem, file) != file:
                raise DataError(f"{file} and {recordings[file.stem]} would be the same sample; move one of them away")
    whole = {part: files for part, files in idx.items() if len(files) == 2}
    if not recordings and (source / "audio" / "train_data.npy").is_file():
        raise DataError(
            f"{source}: is the AV-MNIST of spectrograms (audio/train_data.npy), which no backbone here takes; "
            "give MNIST's idx files and recordings, such as those of the Free Spoken Digit Dataset"
        )
    if not whole:
        raise DataError(f"{source}: holds no t10k-images-idx3-ubyte.gz with its labels, nor MNIST's training files")
    if not recordings:
        raise DataError(f"{source}: holds no recordings named {{digit}}_{{speaker}}_{{number}}.wav")
    return whole, recordings


def _split(recordings: dict[str, Path]) -> dict[str, str]:
    """Assign each recording its split."""
    test = {name for name in recordings if int(name.rpartition("_")[2]) in TEST_RECORDINGS}
    others = sorted(recordings.keys() - test, key=_hash)
    validation = set(others[: len(others) // 10])
    return {name: "test" if name in test else "validation" if name in validation else "train" for name in recordings}


def _pair(
    recordings: dict[str, Path], splits: dict[str, str], labels: dict[str, npt.NDArray[np.uint8]]
) -> dict[str, Picture]:
    """Pair recordings with pictures of the same digit, each used once, as long as there are pictures."""
    pairs: dict[str, Picture] = {}
    for digit in range(10):
        pools = {
            part: sorted(
                ((part, int(number)) for number in np.flatnonzero(numbers == digit)),
                key=lambda picture: _hash(f"{picture[0]}/{picture[1]}"),
            )
            for part, numbers in labels.items()
        }
        mine = sorted((name for name in recordings if int(name[0]) == digit), key=_hash)
        for preferred, test in (("t10k", True), ("train", False)):
            pool = pools.get(preferred) or next(iter(pools.values()))
            chosen = [name for name in mine if (splits[name] == "test") == test]
            taken = pool[: len(chosen)]
            pairs.update(zip(chosen, taken, strict=False))
            del pool[: len(taken)]
    return pairs


def _hash(name: str) -> bytes:
    return hashlib.blake2b(f"av-mnist/{name}".encode()).digest()
