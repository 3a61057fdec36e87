"""Pictures as bytes until they are on the device: a quarter of what passes between processes, is kept and is copied."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor


class Pixels:
    """Packs pictures by an image processor of ``transformers``: all its steps but the last, which normalises.

    Args:
        image_processor: what makes the images.
        settings: those of each call.
    """

    def __init__(self, image_processor: Any, **settings: Any) -> None:
        self.image_processor, self._settings = image_processor, settings

    def encode(self, pictures: Sequence[Image.Image]) -> list[Tensor]:
        """Normalised images [3, H, W], float32."""
        images = self.image_processor(list(pictures), **self._settings)["pixel_values"]
        return [torch.from_numpy(np.asarray(image, dtype=np.float32)) for image in images]

    def pack(self, pictures: Sequence[Image.Image]) -> list[Tensor]:
        """Images [3, H, W] of bytes, from which :meth:`unpack` makes those of :meth:`encode`, or the latter."""
        return self._bytes(pictures) if self._exact else self.encode(pictures)

    def unpack(self, images: Tensor) -> Tensor:
        """The normalised images [..., 3, H, W] of packed ones."""
        if images.dtype != torch.uint8:
            return images
        values = images.float().div_(255)
        if not self.image_processor.do_normalize:
            return values
        mean, std = (
            _by_channel(tuple(np.atleast_1d(constants).tolist()), images.device)
            for constants in (self.image_processor.image_mean, self.image_processor.image_std)
        )
        return values.sub_(mean).div_(std)

    def _bytes(self, pictures: Sequence[Image.Image]) -> list[Tensor]:
        settings = self._settings | {"do_rescale": False, "do_normalize": False}
        images = self.image_processor(list(pictures), **settings)["pixel_values"]
        return [torch.from_numpy(np.ascontiguousarray(image)) for image in images]

    @functools.cached_property
    def _exact(self) -> bool:
        """Whether what is unpacked is what the processor gives, to the last bit; one may have steps of its own."""
        every = np.arange(256, dtype=np.uint8).reshape(16, 16)
        picture = [Image.fromarray(np.stack([every, every.T, every[::-1]], axis=2))]
        (packed,), (encoded,) = self._bytes(picture), self.encode(picture)
        return packed.dtype == torch.uint8 and torch.equal(self.unpack(packed), encoded)


@functools.cache  # a new tensor for each batch would be one more copy to the device
def _by_channel(values: tuple[float, ...], device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, device=device)[:, None, None]
