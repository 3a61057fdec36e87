"""Prompt the Missing's noise (Park, CVPRW 2025; ``apply_noise_to_batch`` in ``src/utilities/util.py`` of its release).

It acts on the output of a backbone's processor: a normalised filter bank [frames, mel], a normalised image [3, H, W].
The paper has two strengths: the full one where one modality is noisy, and a mild one where both are. They are
severities 5 and 1 here; those in between are spaced evenly, as ratios. Shifts, masks and black have only one strength.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mmrobust.degradations.keys import Draws

Array = npt.NDArray[np.float32]

AUDIO_STD = (1.0, 1.8, 3.2, 5.6, 10.0)
IMAGE_STD = (0.5, 0.9, 1.6, 2.8, 5.0)
IMAGE_LIMIT = 3.0
BLUR_SIDE = 224
"""The image size for which the paper's kernels are made."""
BLUR_KERNEL = (7, 11, 19, 31, 51)
PIXELATE = (0.3, 0.19, 0.12, 0.08, 0.05)
MASK_SHARE = 4
"""A mask covers at most one over this of its axis: a quarter."""


def audio_gaussian(bank: Array, severity: int, draws: Draws) -> Array:
    """Filter bank [frames, mel] + N(0, 10²) at severity 5, N(0, 1) at 1."""
    return np.asarray(bank + AUDIO_STD[severity - 1] * draws.normal(bank.shape), dtype=np.float32)


def time_shift(bank: Array, severity: int, draws: Draws) -> Array:
    """Filter bank [frames, mel] rolled along time by a random number of frames, but not 0."""
    return np.roll(bank, draws.between(1, max(1, len(bank) - 1)), axis=0)


def mel_shift(bank: Array, severity: int, draws: Draws) -> Array:
    """Filter bank [frames, mel] rolled along MEL, by up to half of it in either direction: the release's ``shift``."""
    bins = bank.shape[1]
    return np.roll(bank, draws.between(-(bins // 2), (bins - 1) // 2), axis=1)


def time_mask(bank: Array, severity: int, draws: Draws) -> Array:
    """Filter bank [frames, mel] with one frame to a quarter of them, in one piece, set to 0, the mean."""
    width = draws.between(1, max(1, len(bank) // MASK_SHARE))
    start = draws.between(0, len(bank) - width)
    masked = bank.copy()
    masked[start : start + width] = 0.0
    return masked


def mel_mask(bank: Array, severity: int, draws: Draws) -> Array:
    """Filter bank [frames, mel] with fewer than a quarter of the MEL bins, possibly none, set to 0.

    This is ``time_mask`` of the release.
    """
    bins = bank.shape[1]
    width = draws.between(0, max(0, bins // MASK_SHARE - 1))
    start = draws.between(0, bins - width - 1)
    masked = bank.copy()
    masked[:, start : start + width] = 0.0
    return masked


def image_gaussian(image: Array, severity: int, draws: Draws) -> Array:
    """Image [3, H, W] + N(0, 5²) at severity 5, N(0, 0.5²) at 1, clamped to ±3."""
    noisy = image + IMAGE_STD[severity - 1] * draws.normal(image.shape)
    return np.asarray(np.clip(noisy, -IMAGE_LIMIT, IMAGE_LIMIT), dtype=np.float32)


def box_blur(image: Array, severity: int, draws: Draws) -> Array:
    """Image [3, H, W] blurred by a box of 51 pixels (7 at severity 1) at 224 pixels, in proportion at other sizes.

    The image is padded with zeros, as in the release. Computed by running sums in float64, so that the order of
    summation is the same everywhere.
    """
    reach = BLUR_KERNEL[severity - 1] * min(image.shape[1:]) // BLUR_SIDE // 2
    kernel = 2 * max(1, reach) + 1
    sums: npt.NDArray[np.float64] = np.asarray(image, dtype=np.float64)
    for axis in (1, 2):
        around = [(0, 0)] * 3
        around[axis] = (kernel // 2 + 1, kernel // 2)
        running = np.cumsum(np.pad(sums, around), axis=axis)
        size = image.shape[axis]
        ends = running.take(range(kernel, kernel + size), axis=axis)
        sums = ends - running.take(range(size), axis=axis)
    return np.asarray(sums / kernel**2, dtype=np.float32)


def pixelate(image: Array, severity: int, draws: Draws) -> Array:
    """Image [3, H, W] scaled to 0.05 of its sides (0.3 at severity 1), bilinearly, and back by nearest neighbour."""
    factor = PIXELATE[severity - 1]
    small: npt.NDArray[np.float64] = np.asarray(image, dtype=np.float64)
    for axis in (1, 2):
        size = image.shape[axis]
        cells = max(1, int(size * factor))
        # The middle of each cell, in pixels, as in PyTorch's interpolation with a scale factor.
        at = np.clip((np.arange(cells) + 0.5) / factor - 0.5, 0, size - 1)
        low = at.astype(np.int64)
        share = (at - low).reshape((-1, 1) if axis == 1 else (1, -1))
        high = np.minimum(low + 1, size - 1)
        small = small.take(low, axis=axis) * (1 - share) + small.take(high, axis=axis) * share
    for axis in (1, 2):
        size, cells = image.shape[axis], small.shape[axis]
        small = small.take(np.arange(size) * cells // size, axis=axis)
    return np.asarray(small, dtype=np.float32)


def black(image: Array, severity: int, draws: Draws) -> Array:
    """Image [3, H, W] of zeros after normalisation: what the release calls black is the mean colour."""
    return np.zeros_like(image)
