"""Damage to images and recordings: bytes, headers that claim huge sizes, and decompression bombs."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile
from hypothesis import strategies as st
from PIL import Image

from fuzzing.sound import put, take
from fuzzing.values import Draw, changed_bytes

SIDES = (0, 1, 2**15, 2**16 - 1, 10_000, 9_999, 2**24, 2**31 - 1, 2**32 - 1)


def damaged_media(
    draw: Draw, sound: Path, folder: Path, readers: Sequence[tuple[str, ...]]
) -> tuple[tuple[str, ...], str]:
    """Damage an image or recording in the case's folder. Returns a command that reads it, and what was done."""
    column = draw(st.sampled_from(("image", "audio")))
    files = sorted((sound / "media").glob(f"*.{column}"))
    file = draw(st.sampled_from(files))
    made = draw(st.integers(0, 5))
    if made == 0:
        note, data = draw(st.sampled_from(sorted(BOMBS[column]))), b""
        data = BOMBS[column][note](draw)
    elif made == 1:
        data = _claim(draw, file.read_bytes(), column)
        note = f"{file.name} with a giant claim"
    else:
        data = changed_bytes(draw, file.read_bytes())
        note = f"{file.name} with bytes changed"
    if draw(st.booleans()):
        take(sound, folder, "raw")
        row = sorted((folder / "raw").glob("*.png" if column == "image" else "*.wav"))[0]
        put(row, data)
        more = draw(st.sampled_from(((), ("--allow-incomplete",))))
        return ("data", "prepare", "manifest", "--source", "raw/manifest.csv", "--out", "out", *more), note
    take(sound, folder, "digits", "mmp", "full", "av", "results")
    split = draw(st.sampled_from(("test", "train")))
    (parquet,) = (folder / "digits").glob(f"{split}-*.parquet")
    table = pq.read_table(parquet)
    rows = table[column].to_pylist()
    rows[0] = {"bytes": data, "path": "x"}
    index = table.schema.get_field_index(column)
    table = table.set_column(index, table.schema.field(index), pa.array(rows, table.schema.field(index).type))
    parquet.unlink()
    pq.write_table(table, parquet)
    arguments = draw(st.sampled_from(readers))
    if column == "audio":
        arguments = tuple(
            {"mmp": "av", "image,text": "audio,image", "full": "av"}.get(word, word) for word in arguments
        )
    return arguments, note


def _claim(draw: Draw, data: bytes, column: str) -> bytes:
    """Replace a size in the header of ``data`` by a huge one."""
    at = draw(st.integers(0, min(len(data), 64)))
    number = draw(st.sampled_from(SIDES))
    order = draw(st.sampled_from(("<", ">")))
    second = struct.pack(order + "I", number)
    return data[:at] + second + (second if draw(st.booleans()) and column == "image" else b"") + data[at + 4 :]


def _png(width: int, height: int, kind: int = 0, depth: int = 8, rows: int = 0, extra: bytes = b"") -> bytes:
    """Return a PNG that claims width × height pixels and contains ``rows`` rows of zeros."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[kind]
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0))
    body = zlib.compress(bytes((1 + width * channels * depth // 8) * rows), 9)
    return b"\x89PNG\r\n\x1a\n" + head + extra + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def _square(draw: Draw) -> bytes:
    side = draw(st.sampled_from((1000, 9_999, 10_000, 10_001, 60_000)))
    kind, depth = draw(st.sampled_from(((0, 8), (0, 16), (2, 8), (3, 8), (4, 8), (6, 8), (2, 16))))
    return _png(side, side, kind, depth, rows=side if side <= 10_000 and kind in (0, 4) else 3)


def _long(draw: Draw) -> bytes:
    long = draw(st.sampled_from((10**5, 10**7, 10**8, 2**31 - 1)))
    return _png(long, 1, rows=1 if long <= 10**8 else 0) if draw(st.booleans()) else _png(1, long, rows=100)


def _text(draw: Draw) -> bytes:
    """Return texts that expand to far more than their size."""
    content = b"key\0\0" + zlib.compress(bytes(draw(st.sampled_from((2**20, 2**26)))), 9)
    chunk = struct.pack(">I", len(content)) + b"zTXt" + content + struct.pack(">I", zlib.crc32(b"zTXt" + content))
    return _png(4, 4, rows=4, extra=chunk * draw(st.integers(1, 4)))


def _saved(draw: Draw) -> bytes:
    """Return a large image of one colour, which compresses well."""
    kind, options = draw(
        st.sampled_from(
            (
                ("GIF", {}),
                ("TIFF", {"compression": "tiff_deflate"}),
                ("WEBP", {}),
                ("JPEG", {}),
                ("JPEG2000", {}),
                ("PPM", {}),
                ("ICO", {}),
            )
        )
    )
    side = draw(st.sampled_from((2000, 9_000)))
    buffer = io.BytesIO()
    try:
        Image.new("RGB" if kind != "GIF" else "L", (side, side // 4), 77).save(buffer, kind, **options)
    except Exception:
        return b"GIF89a"
    return buffer.getvalue()


def _silence(draw: Draw) -> bytes:
    """Return a long silent recording, which compresses well."""
    kind, subtype = draw(st.sampled_from((("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("WAV", "PCM_U8"), ("AU", "ULAW"))))
    rate = draw(st.sampled_from((8000, 192_000)))
    channels = draw(st.sampled_from((1, 2, 8)))
    buffer = io.BytesIO()
    try:
        with soundfile.SoundFile(buffer, "w", rate, channels, subtype, format=kind) as file:
            for _ in range(2**9):  # in one piece it would crash libsndfile's Vorbis encoder
                file.write(np.zeros((2**12, channels), np.float32))
    except Exception:
        return b"fLaC"
    return buffer.getvalue()


def _flac(draw: Draw) -> bytes:
    """Return a FLAC that claims more samples than it has, up to 2^36 − 1."""
    buffer = io.BytesIO()
    soundfile.write(buffer, np.zeros(4000), 8000, format="FLAC")
    data = bytearray(buffer.getvalue())
    claim = draw(st.sampled_from((2**36 - 1, 2**32, 2**31, 2**28, 0)))
    data[21] = (data[21] & 0xF0) | claim >> 32
    data[22:26] = struct.pack(">I", claim & 0xFFFFFFFF)
    return bytes(data)


def _wav(draw: Draw) -> bytes:
    """Return a WAV with arbitrary values in its header."""
    channels = draw(st.sampled_from((0, 1, 2, 1024, 65_535)))
    rate = draw(st.sampled_from((0, 1, 8000, 2**31 - 1, 2**32 - 1)))
    bits = draw(st.sampled_from((0, 1, 8, 16, 24, 32, 64)))
    size = draw(st.sampled_from((0, 100, 2**31 - 1, 2**32 - 1)))
    kind = draw(st.sampled_from((1, 3, 6, 7, 0x11, 0xFFFE)))
    align = max(1, channels * bits // 8) % 65_536
    head = struct.pack("<HHIIHH", kind, channels, rate, rate * align % 2**32, align, bits)
    body = b"fmt " + struct.pack("<I", len(head)) + head + b"data" + struct.pack("<I", size) + bytes(100)
    return b"RIFF" + struct.pack("<I", draw(st.sampled_from((len(body) + 4, 0, 2**32 - 1)))) + b"WAVE" + body


BOMBS = {
    "image": {"square": _square, "long": _long, "text": _text, "saved": _saved},
    "audio": {"silence": _silence, "flac": _flac, "wav": _wav},
}
