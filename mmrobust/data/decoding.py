"""Decoding: from the encoded media of a data set to pictures and waveforms.

Every failure is one :class:`DataError` that names where the bytes came from, whatever the library underneath raises.
"""

from __future__ import annotations

import functools
import io
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import soundfile
from PIL import Image, UnidentifiedImageError

from mmrobust.cases import Case
from mmrobust.data.contents import recognise, with_length, without_metadata
from mmrobust.data.resampling import resample
from mmrobust.degradations import Degradation, Noise, degradation_of
from mmrobust.errors import DataError

if TYPE_CHECKING:
    from mmrobust.data.dataset import Sample, Split

MAX_PIXELS = 100_000_000
"""A larger picture is refused as damage or an attack: decoding it would fill the memory of a worker."""
MAX_SECONDS = 3600
"""A longer recording is refused for the same reason: its filter bank would fill the memory."""
MAX_AUDIO_SAMPLES = 100_000_000
"""Limit for all channels together."""
RATES = (1_000, 1_000_000)
"""Lowest and highest sampling rate in Hz. Beyond them, resampling turns a small file into gigabytes."""
FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "JPEG2000", "PPM", "TGA", "PCX", "SGI", "ICO", "DIB")
"""Formats that pictures may have, by Pillow's names. Pillow reads more, such as EPS, which it hands to Ghostscript."""

FLOAT_SCALES = ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0), (0.0, 65535.0))
"""Black and white of pictures with floating-point pixels: the first into which the pixels fit is taken."""
OVERSHOOT = 0.05
"""Share of a scale by which pixels may lie beside it, as after a sharp resize; they are clipped."""
LOUDEST = 8.0
"""Floating-point samples may exceed ±1 (up to 18 dB), as after mixing. Beyond, they are on the scale of integers."""
INTEGER_SCALES = (2.0**15, 2.0**23, 2.0**31)
SILENT = 1e-3
"""Channels cancel each other out where their mean has less than this share of their power (30 dB)."""

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

    Transparency is composited over white, 16-bit greys are scaled to 8 bit, palettes and CMYK are converted, and EXIF
    rotation is applied. Of an animation, the first frame is taken. Messages begin with ``origin`` (sample, file).

    Raises:
        DataError: the bytes are empty, truncated, broken or no picture of the :data:`FORMATS`, or it has over
            :data:`MAX_PIXELS`.
    """
    if not data:
        raise DataError(f"{origin}: the picture is empty (0 bytes)")
    try:
        # Pillow warns of odd EXIF data, palettes and sizes. All are handled here, or raised as an error below.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                return _decoded(data, origin)
            except ValueError as cause:  # metadata that expand to over 1 MiB, which affect no pixel
                if "MAX_TEXT" not in str(cause):
                    raise
                return _decoded(without_metadata(data), origin)
    except DataError:
        raise
    except UnidentifiedImageError as cause:
        what = recognise(data)
        said = f" (it is {what})" if what and "picture" not in what else ""  # a damaged picture is one all the same
        raise DataError(f"{origin}: is not a picture in a format that can be read{said}") from cause
    except Exception as cause:  # on broken files Pillow's decoders raise nearly anything: SyntaxError, struct.error …
        raise DataError(f"{origin}: the picture cannot be read ({_reason(cause)})") from cause


def is_transparent(data: bytes) -> bool:
    """Whether :func:`decode_image` lays parts of a picture, which it can decode, on white."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = Image.open(io.BytesIO(data), formats=FORMATS)
            alpha = image.convert("RGBA").getchannel("A").getextrema() if image.has_transparency_data else None
        except Exception:  # metadata that expand too far, as in decode_image: no reason to stop, for a remark
            return False
    return alpha is not None and alpha != (255, 255)


def _decoded(data: bytes, origin: str) -> Image.Image:
    """The picture in ``data``, upright, in mode RGB; whatever Pillow raises."""
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        if image.width * image.height > MAX_PIXELS:
            size = f"{image.width}×{image.height}"
            raise DataError(f"{origin}: the picture has {size} pixels, more than {MAX_PIXELS:,}")
        image.load()
        turn = _UPRIGHT.get(_orientation(image))
        return _rgb(image) if turn is None else _rgb(image).transpose(turn)


def _rgb(image: Image.Image) -> Image.Image:
    """``image`` in mode RGB."""
    if image.mode == "I" or image.mode.startswith("I;16"):  # Pillow's own conversion clips 16 bit at 255: all white
        levels = np.asarray(image).astype(np.int64)
        eight = image.format == "TIFF" and image.mode == "I" and levels.max() <= 255  # 8 bit, stored as 32
        grey = np.clip(levels, 0, 255) if eight else np.clip(levels, 0, 65535) // 257
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        return Image.fromarray(_levels(np.asarray(image, dtype=np.float64))).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


def _levels(values: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    """Floating-point pixels as greys of 8 bit, by the scale that their range shows: see :data:`FLOAT_SCALES`."""
    if not np.isfinite(values).all():
        raise ValueError("it holds NaN or infinite pixels")
    low, high = float(values.min()), float(values.max())
    for black, white in FLOAT_SCALES:
        slack = OVERSHOOT * (white - black)
        if low >= black - min(slack, 2 * OVERSHOOT * (high - black)) and high <= white + slack:
            scaled = (values - black) * (255 / (white - black))
            return np.clip(scaled, 0, 255).astype(np.uint8)
    known = ", ".join(f"{black:g} to {white:g}".replace("-", "−") for black, white in FLOAT_SCALES)
    raise ValueError(f"its pixels range from {low:g} to {high:g}, which is none of the scales {known}")


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation; 1 (upright) where there is none."""
    try:
        return int(image.getexif().get(_EXIF_ORIENTATION, 1))
    except Exception:  # broken EXIF data do not affect the pixels
        return 1


def decode_audio(data: bytes, origin: str) -> tuple[npt.NDArray[np.float32], int]:
    """Decode the recording in ``data`` to mono: the samples [n] in −1 … 1 (n ≥ 1), and its own rate in Hz.

    It may have any format that libsndfile reads (WAV, FLAC, OGG, MP3 …). Channels are averaged; where they cancel each
    other out (a balanced line that was recorded as stereo), the loudest one is taken. Floating-point samples may exceed
    ±1 as far as :data:`LOUDEST`; whole numbers beyond are taken for integers of 16, 24 or 32 bit, and scaled. A file
    cut off in the middle is read as far as it goes: headers of streamed recordings often promise more. Messages begin
    with ``origin``.

    Raises:
        DataError: the bytes are not a recording, or it has no samples, samples that are not finite or on no known
            scale, a rate outside :data:`RATES`, or a length of over an hour.
    """
    if not data:
        raise DataError(f"{origin}: the recording is empty (0 bytes)")
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as sound:
            rate = int(sound.samplerate)
            most = min(MAX_SECONDS * rate, MAX_AUDIO_SAMPLES // max(1, sound.channels))
            # Never trust the number of samples in the header.
            channels = sound.read(most + 1, dtype="float32", always_2d=True)  # [n, channels]
    except Exception as cause:  # mostly LibsndfileError, but wrong headers raise others
        what = recognise(data)
        said = f"it is {what}" if what and "recording" not in what else _reason(cause)
        raise DataError(f"{origin}: the recording cannot be read ({said})") from cause
    if not channels.size:
        if (whole := with_length(data)) is not None:  # written to a pipe
            return decode_audio(whole, origin)
        raise DataError(f"{origin}: the recording is empty (0 samples)")
    if not RATES[0] <= rate <= RATES[1]:
        raise DataError(f"{origin}: the recording's rate is {rate:,} Hz, not from {RATES[0]:,} to {RATES[1]:,}")
    if len(channels) > most:
        raise DataError(f"{origin}: the recording is longer than an hour, or than {MAX_AUDIO_SAMPLES:,} samples")
    if not np.isfinite(channels).all():
        raise DataError(f"{origin}: the recording holds NaN or infinite samples")
    return _mono(_scaled(channels, origin)), rate


def _scaled(channels: npt.NDArray[np.float32], origin: str) -> npt.NDArray[np.float32]:
    """``channels`` [n, channels] in −1 … 1, where their samples are on the scale of integers."""
    peak = float(np.abs(channels).max())
    if peak <= LOUDEST:
        return channels
    scale = next((scale for scale in INTEGER_SCALES if peak <= scale), 0.0)
    if scale and bool((channels == np.rint(channels)).all()):
        return channels / np.float32(scale)
    raise DataError(
        f"{origin}: the recording's samples reach ±{peak:,.5g}, not ±1; write it again, divided by their scale (32,768 "
        "for 16 bit)"
    )


def _mono(channels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The mean [n] of ``channels`` [n, channels], or the loudest of them where they cancel each other out."""
    mean: npt.NDArray[np.float32] = channels.mean(axis=1, dtype=np.float32)
    if channels.shape[1] == 1:
        return mean
    powers = np.mean(np.square(channels, dtype=np.float64), axis=0)
    if np.mean(np.square(mean, dtype=np.float64)) >= SILENT * powers.max():
        return mean
    return np.ascontiguousarray(channels[:, int(powers.argmax())])


def _reason(cause: Exception) -> str:
    """The message of a decoder, without the address of the buffer that it read from."""
    message = getattr(cause, "error_string", "") or re.sub(r"<_io\.BytesIO[^>]*>", "", str(cause))
    message = message.replace("Error opening", "").strip(" :.'\"")
    return " ".join(message.split()) or type(cause).__name__


DECODERS: Mapping[str, Callable[[bytes, str], Any]] = {"image": decode_image, "audio": decode_audio}
"""Kind of an encoded modality → what decodes it."""


def check_features(values: Any, origin: str, width: int | None = None) -> npt.NDArray[np.float32]:
    """Return features as an array float32 [D] or [T, D]; messages begin with ``origin``.

    Raises:
        DataError: they are empty, of another shape or width, no numbers, or not finite.
    """
    try:
        with np.errstate(over="ignore"):
            array = np.asarray(values).astype(np.float32)
    except (ValueError, TypeError) as cause:
        raise DataError(f"{origin}: is no array of numbers, [D], or [T, D] along time") from cause
    if array.ndim not in (1, 2) or not array.size:
        raise DataError(f"{origin}: has shape {list(array.shape)}, not [D], or [T, D] along time")
    if width is not None and array.shape[-1] != width:
        raise DataError(f"{origin}: has {array.shape[-1]} dimensions, in the training split it has {width}")
    if not np.isfinite(array).all():
        raise DataError(f"{origin}: holds values that are missing, NaN or infinite")
    return array


def decode(sample: Sample, modality: str) -> Any:
    """Decode one modality of a sample to what a processor takes.

    That is a ``PIL.Image``, a ``str``, a pair (waveform, rate in Hz), or features float32 [D] or [T, D], by its kind.

    Raises:
        DataError: it cannot be decoded; names the sample.
    """
    kind = modality if sample.info is None else sample.info.kinds[modality]
    medium = sample.media.get(modality)
    if kind == "text":
        return medium
    origin = f"sample '{sample.id}' of {sample.origin}"
    if medium is None:
        raise DataError(f"{origin}: its {modality} has a path but no bytes; prepare the data set again")
    if kind == "features":
        facts = None if sample.info is None else sample.info.features[modality]
        return check_features(medium, f"{origin}: its {modality}", None if facts is None else len(facts.mean))
    return DECODERS[kind](medium, origin)  # type: ignore[arg-type]  # bytes, by its kind


class SplitRecordings:
    """One modality's recordings in a split, of which babble is made: :class:`mmrobust.degradations.keys.Recordings`.

    They are those of the whole split, so that a shard of it, or its first samples alone, draw the same ones.
    """

    def __init__(self, split: Split, modality: str = "audio") -> None:
        self._split, self._modality = split, modality

    @functools.cached_property
    def _position(self) -> dict[str, int]:
        present = self._split.presence.get(self._modality, np.zeros(0, dtype=np.bool_))
        return {self._split.ids[position]: int(position) for position in np.flatnonzero(present)}

    @functools.cached_property
    def ids(self) -> Sequence[str]:
        """The ids of the samples that have a recording, sorted."""
        return sorted(self._position)

    def read(self, sample_id: str, rate: int) -> npt.NDArray[np.float32]:
        """The waveform [n] of a sample; see :meth:`mmrobust.degradations.keys.Recordings.read`."""
        (sample,) = self._split.read([self._position[sample_id]])
        waveform, own_rate = decode(sample, self._modality)
        return resample(waveform, own_rate, rate)


class SplitDegrader:
    """Says what a case does to the samples of a split.

    It knows what a degradation may need besides the sample itself: kinds, other recordings, and what features are
    standardised by.
    """

    def __init__(self, split: Split) -> None:
        self._info = split.info
        self._recordings = {m: SplitRecordings(split, m) for m, kind in split.info.kinds.items() if kind == "audio"}
        self._standards = {modality: facts.standard for modality, facts in split.info.features.items()}

    def degradation(self, case: Case, modality: str, sample_id: str, noise: Noise) -> Degradation:
        """What ``case`` does to a modality of a sample; see :func:`mmrobust.degradations.degradation_of`."""
        return degradation_of(
            case,
            modality,
            sample_id,
            noise,
            self._recordings.get(modality),
            kind=self._info.kinds[modality],
            standard=self._standards.get(modality),
        )
