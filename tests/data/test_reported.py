"""What was reported elsewhere, of image and audio libraries, data sets and exports: each report, and what happens here.

The list with the reports is in ``docs/faults.md``.
"""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image, PngImagePlugin

from mmrobust.data import Dataset
from mmrobust.data.decoding import decode_audio, decode_image
from mmrobust.data.prepare.manifest import ManifestColumns, prepare_manifest
from mmrobust.errors import DataError
from mmrobust.evaluation.prediction_file import FileFormat, read_prediction_file

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8))
TONE = (0.5 * np.sin(np.arange(8000) / 10)).astype(np.float32)


def encoded(kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    PICTURE.save(buffer, kind, **options)
    return buffer.getvalue()


def recorded(kind: str, subtype: str | None = None) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, TONE, 8000, format=kind, subtype=subtype)
    return buffer.getvalue()


def table(folder: Path, text: str, name: str = "manifest.csv") -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def said_of(source: Path, out: Path) -> list[str]:
    said: list[str] = []
    prepare_manifest(source, out, remark=said.append)
    return said


@pytest.mark.parametrize("kind", ["text", "international text", "profile"])
def test_a_png_with_large_metadata_is_read(kind: str) -> None:
    """python-pillow/Pillow#8363, hiyouga/LlamaFactory#6300: Decompressed data too large."""
    info = PngImagePlugin.PngInfo()
    if kind == "text":
        info.add_text("workflow", "x" * 3_000_000, zip=True)
    elif kind == "international text":
        info.add_itxt("workflow", "x" * 3_000_000, zip=True)
    exif = Image.Exif()
    exif[0x0112] = 3
    profile = bytes(2_000_000) if kind == "profile" else None
    data = encoded("PNG", pnginfo=info, icc_profile=profile, exif=exif)
    upside_down = np.asarray(PICTURE)[::-1, ::-1]
    assert (np.asarray(decode_image(data, "x")) == upside_down).all()  # the orientation is no text: it still counts


def test_large_metadata_do_not_stop_the_look_for_transparency(tmp_path: Path) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("workflow", "x" * 3_000_000, zip=True)
    written = io.BytesIO()
    Image.new("RGBA", (8, 8)).save(written, "PNG", pnginfo=info)
    (tmp_path / "a.png").write_bytes(written.getvalue())
    prepare_manifest(table(tmp_path, "image,label,split\na.png,a,train\na.png,b,train\n"), tmp_path / "out")
    (first, _) = Dataset(tmp_path / "out").split("train")
    assert np.asarray(decode_image(first.image or b"", "x")).min() == 255


def test_of_a_multi_picture_jpeg_the_first_is_taken() -> None:
    """serengil/deepface#1515, python-pillow/Pillow#4603: phones save MPO under .jpg."""
    data = encoded("MPO", save_all=True, append_images=[Image.new("RGB", (16, 12))], quality=95)
    first = np.asarray(decode_image(data, "x")).astype(int)
    assert np.abs(first - np.asarray(PICTURE)).mean() < np.abs(first).mean() / 2  # the second is black


def test_a_picture_is_what_its_bytes_say(tmp_path: Path) -> None:
    """GabrielePicco/deep-learning-flower-identifier#2: WebP under .jpg."""
    (tmp_path / "a.jpg").write_bytes(encoded("WEBP", lossless=True))
    (tmp_path / "b.jpg").write_bytes(encoded("PNG"))
    prepare_manifest(table(tmp_path, "image,label,split\na.jpg,a,train\nb.jpg,b,train\n"), tmp_path / "out")
    for sample in Dataset(tmp_path / "out").split("train"):
        assert (np.asarray(decode_image(sample.image or b"", "x")) == np.asarray(PICTURE)).all()


@pytest.mark.parametrize("length", [0, 0x7FFF_FFFF, 0xFFFF_FFFF])
def test_a_wav_that_was_written_to_a_pipe_is_read_to_its_end(length: int) -> None:
    """rs1729/RS#39, kkroening/ffmpeg-python#118: the length in the header is 0, or the largest number."""
    data = recorded("WAV", "PCM_16")
    place = data.index(b"data") + 4
    streamed = data[:4] + struct.pack("<I", 0xFFFF_FFFF) + data[8:place] + struct.pack("<I", length) + data[place + 4 :]
    waveform, _ = decode_audio(streamed, "x")
    assert (waveform == decode_audio(data, "x")[0]).all()


def test_an_mp3_in_a_wav_is_read() -> None:
    """supercollider/supercollider#3137: Malformed 'fmt ' chunk."""
    mp3 = recorded("MP3")
    head = struct.pack("<HHIIHHHHIHHH", 0x55, 1, 8000, 1000, 1, 0, 12, 1, 2, 576, 1, 1393)
    body = b"WAVEfmt " + struct.pack("<I", len(head)) + head + b"fact" + struct.pack("<II", 4, len(TONE))
    body += b"data" + struct.pack("<I", len(mp3)) + mp3
    waveform, rate = decode_audio(b"RIFF" + struct.pack("<I", len(body)) + body, "x")
    assert (rate, len(waveform)) == (8000, len(TONE))


def test_speex_is_named() -> None:
    """libsndfile/libsndfile#262: SF_INFO struct incomplete."""
    speex = b"OggS\x00\x02" + bytes(20) + b"\x01\x50Speex   1.2.0" + bytes(67)
    with pytest.raises(DataError, match=r"x: the recording cannot be read \(it is Ogg Speex; convert its sound to WAV"):
        decode_audio(speex, "x")


def test_what_libsndfile_says_is_said() -> None:
    """bastibe/python-soundfile#418: Error opening <_io.BytesIO object at 0x…>: Format not recognised."""
    with pytest.raises(DataError) as raised:
        decode_audio(b"\x01\x02\x03\x04" * 20, "x")
    assert str(raised.value) == "x: the recording cannot be read (Format not recognised)"


def test_choices_of_label_studio(tmp_path: Path) -> None:
    """HumanSignal/label-studio-converter#59: one choice is text, several are JSON in a cell."""
    several = '"{""choices"": [""Positive"", ""Sad""]}"'
    rows = f"1,x,Positive,train\n2,y,{several},train\n3,z,Sad,train\n"
    source = table(tmp_path, f"id,text,sentiment,split\n{rows}")
    info = prepare_manifest(source, tmp_path / "out", columns=ManifestColumns(label="sentiment"))
    assert (info.task, info.classes) == ("multi-label", ("Positive", "Sad"))
    assert Dataset(tmp_path / "out").split("train").labels == ((0,), (0, 1), (1,))


def test_ids_that_a_spreadsheet_rounded(tmp_path: Path) -> None:
    """react-csv/react-csv#136, pulibrary/orangelight#2695: 468768768833943384 becomes 4,687E+17."""
    source = table(tmp_path, "id,text,label\n9.91214E+15,x,a\n9.91214E+15,y,b\n")
    with pytest.raises(
        DataError, match=r"row 2 .*; '9.91214E\+15' was rounded by a spreadsheet: export the ids as text"
    ):
        prepare_manifest(source, tmp_path / "out")
    predictions = table(tmp_path, "id;case;a;b\n4,687E+17;complete;1;2\n", "predictions.csv")
    form = FileFormat(["468768768833943384"], ("image", "text"), ("a", "b"), False, "split test of x")
    with pytest.raises(DataError, match=r"'4,687E\+17' was rounded by a spreadsheet"):
        read_prediction_file(predictions, form)


def test_words_for_nothing_are_asked_about(tmp_path: Path) -> None:
    """biolab/orange3-prototypes#177, WeikaiTan/Toronto-3D#1: a missing value is the text nan, and a class."""
    source = table(tmp_path, "text,label,split\nx,a,train\nnan,b,train\nz,nan,train\n")
    said = said_of(source, tmp_path / "out")
    assert any(
        "label 'nan' is a class like others; if it stands for no label, leave those rows out" in line for line in said
    )
    assert any("row 2 (line 3): the text 'nan' is taken as it stands" in line for line in said)
    source = table(tmp_path, "image,text,label,split\nNone,x,a,train\nNone,y,b,train\n")
    with pytest.raises(DataError, match="image None is not there: where there is none, leave the cell empty"):
        prepare_manifest(source, tmp_path / "again")


def test_the_metadata_of_an_image_folder(tmp_path: Path) -> None:
    """huggingface/datasets#4814: metadata.csv names its files file_name."""
    (tmp_path / "a.png").write_bytes(encoded("PNG"))
    source = table(tmp_path, "file_name,label,split\na.png,a,train\na.png,b,train\n", "metadata.csv")
    with pytest.raises(
        DataError, match=r"it has file_name, label, split; if 'file_name' has .* say --image-column file_name"
    ):
        prepare_manifest(source, tmp_path / "out")


def test_rows_that_are_longer_than_the_header_are_named(tmp_path: Path) -> None:
    """mindsdb/mindshub#495: 22 columns passed, passed data had 26 columns."""
    source = table(tmp_path, "text,label\na,b\na,b,c,d\n")
    with pytest.raises(DataError, match=r"row 2 \(line 3\): has 4 fields, the header names 2"):
        prepare_manifest(source, tmp_path / "out")
