"""Decoding: encoded media, as they lie in a data set, into pictures and waveforms.

Every failure is one :class:`DataError` that names where the bytes came from, whatever the library underneath says.
"""

from __future__ import annotations

import io
import math
import warnings

import numpy as np
import numpy.typing as npt
import soundfile
from PIL import Image, UnidentifiedImageError

from mmrobust.errors import DataError

MAX_PIXELS = 100_000_000
"""A larger picture is taken for damage or an attack, not decoded: it would fill the memory of a worker."""

MOST_SECONDS = 3600
"""A longer recording is taken for damage or an attack as well: its filter bank would fill the memory."""
MOST_SAMPLES = 100_000_000
"""Of all channels together."""
RATES = (1_000, 1_000_000)
"""Hz, the least and the most. Beyond them, resampling turns a small file into gigabytes."""

FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "JPEG2000", "PPM", "TGA", "PCX", "SGI", "ICO", "DIB")
"""Formats that pictures may have, by Pillow's names. It knows more, among them EPS, which it gives to Ghostscript."""

_EXIF_ORIENTATION = 0x0112
_UPRIGHT = {  # EXIF orientation → what turns the stored picture upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode_image(data: bytes, origin: str) -> Image.Image:
    """Decode the picture in ``data``, upright, in mode RGB.

    Transparency is composited over white, 16-bit greys are scaled to 8 bit, palettes and CMYK are converted, EXIF
    rotation is applied; of an animation, the first frame counts.

    Args:
        data: an encoded picture, in one of :data:`FORMATS`.
        origin: where the bytes lie (sample, file), for the message.

    Raises:
        DataError: the bytes are empty, truncated or broken, no picture, or one of over :data:`MAX_PIXELS`.

    """
    if not data:
        raise DataError(f"{origin}: the picture is empty (0 bytes)")
    try:
        # Pillow warns of odd EXIF data, palettes and sizes; each is handled here, or raised as an error below.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise DataError(
                        f"{origin}: the picture has {image.width}×{image.height} pixels, more than {MAX_PIXELS:,}"
                    )
                image.load()
                return _upright(_rgb(image), _orientation(image))
    except DataError:
        raise
    except UnidentifiedImageError as cause:
        raise DataError(f"{origin}: is no picture in a format that can be read") from cause
    except (
        Exception
    ) as cause:  # a broken file makes Pillow's decoders raise nearly anything: SyntaxError, struct.error …
        raise DataError(f"{origin}: the picture cannot be read ({_reason(cause)})") from cause


def _rgb(image: Image.Image) -> Image.Image:
    """``image`` in mode RGB."""
    if image.mode == "I" or image.mode.startswith("I;16"):  # Pillow's own conversion clips 16 bit at 255: all white
        grey = np.clip(np.asarray(image).astype(np.int64), 0, 65535) // 257
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        values = np.asarray(image, dtype=np.float64)
        if not np.isfinite(values).all():
            raise ValueError("it holds NaN or infinite pixels")
        values = values * 255 if values.max() <= 1 else values
        return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


def _orientation(image: Image.Image) -> int:
    """Read the EXIF orientation, 1 (upright) where there is none."""
    try:
        return int(image.getexif().get(_EXIF_ORIENTATION, 1))
    except Exception:  # broken EXIF data say nothing about the pixels
        return 1


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    turn = _UPRIGHT.get(orientation)
    return image if turn is None else image.transpose(turn)


def decode_audio(data: bytes, origin: str) -> tuple[npt.NDArray[np.float32], int]:
    """Decode the recording in ``data``: mono (the mean of the channels), at its own rate.

    Of a file cut off in the middle, what is there is read: headers of streamed recordings often promise more.

    Args:
        data: an encoded recording, in any format that libsndfile reads (WAV, FLAC, OGG, MP3 …).
        origin: where the bytes lie (sample, file), for the message.

    Returns:
        The samples [n] in −1 … 1 (n ≥ 1), and the rate in Hz.

    Raises:
        DataError: the bytes are no recording, or one without samples, with samples that are not finite, of an absurd
            rate, or of over an hour.

    """
    if not data:
        raise DataError(f"{origin}: the recording is empty (0 bytes)")
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as sound:
            rate = int(sound.samplerate)
            most = min(MOST_SECONDS * rate, MOST_SAMPLES // max(1, sound.channels))
            # Not as many as the header promises: it may promise anything.
            channels = sound.read(most + 1, dtype="float32", always_2d=True)  # [n, channels]
    except Exception as cause:  # LibsndfileError mostly, but headers that lie raise others
        raise DataError(f"{origin}: the recording cannot be read ({_reason(cause)})") from cause
    if not channels.size:
        raise DataError(f"{origin}: the recording is empty (0 samples)")
    if not RATES[0] <= rate <= RATES[1]:
        raise DataError(f"{origin}: the recording's rate is {rate:,} Hz, not from {RATES[0]:,} to {RATES[1]:,}")
    if len(channels) > most:
        raise DataError(f"{origin}: the recording is longer than an hour, or than {MOST_SAMPLES:,} samples")
    waveform: npt.NDArray[np.float32] = channels.mean(axis=1, dtype=np.float32)
    if not np.isfinite(waveform).all():
        raise DataError(f"{origin}: the recording holds NaN or infinite samples")
    return waveform, rate


def resample(waveform: npt.NDArray[np.float32], rate: int, target_rate: int) -> npt.NDArray[np.float32]:
    """``waveform`` [n] of ``rate`` Hz at ``target_rate`` Hz [⌈n · target_rate / rate⌉], by a polyphase filter.

    Raises:
        ValueError: a rate that is not positive.

    """
    if rate <= 0 or target_rate <= 0:
        raise ValueError(f"rates of {rate} Hz and {target_rate} Hz: both must be positive")
    if rate == target_rate:
        return waveform
    from scipy.signal import resample_poly

    common = math.gcd(rate, target_rate)
    resampled = resample_poly(waveform, target_rate // common, rate // common)
    return np.asarray(resampled, dtype=np.float32)


def _reason(cause: Exception) -> str:
    """Repeat what a decoder said, without the address of the buffer that it read from."""
    said = str(cause).split("<_io.BytesIO")[0].strip(" :")
    said = said.removeprefix("Error opening").strip(" :") if said.startswith("Error opening") else said
    return said or type(cause).__name__
