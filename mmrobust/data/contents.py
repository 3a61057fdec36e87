"""What some bytes are that are no picture or recording: a failed download leaves a page of HTML in a file's place."""

from __future__ import annotations

import re

_CONVERT = "convert its sound to WAV or FLAC, as with ffmpeg -i FILE out.wav"
_TEXTS = (  # what the first line that is not blank begins with → what the file is, and what to do
    (
        r"version https://git-lfs\.github\.com/spec",
        "a Git LFS pointer, not the file itself: fetch it with git lfs pull",
    ),
    (r"/annex/objects|\.\./.*\.git/annex/", "a git-annex pointer, not the file itself: fetch it with git annex get"),
    (r"<!doctype html|<html|<head|<body", "an HTML page: the download failed, or wanted a login"),
    (r"(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*(<!doctype svg[^>]*>\s*)?<svg", "an SVG drawing; convert it to PNG"),
    (r"<\?xml|<error", "an XML document: the download may have failed"),
    (r"[{\[]\s*[\"{\[\]}]", "JSON: the download may have failed"),
    (r"#extm3u", "a playlist, not a recording"),
    (r"data:[a-z]+/", "the text of a data URI"),
)
_BRANDS = {  # brand of an ISO media file → what it is
    b"heic": "HEIC; convert it to JPEG or PNG",
    b"heix": "HEIC; convert it to JPEG or PNG",
    b"mif1": "HEIF; convert it to JPEG or PNG",
    b"M4A ": f"M4A (AAC or ALAC); {_CONVERT}",
    b"avif": "an AVIF picture",
    b"crx ": "a camera's raw picture (CR3); convert it to JPEG or PNG",
}
_BYTES = (  # magic bytes → what the file is
    (b"%PDF", "a PDF document"),
    (b"%!PS", "PostScript, which is a program"),
    (b"8BPS", "a Photoshop document; convert it to PNG"),
    (b"\xff\x0a", "JPEG XL; convert it to JPEG or PNG"),
    (b"\x00\x00\x00\x0cJXL ", "JPEG XL; convert it to JPEG or PNG"),
    (b"PK\x03\x04", "a ZIP archive; unpack it"),
    (b"\x1f\x8b", "gzip; unpack it"),
    (b"\x1a\x45\xdf\xa3", f"WebM or Matroska; {_CONVERT}"),
    (b"0&\xb2u\x8ef\xcf\x11", f"WMA; {_CONVERT}"),
    (b"#!AMR", f"AMR; {_CONVERT}"),
    (b"\xff\xf1", f"AAC; {_CONVERT}"),
    (b"\xff\xf9", f"AAC; {_CONVERT}"),
    (b"\x93NUMPY", "an array of NumPy"),
    (b"\x89HDF", "an HDF5 file"),
    (b"PAR1", "a Parquet file"),
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"GIF8", "a GIF picture"),
    (b"fLaC", "a FLAC recording"),
    (b"OggS", "an Ogg recording"),
    (b"ID3", "an MP3 recording"),
)
_READ = 512
"""Bytes that are looked at."""


def without_metadata(png: bytes) -> bytes:
    """A PNG without its texts and colour profile, which may be larger than Pillow reads; damaged data as they are."""
    kept, place = [png[:8]], 8
    while place + 12 <= len(png):
        end = place + 12 + int.from_bytes(png[place : place + 4], "big")
        if png[place + 4 : place + 8] not in {b"tEXt", b"zTXt", b"iTXt", b"iCCP"}:
            kept.append(png[place:end])
        place = end
    return b"".join([*kept, png[place:]])


def with_length(wav: bytes) -> bytes | None:
    """A WAV whose header says 0 samples, as one written to a pipe, with its real length; ``None``: it is not one."""
    if wav[:4] != b"RIFF" or wav[8:12] != b"WAVE":
        return None
    place = 12
    while place + 8 <= len(wav):
        size = int.from_bytes(wav[place + 4 : place + 8], "little")
        if wav[place : place + 4] == b"data":
            length = len(wav) - place - 8
            if size or not length:
                return None
            return wav[: place + 4] + length.to_bytes(4, "little") + wav[place + 8 :]
        place += 8 + size + size % 2
    return None


def recognise(data: bytes) -> str:
    """What ``data`` is, in a few words, though it was taken for a picture or recording; empty where it is not known."""
    start = data[:_READ]
    if not start.strip(b"\0"):
        return "nothing but zero bytes: the file was not written to its end"
    if start[4:8] == b"ftyp":
        brand = start[8:12]
        return _BRANDS.get(brand, f"MP4; {_CONVERT}")
    if start[:4] == b"RIFF" and start[8:12] in {b"WAVE", b"WEBP", b"AVI "}:
        return {b"WAVE": "a WAV recording", b"WEBP": "a WebP picture", b"AVI ": "an AVI video"}[start[8:12]]
    if start.startswith(b"OggS") and b"Speex   " in start:
        return f"Ogg Speex; {_CONVERT}"
    for magic, what in _BYTES:
        if start.startswith(magic):
            return what
    text = start.decode("utf-8-sig", "replace").strip().lower()
    return next((what for pattern, what in _TEXTS if re.match(pattern, text, re.DOTALL)), "")
