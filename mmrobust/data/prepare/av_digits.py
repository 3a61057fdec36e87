"""The data set ``av-digits``: spoken digits, each paired with one handwritten digit of the same class.

The AV-MNIST recipe of the missing-modality literature, on free data: recordings of the Free Spoken Digit Dataset
(8 kHz, six speakers) and pictures of the MNIST test set (28×28 grey). The source is a folder with

- ``pairs.csv``: columns id, audio (path of a WAV, relative to the folder), mnist_index, label, split;
- ``t10k-images-idx3-ubyte.gz`` and ``t10k-labels-idx1-ubyte.gz``, as MNIST is released;
- the recordings that ``pairs.csv`` names.

The data set holds the WAVs byte for byte, and the pictures as BMP.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mmrobust.data.format import SPLITS
from mmrobust.data.prepare.digits import encode_picture
from mmrobust.data.prepare.preparer import Description, Intake, Listing, preparer
from mmrobust.data.prepare.source_files import check_folder, read_media
from mmrobust.data.writing import SampleRow
from mmrobust.errors import DataError
from mmrobust.storage.files import check_file
from mmrobust.storage.text_tables import open_table

DESCRIPTION = Description(
    name="av-digits",
    modalities=("audio", "image"),
    classes=tuple("0123456789"),
    licence="audio: Free Spoken Digit Dataset, CC BY-SA 4.0; images: MNIST (LeCun, Cortes, Burges)",
    source="Free Spoken Digit Dataset and the MNIST test set, paired by class",
)
PAIRS_FILE = "pairs.csv"
IMAGES_FILE = "t10k-images-idx3-ubyte.gz"
LABELS_FILE = "t10k-labels-idx1-ubyte.gz"
COLUMNS = ("id", "audio", "mnist_index", "label", "split")

_IDX_UNSIGNED_BYTE = 0x08
MAX_BYTES = 2**28
"""Largest idx file, unpacked; MNIST's largest has 47 million bytes."""


@preparer(source="the folder with pairs.csv, the recordings and MNIST's t10k files")
def prepare_av_digits(source: Path, intake: Intake) -> Listing:
    """List the pairs of ``av-digits`` in the folder ``source``."""
    total = sum(1 for _ in _pairs(source))  # read twice, and never held in memory
    images = read_idx(source / IMAGES_FILE, dimensions=3)
    labels = read_idx(source / LABELS_FILE, dimensions=1)
    if len(images) != len(labels):
        raise DataError(f"{source}: {IMAGES_FILE} has {len(images)} pictures, {LABELS_FILE} {len(labels)} labels")
    intake.record_hash(source / PAIRS_FILE)

    def read(split: str, pair: dict[str, str], where: str) -> Iterator[SampleRow]:
        index, label = _number(pair, "mnist_index", where), _number(pair, "label", where)
        if not 0 <= index < len(images):
            raise DataError(f"{where}: mnist_index {index} is outside the {len(images)} pictures")
        if label != labels[index]:
            raise DataError(f"{where}: label {label}, but {LABELS_FILE} says that picture {index} is {labels[index]}")
        yield SampleRow(
            split=split,
            id=pair["id"],
            label=(label,),
            audio=read_media("audio", source / pair["audio"], where),
            audio_path=pair["audio"],
            image=encode_picture(images[index]),
            image_path=f"mnist-{index:05d}.bmp",
        )

    samples = ((pair["split"], pair, where) for pair, where in _pairs(source))
    return Listing(DESCRIPTION, read, samples, total)


def read_idx(file: Path, dimensions: int) -> npt.NDArray[np.uint8]:
    """Read an idx file of unsigned bytes, the format of MNIST; it is unpacked where its name ends in ``.gz``.

    Raises:
        DataError: the file is missing, or does not have this format and number of ``dimensions``.
    """
    if not file.exists():
        raise DataError(f"{file}: no such file; --source names the folder that holds it")
    check_file(file, "idx file")
    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as opened:
            content = opened.read(MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as cause:
        raise DataError(f"{file}: cannot be unpacked ({cause}); download it again") from cause
    if len(content) > MAX_BYTES:
        raise DataError(f"{file}: holds more than {MAX_BYTES:,} bytes, more than any part of MNIST")
    header = 4 + 4 * dimensions
    if content[:4] != bytes((0, 0, _IDX_UNSIGNED_BYTE, dimensions)) or len(content) < header:
        raise DataError(f"{file}: is not an idx file of unsigned bytes in {dimensions} dimensions")
    shape = struct.unpack(f">{dimensions}I", content[4:header])
    values = np.frombuffer(content, dtype=np.uint8, offset=header)
    if values.size != int(np.prod(shape, dtype=np.int64)):
        raise DataError(f"{file}: holds {values.size} values, its header promises {'×'.join(map(str, shape))}")
    return values.reshape(shape)


def _pairs(source: Path) -> Iterator[tuple[dict[str, str], str]]:
    """The rows of ``pairs.csv``, each with its place for messages."""
    file = source / PAIRS_FILE
    check_folder(source, f"the folder that holds {PAIRS_FILE}")
    if not file.is_file():
        raise DataError(f"{file}: no such file; --source names the folder that holds it")
    for row, (where, pair) in enumerate(open_table(file, needed=COLUMNS).rows(), start=1):
        if pair["split"] not in SPLITS:
            raise DataError(f"{where}: split '{pair['split']}' is not one of {', '.join(SPLITS)}")
        yield pair, f"{file}, row {row} ('{pair['id']}')"


def _number(pair: dict[str, str], column: str, where: str) -> int:
    try:
        return int(pair[column])
    except ValueError:
        raise DataError(f"{where}: {column} '{pair[column]}' is not a whole number") from None
