"""Pictures under one cause that also changes the sound: rain, wind, a crowd, a line of low bandwidth, an impact.

After the families of AVRobustBench (Maharana et al. 2025), in which picture and sound are corrupted together; made from
their description, not from its code. :mod:`mmrobust.degradations.audio_causes` has the sounds. Sizes in pixels are
those of a picture of 224.
"""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
from PIL import Image

from mmrobust.degradations.image import SIDE, Picture, to_picture
from mmrobust.degradations.keys import Draws

RAIN_SHARE = (0.002, 0.004, 0.006, 0.009, 0.013)
"""Of the pixels, in which a streak begins."""
RAIN_LENGTH = (8, 10, 12, 15, 18)
RAIN_HAZE = (0.05, 0.12, 0.2, 0.28, 0.36)
WIND_SMEAR = (4, 7, 11, 16, 22)
CROWD_HEIGHT = (0.15, 0.25, 0.35, 0.45, 0.55)
"""Of the picture's height, up to where heads reach."""
LINE_SCALE = (0.6, 0.45, 0.33, 0.25, 0.18)
LINE_QUALITY = (40, 30, 22, 15, 10)
JOLT = (6, 11, 17, 24, 32)
_STEPS = 24  # copies that a smear is the mean of, at most


def rain(picture: Picture, severity: int, draws: Draws) -> Picture:
    """Bright streaks, slanting all alike, before a haze."""
    force, pixels = draws.force(), np.asarray(picture, dtype=np.float64)
    grain = max(1, round(min(picture.size) / SIDE))
    height, width = (-(-side // grain) for side in pixels.shape[:2])
    drops = draws.words((height, width)) < int(RAIN_SHARE[severity - 1] * force * 2**32)
    slant, streaks = draws.between(-4, 4), np.zeros((height, width), dtype=bool)
    for step in range(RAIN_LENGTH[severity - 1]):
        streaks |= np.roll(drops, (step, slant * step // 8), axis=(0, 1))
    lit = streaks.repeat(grain, axis=0)[: picture.height].repeat(grain, axis=1)[:, : picture.width, None]
    haze = RAIN_HAZE[severity - 1] * force
    hazy = pixels * (1 - haze) + 160 * haze
    return to_picture(np.where(lit, hazy * 0.4 + 230 * 0.6, hazy))


def wind(picture: Picture, severity: int, draws: Draws) -> Picture:
    """Smeared sideways: a camera, or leaves, that the wind moves."""
    force = draws.force()
    length = WIND_SMEAR[severity - 1] * force * min(picture.size) / SIDE
    return _smeared(picture, length, draws.between(-2, 2) / 8 * length)


def crowd(picture: Picture, severity: int, draws: Draws) -> Picture:
    """Dark heads and shoulders before the lower part of the picture, which they fill from side to side."""
    force, pixels = draws.force(), np.array(picture)
    width, height = picture.size
    tall, heads = CROWD_HEIGHT[severity - 1] * force * height, 3 + severity
    y, x = np.ogrid[:height, :width]
    for head in range(heads):
        radius = 0.42 * width / heads
        centre = (head + 0.5) * width / heads + draws.between(-20, 20) / 100 * radius
        top = height - tall * draws.between(75, 100) / 100
        shade, middle = draws.between(10, 60), top + min(radius * 1.2, tall / 2)
        round_head = ((x - centre) / radius) ** 2 + ((y - middle) / (middle - top)) ** 2 <= 1
        shoulders = (y > middle + 0.7 * (middle - top)) & (abs(x - centre) <= 0.6 * width / heads)
        pixels[round_head | shoulders] = shade
    return Image.fromarray(pixels)


def low_bandwidth(picture: Picture, severity: int, draws: Draws) -> Picture:
    """Sent in 0.6 to 0.18 of its size as JPEG of quality 40 to 10. Depends on libjpeg, as JPEG does."""
    scale = LINE_SCALE[severity - 1] * (2 - draws.force())
    small = picture.resize([max(1, round(side * scale)) for side in picture.size], Image.Resampling.BOX)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=LINE_QUALITY[severity - 1])
    with Image.open(io.BytesIO(buffer.getvalue())) as sent:
        return sent.convert("RGB").resize(picture.size, Image.Resampling.BILINEAR)


def impact(picture: Picture, severity: int, draws: Draws) -> Picture:
    """Smeared along the way that a knock moves the camera, in any direction."""
    force = draws.force()
    length = JOLT[severity - 1] * force * min(picture.size) / SIDE
    across = draws.between(-8, 8) / 8
    return _smeared(picture, length * across, length * (1 - abs(across) / 2))


def _smeared(picture: Picture, right: float, down: float) -> Picture:
    """The mean of copies moved from −½ to +½ of a way in pixels; edges are repeated."""
    pixels = np.asarray(picture, dtype=np.float64)
    steps = min(_STEPS, max(2, 1 + round(max(abs(right), abs(down)))))
    y, x = np.arange(picture.height), np.arange(picture.width)
    total: npt.NDArray[np.float64] = np.zeros_like(pixels)
    for step in range(steps):
        at = step / (steps - 1) - 0.5
        rows = np.clip(y + round(down * at), 0, picture.height - 1)
        columns = np.clip(x + round(right * at), 0, picture.width - 1)
        total += pixels[rows[:, None], columns]
    return to_picture(total / steps)
