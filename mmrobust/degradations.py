"""Degradations: noise on encoded inputs, keyed by sample, so that a degraded input is a pure function.

Prompt the Missing's noise (Park, CVPRW 2025; ``apply_noise_to_batch`` in ``src/utilities/util.py`` of its release),
one kind drawn for each sample. It works on what a backbone's processor gives: a normalised filter bank [frames, mel], a
normalised image [3, H, W]. All draws come from blake2b of (seed, profile, modality, sample id), so a sample is
degraded alike in any order, batch or shard, on every machine: bit generators' raw words, integers and float64, never a
library's normal distribution, whose stream changes with the library.

Two profiles. ``default`` is what the paper describes: audio is shifted and masked along time, images get one of four
kinds. ``released`` is what the released code does: it shifts and masks the MEL axis and always blacks the image.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mmrobust.errors import UsageError, unknown_name

if TYPE_CHECKING:
    from torch import Tensor

Array = npt.NDArray[np.float32]

DEFAULT, RELEASED = "default", "released"

AUDIO_STD, AUDIO_STD_MILD = 10.0, 1.0
IMAGE_STD, IMAGE_STD_MILD = 5.0, 0.5
IMAGE_LIMIT = 3.0
BLUR_SIDE = 224
"""The image size that the kernels of the paper are for."""
BLUR_KERNEL, BLUR_KERNEL_MILD = 51, 7
PIXELATE, PIXELATE_MILD = 0.05, 0.3
MASK_SHARE = 4
"""A mask covers up to a quarter of its axis."""


@dataclass(frozen=True)
class Noise:
    """Which noise: what, beside the sample, decides a degraded input.

    Raises:
        UsageError: an unknown profile.
    """

    profile: str = DEFAULT
    seed: int = 0

    def __post_init__(self) -> None:
        if self.profile not in PROFILES:
            raise unknown_name("noise profile", self.profile, PROFILES)


class Draws:
    """A stream of draws that depends on its key alone."""

    def __init__(self, key: str) -> None:
        # NumPy promises the raw stream of a seeded bit generator for good, unlike that of its distributions.
        self._bits = np.random.PCG64(int.from_bytes(hashlib.blake2b(key.encode(), digest_size=16).digest(), "big"))

    def between(self, low: int, high: int) -> int:
        """Draw a whole number in [low, high], both included."""
        return low + int(self._bits.random_raw()) % (high - low + 1)

    def normal(self, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
        """White noise of mean 0 and variance 1: sums of eight bytes, near enough to a normal distribution."""
        words = np.asarray(self._bits.random_raw(int(np.prod(shape))), dtype=np.uint64)
        sums = words.view(np.uint8).reshape(-1, 8).sum(axis=1, dtype=np.int64) - 8 * 255 // 2
        return np.asarray(sums / np.sqrt(8 * (256**2 - 1) / 12), dtype=np.float64).reshape(shape)


def audio_gaussian(bank: Array, draws: Draws, mild: bool) -> Array:
    """Filter bank [frames, mel] + N(0, 10²); N(0, 1) where the image is noisy too."""
    std = AUDIO_STD_MILD if mild else AUDIO_STD
    return np.asarray(bank + std * draws.normal(bank.shape), dtype=np.float32)


def time_shift(bank: Array, draws: Draws, mild: bool) -> Array:
    """Filter bank [frames, mel] rolled along time by any number of frames but 0."""
    return np.roll(bank, draws.between(1, max(1, len(bank) - 1)), axis=0)


def mel_shift(bank: Array, draws: Draws, mild: bool) -> Array:
    """Filter bank [frames, mel] rolled along MEL, by up to half of it either way: the release's ``shift``."""
    bins = bank.shape[1]
    return np.roll(bank, draws.between(-(bins // 2), (bins - 1) // 2), axis=1)


def time_mask(bank: Array, draws: Draws, mild: bool) -> Array:
    """Filter bank [frames, mel] with a stretch of one frame to a quarter of them set to 0, the mean."""
    frames = len(bank)
    width = draws.between(1, max(1, frames // MASK_SHARE))
    start = draws.between(0, frames - width)
    masked = bank.copy()
    masked[start : start + width] = 0.0
    return masked


def mel_mask(bank: Array, draws: Draws, mild: bool) -> Array:
    """Filter bank [frames, mel] with fewer than a quarter of the MEL bins, maybe none, set to 0.

    The release's ``time_mask``.
    """
    bins = bank.shape[1]
    width = draws.between(0, max(0, bins // MASK_SHARE - 1))
    start = draws.between(0, bins - width - 1)
    masked = bank.copy()
    masked[:, start : start + width] = 0.0
    return masked


def image_gaussian(image: Array, draws: Draws, mild: bool) -> Array:
    """Image [3, H, W] + N(0, 5²) (0.5² where the audio is noisy too), clamped to ±3."""
    std = IMAGE_STD_MILD if mild else IMAGE_STD
    noisy = np.clip(image + std * draws.normal(image.shape), -IMAGE_LIMIT, IMAGE_LIMIT)
    return np.asarray(noisy, dtype=np.float32)


def box_blur(image: Array, draws: Draws, mild: bool) -> Array:
    """Image [3, H, W] under a box of 51 pixels (7) at 224 pixels, and as large a share of other sizes.

    Zeros lie around the image, as in the release. By running sums in float64: one order of summation everywhere.
    """
    reach = (BLUR_KERNEL_MILD if mild else BLUR_KERNEL) * min(image.shape[1:]) // BLUR_SIDE // 2
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


def pixelate(image: Array, draws: Draws, mild: bool) -> Array:
    """Image [3, H, W] in cells: scaled to 0.05 of its sides (0.3) bilinearly, and back to its size by the nearest."""
    factor = PIXELATE_MILD if mild else PIXELATE
    small: npt.NDArray[np.float64] = np.asarray(image, dtype=np.float64)
    for axis in (1, 2):
        size = image.shape[axis]
        cells = max(1, int(size * factor))
        # The middle of each cell, in pixels: PyTorch's interpolation with a scale factor.
        at = np.clip((np.arange(cells) + 0.5) / factor - 0.5, 0, size - 1)
        low = at.astype(np.int64)
        share = (at - low).reshape((-1, 1) if axis == 1 else (1, -1))
        high = np.minimum(low + 1, size - 1)
        small = small.take(low, axis=axis) * (1 - share) + small.take(high, axis=axis) * share
    for axis in (1, 2):
        size, cells = image.shape[axis], small.shape[axis]
        small = small.take(np.arange(size) * cells // size, axis=axis)
    return np.asarray(small, dtype=np.float32)


def black(image: Array, draws: Draws, mild: bool) -> Array:
    """Image [3, H, W] of zeros after normalisation: what the release calls black is the mean colour."""
    return np.zeros_like(image)


DEGRADATIONS: dict[str, Callable[[Array, Draws, bool], Array]] = {
    "audio-gaussian": audio_gaussian,
    "time-shift": time_shift,
    "time-mask": time_mask,
    "mel-shift": mel_shift,
    "mel-mask": mel_mask,
    "image-gaussian": image_gaussian,
    "box-blur": box_blur,
    "pixelate": pixelate,
    "black": black,
}
"""Name → function of (encoded input, draws, whether it is mild because both modalities are noisy) → degraded input."""

PROFILES: dict[str, Mapping[str, tuple[str, ...]]] = {
    DEFAULT: {
        "audio": ("audio-gaussian", "time-shift", "time-mask"),
        "image": ("image-gaussian", "box-blur", "pixelate", "black"),
    },
    RELEASED: {"audio": ("audio-gaussian", "mel-shift", "mel-mask"), "image": ("black",)},
}
"""Profile → modality → kinds, one of which is drawn for each sample."""


def degrade(tensor: Tensor, modality: str, sample_id: str, noise: Noise, *, mild: bool = False) -> Tensor:
    """An encoded input under noise: a new tensor of the same shape, type and device, a pure function of its arguments.

    Args:
        tensor: normalised filter bank [frames, mel] or image [3, H, W].
        modality: ``audio`` or ``image``.
        sample_id: id of the sample.
        noise: profile and seed.
        mild: whether another modality of the sample is noisy as well.

    Raises:
        UsageError: a modality for which there is no noise.
    """
    import torch

    name, draws = drawn_kind(modality, sample_id, noise)
    values: Any = tensor.detach().to("cpu", torch.float32).numpy()
    degraded = np.ascontiguousarray(DEGRADATIONS[name](values, draws, mild))
    return torch.from_numpy(degraded).to(tensor.device, tensor.dtype)


def drawn_kind(modality: str, sample_id: str, noise: Noise) -> tuple[str, Draws]:
    """Which of the profile's kinds a sample gets, and the stream that the kind draws from.

    Raises:
        UsageError: a modality for which there is no noise.
    """
    kinds = PROFILES[noise.profile].get(modality)
    if kinds is None:
        raise UsageError(f"there is no noise for {modality}; noise profile {noise.profile} has audio and image")
    draws = Draws(f"{noise.seed}/{noise.profile}/{modality}/{sample_id}")
    return kinds[draws.between(0, len(kinds) - 1)], draws
