"""Fifty odd and damaged files: each is read for what it holds, or named in one line."""

from __future__ import annotations

import io
import json
import struct
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import PIL
import pytest
import soundfile
from PIL import Image

from mmrobust.data import Dataset
from mmrobust.data.decoding import decode_audio, decode_image
from mmrobust.data.inspection import verify
from mmrobust.data.prepare.manifest import prepare_manifest
from mmrobust.data.writing import SampleRow, write_dataset
from mmrobust.errors import DataError

COLOURS = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
TONE = 0.5 * np.sin(2 * np.pi * 440 * np.arange(4000) / 8000)


def picture(pixels: Any = COLOURS, kind: str = "PNG", mode: str | None = None, **options: Any) -> bytes:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    buffer = io.BytesIO()
    (image.convert(mode) if mode else image).save(buffer, kind, **options)
    return buffer.getvalue()


def recording(samples: Any = TONE, rate: int = 8000, kind: str = "WAV", subtype: str | None = None) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=kind, subtype=subtype)
    return buffer.getvalue()


def cut(data: bytes, share: float) -> bytes:
    return data[: int(len(data) * share)]


def damaged(data: bytes, at: float, count: int = 40) -> bytes:
    """``data`` with a run of bytes in its middle overwritten."""
    start = int(len(data) * at)
    return data[:start] + bytes(255 - byte for byte in data[start : start + count]) + data[start + count :]


def bomb(side: int) -> bytes:
    """A PNG of a few bytes that says it has side × side pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


FRAMES = [Image.new("RGB", (32, 24), name) for name in ("red", "green", "blue")]
MOVING = {"save_all": True, "append_images": FRAMES[1:]}
PHONE = Image.Exif()
PHONE[0x0112] = 6  # lies on its side
WIDE = (np.arange(24 * 32, dtype=np.uint16) * 80).reshape(24, 32)
SEE_THROUGH = Image.fromarray(np.dstack([COLOURS, np.full((24, 32), 128, dtype=np.uint8)]))


class Readable(NamedTuple):
    """A file that is read: the size of the picture, or the length and rate of the recording."""

    name: str
    data: bytes
    holds: tuple[int, int]


class Broken(NamedTuple):
    """A file that is named: what the message says of it."""

    name: str
    data: bytes
    message: str


READABLE = [
    Readable("1 pixel.png", picture(np.zeros((1, 1, 3), dtype=np.uint8)), (1, 1)),
    Readable("1 column.png", picture(COLOURS[:, :1]), (1, 24)),
    Readable("grey.png", picture(mode="L"), (32, 24)),
    Readable("black and white.png", picture(mode="1"), (32, 24)),
    Readable("16 bit.png", picture(WIDE), (32, 24)),
    Readable("16 bit.tiff", picture(WIDE, "TIFF"), (32, 24)),
    Readable("floats.tiff", picture((WIDE / 65535).astype(np.float32), "TIFF"), (32, 24)),
    Readable("palette.png", picture(Image.fromarray(COLOURS).quantize(16)), (32, 24)),
    Readable("palette.gif", picture(kind="GIF"), (32, 24)),
    Readable("CMYK.jpg", picture(kind="JPEG", mode="CMYK"), (32, 24)),
    Readable("CMYK.tiff", picture(kind="TIFF", mode="CMYK"), (32, 24)),
    Readable("transparent.png", picture(SEE_THROUGH), (32, 24)),
    Readable("transparent grey.png", picture(SEE_THROUGH, mode="LA"), (32, 24)),
    # Pillow before 13, the newest for Python 3.10 among them, cannot read what it writes itself here.
    *([Readable("YCbCr.tiff", picture(kind="TIFF", mode="YCbCr"), (32, 24))] if PIL.__version__ >= "13" else []),
    Readable("animated.gif", picture(FRAMES[0], "GIF", **MOVING), (32, 24)),
    Readable("animated.png", picture(FRAMES[0], "PNG", **MOVING), (32, 24)),
    Readable("animated.webp", picture(FRAMES[0], "WEBP", **MOVING), (32, 24)),
    Readable("progressive.jpg", picture(kind="JPEG", progressive=True), (32, 24)),
    Readable("on its side.jpg", picture(kind="JPEG", exif=PHONE), (24, 32)),
    Readable("bad EXIF.jpg", picture(kind="JPEG", exif=b"Exif\x00\x00MM\x00*\xff\xff garbage"), (32, 24)),
    Readable("a JPEG called.png", picture(kind="JPEG"), (32, 24)),
    Readable("a PNG called.jpg", picture(), (32, 24)),
    Readable("no ending", picture(kind="BMP"), (32, 24)),
    Readable("junk at the end.png", picture() + b"junk" * 100, (32, 24)),
    Readable("8 bit.wav", recording(subtype="PCM_U8"), (4000, 8000)),
    Readable("24 bit.wav", recording(subtype="PCM_24"), (4000, 8000)),
    Readable("floats.wav", recording(subtype="FLOAT"), (4000, 8000)),
    Readable("doubles.wav", recording(subtype="DOUBLE"), (4000, 8000)),
    Readable("telephone.wav", recording(subtype="ULAW"), (4000, 8000)),
    Readable("stereo.wav", recording(np.stack([TONE, -TONE / 2], axis=1)), (4000, 8000)),
    Readable("six channels.wav", recording(np.stack([TONE] * 6, axis=1)), (4000, 8000)),
    Readable("96 kHz.wav", recording(rate=96_000), (4000, 96_000)),
    Readable("44.1 kHz.flac", recording(rate=44_100, kind="FLAC"), (4000, 44_100)),
    Readable("vorbis.ogg", recording(kind="OGG", subtype="VORBIS"), (4000, 8000)),
    Readable("1 sample.wav", recording(TONE[:1]), (1, 8000)),
    Readable("silence.wav", recording(np.zeros(100)), (100, 8000)),
    Readable("louder than full.wav", recording(3 * TONE, subtype="FLOAT"), (4000, 8000)),
    Readable("a FLAC called.wav", recording(kind="FLAC"), (4000, 8000)),
    Readable("broken off.wav", recording()[: 44 + 2 * 1500], (1500, 8000)),
]
BROKEN = [
    Broken("empty.png", b"", "the picture is empty (0 bytes)"),
    Broken("half.png", cut(picture(), 0.5), "the picture cannot be read"),
    Broken("half.jpg", cut(picture(kind="JPEG"), 0.8), "the picture cannot be read"),
    Broken("half.gif", cut(picture(kind="GIF"), 0.5), "the picture cannot be read"),
    Broken("half.webp", cut(picture(kind="WEBP"), 0.5), "the picture cannot be read"),
    Broken("header only.png", picture()[:20], "picture"),
    Broken("flipped bytes.png", damaged(picture(), 0.5), "the picture cannot be read"),
    Broken("zeros.jpg", bytes(2000), "is not a picture in a format that can be read"),
    Broken("a web page called.jpg", b"<html><body>404 Not Found</body></html>", "is not a picture in a format"),
    Broken("a recording called.png", recording(), "is not a picture in a format that can be read"),
    Broken("NaN pixels.tiff", picture(np.full((4, 4), np.nan, dtype=np.float32), "TIFF"), "NaN or infinite pixels"),
    Broken("a bomb.png", bomb(40_000), "the picture"),
    Broken("empty.wav", b"", "the recording is empty (0 bytes)"),
    Broken("no samples.wav", recording(np.zeros(0)), "the recording is empty (0 samples)"),
    Broken("header only.wav", recording()[:20], "the recording cannot be read"),
    Broken("NaN.wav", recording(np.array([0.1, np.nan]), subtype="FLOAT"), "holds NaN or infinite samples"),
    Broken("infinite.wav", recording(np.array([0.1, np.inf]), subtype="FLOAT"), "holds NaN or infinite samples"),
    Broken("text called.wav", b"one two three", "the recording cannot be read"),
    Broken("a picture called.wav", picture(), "the recording cannot be read"),
    Broken("half.flac", cut(recording(kind="FLAC"), 0.02), "the recording cannot be read"),
]


def is_sound(name: str) -> bool:
    return name.endswith((".wav", ".flac", ".ogg"))


def write_manifest(folder: Path, files: list[tuple[str, bytes]], **changes: Any) -> Path:
    """A manifest with one row for each file, and one that is in order."""
    rows = [{"id": "in order", "label": "a", "split": "train", "text": "fine"}]
    for i, (name, data) in enumerate(files):
        (folder / name).write_bytes(data)
        media = {"audio" if is_sound(name) else "image": name}
        rows.append({"id": name, "label": "ab"[i % 2], "split": "train", "text": "fine"} | media | changes)
    rows.append({"id": "last", "label": "b", "split": "train", "text": "fine"})
    file = folder / "manifest.jsonl"
    file.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return file


def test_there_are_fifty_and_more() -> None:
    assert len({file.name for file in (*READABLE, *BROKEN)}) == len(READABLE) + len(BROKEN) >= 50


def test_the_readable_ones_are_prepared_verified_and_read(tmp_path: Path) -> None:
    source = write_manifest(tmp_path, [(file.name, file.data) for file in READABLE])
    info = prepare_manifest(source, tmp_path / "out")
    assert info.left_out == {}
    dataset = Dataset(tmp_path / "out")
    assert verify(dataset).faults == ()
    samples = {sample.id: sample for sample in dataset.split("train")}
    for name, data, holds in READABLE:
        sample = samples[name]
        if is_sound(name):
            assert sample.audio == data
            waveform, rate = decode_audio(data, name)
            assert (len(waveform), rate) == holds, name
        else:
            assert sample.image == data
            image = decode_image(data, name)
            assert (image.mode, image.size) == ("RGB", holds), name


@pytest.mark.parametrize("file", BROKEN, ids=[file.name for file in BROKEN])
def test_a_broken_one_is_named_in_one_line_and_nothing_is_written(file: Broken, tmp_path: Path) -> None:
    source = write_manifest(tmp_path, [(file.name, file.data)])
    with pytest.raises(DataError) as raised:
        prepare_manifest(source, tmp_path / "out")
    said = str(raised.value)
    assert said.startswith(f"{source}, row 2 (line 2): {tmp_path / file.name}: ")
    assert file.message in said
    assert "\n" not in said
    assert not (tmp_path / "out").exists()


def test_the_broken_ones_together_are_counted_and_can_be_left_out(tmp_path: Path) -> None:
    source = write_manifest(tmp_path, [(file.name, file.data) for file in BROKEN])
    with pytest.raises(DataError, match=f"^{len(BROKEN)} samples cannot be used: .*; …; get the files again"):
        prepare_manifest(source, tmp_path / "out")
    remarks: list[str] = []
    info = prepare_manifest(source, tmp_path / "out", allow_incomplete=True, remark=remarks.append)
    assert info.splits == {"train": 2}
    assert info.left_out == {"image unreadable": 12, "audio unreadable": 8}
    *remarks, _, _ = remarks  # the last say what the table means, and that there is no validation split
    for file, line in zip(BROKEN, remarks, strict=True):
        assert file.name in line and file.message in line and "\n" not in line


def test_in_a_data_set_each_broken_one_is_named_by_verify(tmp_path: Path) -> None:
    rows = [SampleRow("test", "fine", (0,), image=picture(), audio=recording())]
    for file in BROKEN:
        media = {"audio": file.data} if is_sound(file.name) else {"image": file.data}
        rows.append(SampleRow("test", file.name, (1,), **media))
    write_dataset(
        tmp_path / "d",
        rows,
        name="d",
        modalities=("audio", "image"),
        classes=("a", "b"),
        task="single-label",
        headline_metric="accuracy",
        licence="CC0",
        source="here",
    )
    found = verify(Dataset(tmp_path / "d"))
    assert found.samples == len(rows)
    for row, (file, fault) in enumerate(zip(BROKEN, found.faults, strict=True), start=1):
        assert (fault.id, fault.part) == (file.name, "audio" if is_sound(file.name) else "image")
        assert str(fault).startswith(f"sample '{file.name}' of {tmp_path / 'd'} (test, row {row}): ")
        assert file.message in str(fault)
        assert "\n" not in str(fault)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("", None),
        (" \n\t", None),
        ("x" * 100_000, "x" * 100_000),
        ("naïve 你好 🙂 \u202eback", "naïve 你好 🙂 \u202eback"),
        ("a\x00b", "a\x00b"),
        ("two\nlines", "two\nlines"),
    ],
    ids=["empty", "blank", "100,000 characters", "all scripts", "a zero character", "two lines"],
)
def test_texts_that_are_read(text: str, kept: str | None, tmp_path: Path) -> None:
    source = write_manifest(tmp_path, [("a.png", picture())], text=text)
    prepare_manifest(source, tmp_path / "out")
    samples = {sample.id: sample for sample in Dataset(tmp_path / "out").split("train")}
    assert samples["a.png"].text == kept


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text": "half a \ud83d"}, "sample 'a.png': its text holds half a character"),
        ({"label": ""}, "row 2 (line 2): the label is empty"),
        ({"label": None}, "row 2 (line 2): the label is empty"),
        ({"label": {"a": 1}}, "row 2 (line 2): 'label' holds a dict"),
        ({"id": "in order"}, "row 2 (line 2): id 'in order' is already that of row 1"),
        ({"id": ""}, "row 2 (line 2): the id is empty"),
        ({"split": "tset"}, "row 2 (line 2): split 'tset' is not one of train, validation, test"),
        ({"image": "gone.png"}, "gone.png cannot be read (No such file or directory)"),
        ({"image": "."}, "cannot be read (Is a directory)"),
        ({"image": "a\x00.png"}, "cannot be read (embedded null byte)"),
        ({"image": 7}, "7 cannot be read (No such file or directory)"),
        ({"image": None, "text": ""}, "sample 'a.png' has no image and no text; leave the row out"),
    ],
)
def test_rows_that_are_named(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    source = write_manifest(tmp_path, [("a.png", picture()), ("b.png", picture())])
    lines = source.read_text(encoding="utf-8").splitlines()
    lines[1] = json.dumps(json.loads(lines[1]) | changes)
    source.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(DataError) as raised:
        prepare_manifest(source, tmp_path / "out")
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "out").exists()
