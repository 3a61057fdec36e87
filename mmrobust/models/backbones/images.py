"""What the families' image processors share: what they are told apart by, and what stands in for a missing image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mmrobust.configuration import plain
from mmrobust.models.backbones.absent import Absent

SETTINGS = (
    *("do_convert_rgb", "do_resize", "size", "size_divisor", "resample", "do_center_crop", "crop_size"),
    *("do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std"),
)
"""What of an image processor of ``transformers`` decides the pixels that it gives."""


def describe_images(processor: Any) -> dict[str, Any]:
    """The :data:`SETTINGS` of an image processor as plain values, whichever class of the library holds them."""
    if isinstance(processor, Absent):
        return {}
    return {name: _plain(getattr(processor, name, None)) for name in SETTINGS}


def _plain(value: Any) -> Any:
    """A setting as JSON would give it back; a size without the sides that it does not name."""
    sides = plain(value)
    if isinstance(sides, Mapping):
        return {side: length for side, length in sides.items() if length is not None}
    return int(value) if isinstance(value, int) and not isinstance(value, bool) else sides  # an enum is a number


def fill_image(fill: str, size: tuple[int, int], processor: Any) -> Tensor:
    """What stands in for a missing image after the transform [3, height, width].

    Args:
        fill: one of :data:`mmrobust.data.processor.FILLS`.
        size: height and width.
        processor: the image processor, whose mean colour ``mean`` is: zero where it subtracts that.
    """
    if fill == "mean" and not processor.do_normalize:
        return torch.tensor(processor.image_mean, dtype=torch.float32)[:, None, None].expand(3, *size).clone()
    return torch.full((3, *size), 1.0 if fill == "ones" else 0.0)
