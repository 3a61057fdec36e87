"""Common corruptions of pictures: Hendrycks & Dietterich's ImageNet-C (ICLR 2019), and occlusion and black.

Strengths are those of ``imagenet_c/corruptions.py`` of their release, made for pictures of 224 pixels. Sizes in pixels
(noise grains, blur, cells) grow with the picture's short side, so that a severity means the same to a model, which
scales every picture to one size. Computed in whole numbers and float64 and rounded to 8 bit, so that rounding errors of
float64 have no effect.
"""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from mmrobust.degradations.keys import Draws

Picture = Image.Image

SIDE = 224
"""The picture size, in pixels, for which ImageNet-C's strengths are made."""
GAUSSIAN_STD = (0.08, 0.12, 0.18, 0.26, 0.38)
SHOT_PHOTONS = (60, 25, 12, 5, 3)
"""Number of photons for a white pixel: the fewer, the noisier."""
IMPULSE_SHARE = (0.03, 0.06, 0.09, 0.17, 0.27)
BLUR_SIGMA = (1, 2, 3, 4, 6)
PIXELATE = (0.6, 0.5, 0.4, 0.3, 0.25)
JPEG_QUALITY = (25, 18, 15, 10, 7)
BRIGHTNESS = (0.1, 0.2, 0.3, 0.4, 0.5)
CONTRAST = (0.4, 0.3, 0.2, 0.1, 0.05)
OCCLUDED = (0.1, 0.2, 0.3, 0.4, 0.5)
"""Share of the area under the rectangle; ImageNet-C has no occlusion."""
GREY = 127


def gaussian(picture: Picture, severity: int, draws: Draws) -> Picture:
    """White noise with a standard deviation of 0.08 to 0.38 of the range."""
    pixels = np.asarray(picture, dtype=np.float64)
    return to_picture(pixels + 255 * GAUSSIAN_STD[severity - 1] * _grains(draws.normal, pixels.shape))


def shot(picture: Picture, severity: int, draws: Draws) -> Picture:
    """Photon noise: each value is drawn from a Poisson distribution, with 60 to 3 photons for white."""
    pixels, photons = np.asarray(picture), SHOT_PHOTONS[severity - 1]
    words = _grains(draws.words, pixels.shape).ravel()
    values = pixels.ravel()
    noisy = np.empty(values.size, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    ends = np.cumsum(np.bincount(values, minlength=256))
    for value in range(256):
        where = order[ends[value - 1] if value else 0 : ends[value]]
        if where.size:
            noisy[where] = np.searchsorted(_poisson(value / 255 * photons), words[where], side="right")
    return to_picture(noisy.reshape(pixels.shape) * 255 / photons)


def impulse(picture: Picture, severity: int, draws: Draws) -> Picture:
    """Salt and pepper: 3 to 27 % of the values of each channel become 0 or 255."""
    pixels = np.array(picture)
    words, share = _grains(draws.words, pixels.shape), IMPULSE_SHARE[severity - 1]
    pixels[words < int(share * 2**32)] = 255
    pixels[words < int(share / 2 * 2**32)] = 0
    return Image.fromarray(pixels)


def blur(picture: Picture, severity: int, draws: Draws) -> Picture:
    """Gaussian blur with σ of 1 to 6 pixels at 224: three box blurs, in Pillow's fixed-point arithmetic."""
    return picture.filter(ImageFilter.GaussianBlur(BLUR_SIGMA[severity - 1] * min(picture.size) / SIDE))


def pixelate(picture: Picture, severity: int, draws: Draws) -> Picture:
    """Pixelation: the picture scaled to 0.6 to 0.25 of its size (of 224, where it is larger), and back."""
    short = min(picture.size)
    scale = PIXELATE[severity - 1] * min(short, SIDE) / short
    width, height = (max(1, int(side * scale)) for side in picture.size)
    return picture.resize((width, height), Image.Resampling.BOX).resize(picture.size, Image.Resampling.NEAREST)


def jpeg(picture: Picture, severity: int, draws: Draws) -> Picture:
    """JPEG compression of quality 25 to 7, at the picture's own size.

    The only corruption that depends on a library besides Pillow: another libjpeg may round differently.
    """
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=JPEG_QUALITY[severity - 1])
    with Image.open(io.BytesIO(buffer.getvalue())) as compressed:
        return compressed.convert("RGB")


def brightness(picture: Picture, severity: int, draws: Draws) -> Picture:
    """The value in HSV raised by 0.1 to 0.5. Hue and saturation stay, so the three channels scale together."""
    pixels = np.asarray(picture, dtype=np.float64)
    value = pixels.max(axis=2, keepdims=True)
    raised = np.minimum(value + 255 * BRIGHTNESS[severity - 1], 255)
    return to_picture(np.where(value > 0, pixels * raised / np.maximum(value, 1), raised))


def contrast(picture: Picture, severity: int, draws: Draws) -> Picture:
    """Each channel moved towards its mean: 0.4 to 0.05 of the difference remains."""
    pixels = np.asarray(picture, dtype=np.float64)
    means = np.asarray(picture).sum(axis=(0, 1), dtype=np.int64) / (pixels.shape[0] * pixels.shape[1])
    return to_picture((pixels - means) * CONTRAST[severity - 1] + means)


def occlusion(picture: Picture, severity: int, draws: Draws) -> Picture:
    """A grey rectangle of the picture's proportions over 10 to 50 % of its area (Cutout, DeVries & Taylor 2017)."""
    occluded = picture.copy()
    width, height = (max(1, round(side * math.sqrt(OCCLUDED[severity - 1]))) for side in picture.size)
    left, top = draws.between(0, picture.width - width), draws.between(0, picture.height - height)
    occluded.paste((GREY, GREY, GREY), (left, top, left + width, top + height))
    return occluded


def black(picture: Picture, severity: int, draws: Draws) -> Picture:
    """All black, at any severity: a covered lens."""
    return Image.new("RGB", picture.size)


def to_picture(pixels: npt.NDArray[np.float64]) -> Picture:
    """Pixels [H, W, 3], rounded and cut to what 8 bits hold."""
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))


def _grains(draw: Any, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Draws [H, W, 3], equal within grains: squares as large as a pixel of a 224-pixel picture is in this picture."""
    height, width, channels = shape
    grain = max(1, round(min(height, width) / SIDE))
    drawn = draw((-(-height // grain), -(-width // grain), channels))
    return np.asarray(drawn.repeat(grain, axis=0)[:height].repeat(grain, axis=1)[:, :width])


def _poisson(mean: float) -> npt.NDArray[np.uint64]:
    """The thresholds in [0, 2³²) at which a Poisson draw with this ``mean`` goes from one count to the next."""
    share = total = math.exp(-mean)
    thresholds = [total]
    while total < 1 - 2**-33 and len(thresholds) < 256:
        share *= mean / len(thresholds)
        total += share
        thresholds.append(total)
    return np.asarray([int(t * 2**32) for t in thresholds], dtype=np.uint64)
