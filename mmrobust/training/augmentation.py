"""Augmentation of encoded training samples, for backbones that learn from scratch on little data.

All draws come from a generator, which is seeded for each epoch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

SHIFT = 0.1
"""Largest shift, as a share of the image's size or the filter bank's length."""
ROTATION = math.radians(12)
SCALE = 0.12
MASK = 0.15
"""Largest masked share of a filter bank, along time and along mel (SpecAugment, Park et al. 2019)."""
WORD_DROP = 0.1


def augment(sample: Mapping[str, Tensor], kinds: Mapping[str, str], draws: torch.Generator) -> dict[str, Tensor]:
    """Augment an encoded sample: modality → tensor of the same kind. Features and waveforms [n] stay as they are.

    ``kinds`` are by modality; one that is not there is called as its kind.
    """
    return {modality: _AUGMENTS[kinds.get(modality, modality)](tensor, draws) for modality, tensor in sample.items()}


def _image(image: Tensor, draws: torch.Generator) -> Tensor:
    """An image [3, H, W], randomly shifted, rotated and scaled; pixels beyond the border repeat it."""
    angle = _uniform(ROTATION, draws)
    stretch_x, stretch_y = 1 + _uniform(SCALE, draws), 1 + _uniform(SCALE, draws)
    cos, sin = math.cos(angle), math.sin(angle)
    matrix = torch.tensor(
        [
            [cos * stretch_x, -sin * stretch_y, 2 * _uniform(SHIFT, draws)],
            [sin * stretch_x, cos * stretch_y, 2 * _uniform(SHIFT, draws)],
        ]
    )
    grid = F.affine_grid(matrix[None], [1, *image.shape], align_corners=False)
    return F.grid_sample(image[None], grid, padding_mode="border", align_corners=False)[0]


def _audio(bank: Tensor, draws: torch.Generator) -> Tensor:
    """A filter bank [frames, mel], shifted in time, louder or softer, with a stretch of time and of mel masked."""
    if bank.ndim != 2:
        return bank
    frames, mel = bank.shape
    moved = bank.roll(round(_uniform(SHIFT, draws) * frames), dims=0) + _uniform(0.3, draws)
    mean = moved.mean()
    for axis, size in ((0, frames), (1, mel)):
        width = int(torch.rand((), generator=draws).item() * MASK * size)
        start = int(torch.randint(size - width + 1, (), generator=draws).item())
        moved.narrow(axis, start, width).fill_(mean)
    return moved


def _text(ids: Tensor, draws: torch.Generator) -> Tensor:
    """Token ids [L], some of them dropped, but never the first or the last."""
    keep = torch.rand(len(ids), generator=draws) >= WORD_DROP
    keep[[0, -1]] = True
    return ids[keep]


def _uniform(largest: float, draws: torch.Generator) -> float:
    """A random number in [-largest, largest]."""
    return float((torch.rand((), generator=draws) * 2 - 1) * largest)


def _features(values: Tensor, draws: torch.Generator) -> Tensor:
    """Features [T, D] as they are."""
    del draws
    return values


_AUGMENTS: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "image": _image,
    "audio": _audio,
    "text": _text,
    "features": _features,
}
