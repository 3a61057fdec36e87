from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from mmrobust.data.decoding import MAX_PIXELS, decode_audio, decode_image
from mmrobust.errors import DataError

ROWS = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def colour(width: int = 8, height: int = 6) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def pixels_of(data: bytes) -> np.ndarray:
    image = decode_image(data, "sample 'x'")
    assert image.mode == "RGB"
    return np.asarray(image)


def test_rgb_grey_and_one_bit() -> None:
    assert (pixels_of(encoded(colour())) == np.asarray(colour())).all()
    assert (pixels_of(encoded(Image.fromarray(ROWS))) == ROWS[:, :, None]).all()
    assert set(pixels_of(encoded(Image.fromarray(ROWS).convert("1"))).ravel()) <= {0, 255}
    assert pixels_of(encoded(colour(1, 1))).shape == (1, 1, 3)


def test_transparency_lies_over_white() -> None:
    rgba = np.zeros((1, 3, 4), dtype=np.uint8)
    rgba[0, :, 3] = (0, 51, 255)
    assert pixels_of(encoded(Image.fromarray(rgba)))[0, :, 0].tolist() == [255, 204, 0]
    grey = Image.merge("LA", (Image.new("L", (1, 1), 10), Image.new("L", (1, 1), 0)))
    assert pixels_of(encoded(grey)).ravel().tolist() == [255, 255, 255]


def test_palettes_with_and_without_transparency() -> None:
    palette = colour().quantize(16)
    assert (pixels_of(encoded(palette)) == np.asarray(palette.convert("RGB"))).all()
    drawn = Image.new("P", (2, 1), 0)
    drawn.putpalette([10, 20, 30, 40, 50, 60])
    drawn.putpixel((1, 0), 1)
    assert pixels_of(encoded(drawn, transparency=0))[0].tolist() == [[255, 255, 255], [40, 50, 60]]
    assert pixels_of(encoded(drawn, transparency=b"\x00\xff"))[0].tolist() == [[255, 255, 255], [40, 50, 60]]


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    levels = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
    for kind in ("PNG", "TIFF"):
        assert pixels_of(encoded(Image.fromarray(levels), kind))[0, :, 0].tolist() == [0, 1, 128, 255]


def test_eight_bits_in_a_tiff_of_32_are_not_black() -> None:
    levels = (np.arange(64).reshape(8, 8) * 4).astype(np.int32)
    assert (pixels_of(encoded(Image.fromarray(levels), "TIFF"))[:, :, 0] == levels).all()


def test_floating_point_pictures() -> None:
    levels = np.array([[0.0, 0.5, 1.0]], dtype=np.float32)
    assert pixels_of(encoded(Image.fromarray(levels), "TIFF"))[0, :, 0].tolist() == [0, 127, 255]
    with pytest.raises(DataError, match="NaN or infinite pixels"):
        decode_image(encoded(Image.fromarray(levels * np.nan), "TIFF"), "x")


def test_cmyk() -> None:
    cmyk = colour(16, 16).convert("CMYK")
    for kind, options in (("TIFF", {}), ("JPEG", {"quality": 100, "subsampling": 0})):
        difference = pixels_of(encoded(cmyk, kind, **options)).astype(int) - np.asarray(cmyk.convert("RGB"))
        assert np.abs(difference).mean() < 5


def test_the_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (4, 4), name) for name in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert pixels_of(data)[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    upright = colour()
    undo = {6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}.get(orientation)
    turned = [
        None,
        Image.Transpose.FLIP_LEFT_RIGHT,
        Image.Transpose.ROTATE_180,
        Image.Transpose.FLIP_TOP_BOTTOM,
        Image.Transpose.TRANSPOSE,
        undo,
        Image.Transpose.TRANSVERSE,
        undo,
    ][orientation - 1]
    stored = upright if turned is None else upright.transpose(turned)
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert (pixels_of(encoded(stored, exif=exif)) == np.asarray(upright)).all()


def test_broken_exif_data_do_not_matter() -> None:
    data = encoded(colour(), "JPEG", exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff garbage")
    assert pixels_of(data).shape == (6, 8, 3)


def test_other_formats_by_content_not_by_name() -> None:
    for kind in ("JPEG", "BMP", "WEBP", "GIF"):
        assert pixels_of(encoded(colour(), kind)).shape == (6, 8, 3)


def test_no_program_is_started_for_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow gives an EPS, which is a program in PostScript, to Ghostscript."""
    ghostscript, proof = tmp_path / "gs", tmp_path / "started"
    ghostscript.write_text(f"#!/bin/sh\ntouch {proof}\n")
    ghostscript.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)  # what it found before
    with pytest.raises(DataError, match="is not a picture in a format that can be read"):
        decode_image(encoded(colour(), "EPS"), "s")
    assert not proof.exists()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP"])
def test_every_truncation_is_an_error_or_a_picture(kind: str) -> None:
    data = encoded(colour(64, 64), kind)
    for share in (0.02, 0.1, 0.5, 0.8):
        with pytest.raises(DataError, match="sample 'x'"):
            decode_image(data[: int(len(data) * share)], "sample 'x'")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "a.png: the picture is empty"),
        (b"not a picture", "a.png: is not a picture in a format that can be read"),
        (b"\x89PNG\r\n\x1a\n" + bytes(40), "a.png: "),
    ],
)
def test_what_is_no_picture(data: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message) as raised:
        decode_image(data, "a.png")
    assert "\n" not in str(raised.value)
    assert "BytesIO" not in str(raised.value)


@pytest.mark.parametrize("side", [11_000, 40_000])
def test_a_huge_picture_is_refused_before_it_fills_the_memory(side: int) -> None:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
    data = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    assert side * side > MAX_PIXELS
    with pytest.raises(DataError, match=r"a\.png: the picture"):
        decode_image(data, "a.png")


def recording(waveform: np.ndarray, rate: int = 8000, kind: str = "WAV", subtype: str | None = None) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, waveform, rate, format=kind, subtype=subtype)
    return buffer.getvalue()


TONE = 0.5 * np.sin(2 * np.pi * 440 * np.arange(4000) / 8000)


@pytest.mark.parametrize(
    ("kind", "subtype", "tolerance"),
    [
        ("WAV", "PCM_16", 1e-4),
        ("WAV", "PCM_U8", 1e-2),
        ("WAV", "PCM_24", 1e-6),
        ("WAV", "FLOAT", 1e-6),
        ("WAV", "ULAW", 3e-2),
        ("FLAC", "PCM_16", 1e-4),
        ("OGG", "VORBIS", 1e-1),
    ],
)
def test_recordings_of_many_formats(kind: str, subtype: str, tolerance: float) -> None:
    waveform, rate = decode_audio(recording(TONE, kind=kind, subtype=subtype), "x")
    assert (waveform.dtype, waveform.shape, rate) == (np.float32, (4000,), 8000)
    assert np.abs(waveform - TONE).max() < tolerance


def test_channels_are_averaged() -> None:
    waveform, rate = decode_audio(recording(np.stack([TONE, np.zeros(4000), -TONE / 2], axis=1), 96_000), "x")
    assert rate == 96_000
    assert np.abs(waveform - TONE / 6).max() < 1e-4


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "a.wav: the recording is empty"),
        (b"RIFF", "a.wav: the recording cannot be read"),
        (b"not a recording at all", "a.wav: the recording cannot be read"),
        (recording(np.zeros(0)), r"a.wav: the recording is empty \(0 samples\)"),
        (recording(np.array([0.1, np.nan]), subtype="FLOAT"), "a.wav: the recording holds NaN"),
        (recording(np.array([0.1, np.inf]), subtype="FLOAT"), "a.wav: the recording holds NaN or infinite"),
    ],
    ids=["nothing", "four bytes", "a text", "no samples", "NaN", "infinite"],  # files with floats hold the time
)
def test_what_is_no_recording(data: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message) as raised:
        decode_audio(data, "a.wav")
    assert "BytesIO" not in str(raised.value)


def test_of_a_cut_recording_the_beginning_is_read() -> None:
    data = recording(TONE, subtype="PCM_16")
    waveform, _ = decode_audio(data[: len(data) // 2], "x")
    assert 1900 < len(waveform) < 2100
    assert np.abs(waveform - TONE[: len(waveform)]).max() < 1e-4


@pytest.mark.parametrize(
    ("black", "white"), [(0, 1), (-1, 1), (0, 255), (0, 65_535)], ids=["unit", "signed", "8 bit", "16 bit"]
)
def test_the_scale_of_floating_point_pixels(black: float, white: float) -> None:
    """−1 … 1 was clipped at 0, and 16 bit at 255."""
    levels = np.linspace(black, white, 256, dtype=np.float32)[None]
    assert np.abs(pixels_of(encoded(Image.fromarray(levels), "TIFF"))[0, :, 0] - np.arange(256.0)).max() <= 1
    sharpened = levels + np.float32(0.04 * (white - black)) * np.where(np.arange(256) % 2, 1, -1).astype(np.float32)
    assert np.ptp(pixels_of(encoded(Image.fromarray(sharpened), "TIFF"))) == 255


def test_floating_point_pixels_on_no_known_scale_are_refused() -> None:
    standardised = np.array([[-2.1, 0.3, 2.6]], dtype=np.float32)
    message = (
        r"x: the picture cannot be read \(its pixels range from -2\.1 to 2\.6, which is none of the scales 0 to 1, −1"
    )
    with pytest.raises(DataError, match=message):
        decode_image(encoded(Image.fromarray(standardised), "TIFF"), "x")


@pytest.mark.parametrize("scale", [2**15, 2**23, 2**31])
def test_floats_on_the_scale_of_integers_are_scaled(scale: int) -> None:
    """They came out as they were: up to ±16,383 for 16 bit."""
    whole = np.rint(TONE * scale)
    waveform, _ = decode_audio(recording(whole, subtype="DOUBLE"), "x")
    assert np.abs(waveform - TONE).max() < 2e-5 + 1 / scale


def test_floats_on_no_known_scale_are_refused() -> None:
    with pytest.raises(
        DataError, match=r"x: the recording's samples reach ±16,38\d.*, not ±1; write it again, divided by their"
    ):
        decode_audio(recording(TONE * 32_768 * 0.9999 + 0.3, subtype="FLOAT"), "x")
    hot, _ = decode_audio(recording(TONE * 4, subtype="FLOAT"), "x")
    assert np.abs(hot - TONE * 4).max() < 1e-6  # a mix may exceed ±1


def test_channels_that_cancel_each_other_out_are_not_silence() -> None:
    """A balanced line recorded as stereo: its mean is silence."""
    for first, taken in ((-1.0, -TONE), (-0.98, TONE)):  # of equals, the first
        waveform, _ = decode_audio(recording(np.stack([TONE * first, TONE], axis=1), subtype="FLOAT"), "x")
        assert np.abs(waveform - taken).max() < 1e-6
    apart, _ = decode_audio(recording(np.stack([TONE, np.roll(TONE, 3)], axis=1), subtype="FLOAT"), "x")
    assert np.abs(apart - (TONE + np.roll(TONE, 3)) / 2).max() < 1e-6
    silent, _ = decode_audio(recording(np.zeros((100, 2)), subtype="FLOAT"), "x")
    assert not silent.any()


PAGE = b"\n<!DOCTYPE html>\n<html><head><title>404</title></head></html>"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
MP4 = b"\x00\x00\x00\x18ftypmp42\x00\x00\x00\x00mp42isom" + bytes(40)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (PAGE, "an HTML page: the download failed, or wanted a login"),
        (POINTER, "a Git LFS pointer, not the file itself: fetch it with git lfs pull"),
        (b"../.git/annex/objects/x", "a git-annex pointer, not the file itself"),
        (b'{"error": "not found"}', "JSON: the download may have failed"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "an XML document: the download may have"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "an SVG drawing; convert it to PNG"),
        (b"%PDF-1.7\n", "a PDF document"),
        (b"PK\x03\x04" + bytes(30), "a ZIP archive; unpack it"),
        (b"\x00\x00\x00\x18ftypheic" + bytes(16), "HEIC; convert it to JPEG or PNG"),
        (bytes(4096), "nothing but zero bytes: the file was not written to its end"),
    ],
)
def test_what_lies_in_the_place_of_media_is_named(data: bytes, what: str) -> None:
    with pytest.raises(DataError) as raised:
        decode_image(data, "a.png")
    assert f"a.png: is not a picture in a format that can be read (it is {what}" in str(raised.value)
    with pytest.raises(DataError) as raised:
        decode_audio(data, "a.wav")
    assert f"a.wav: the recording cannot be read (it is {what}" in str(raised.value)


def test_media_in_each_others_place_and_sound_that_libsndfile_cannot_read() -> None:
    with pytest.raises(DataError, match=r"\(it is a WAV recording\)"):
        decode_image(recording(TONE), "a.png")
    with pytest.raises(DataError, match=r"\(it is a PNG picture\)"):
        decode_audio(encoded(colour()), "a.wav")
    for data in (MP4, MP4.replace(b"ftypmp42", b"ftypM4A "), b"\xff\xf1\x50\x80" + bytes(40)):
        with pytest.raises(DataError, match=r"convert its sound to WAV or FLAC, as with ffmpeg -i FILE out\.wav"):
            decode_audio(data, "a.m4a")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"not a recording at all", "Format not recognised"),
        (recording(TONE)[:20], "Error in WAV/W64/RF64 file. Malformed 'fmt ' chunk"),
        (recording(TONE, kind="FLAC")[:60], r"[^)]{10,}"),
    ],
)
def test_the_reason_that_libsndfile_gives_is_said(data: bytes, reason: str) -> None:
    """The reason was cut off: (LibsndfileError)."""
    with pytest.raises(DataError, match=f"a.wav: the recording cannot be read \\({reason}") as raised:
        decode_audio(data, "a.wav")
    assert "LibsndfileError" not in str(raised.value)
