"""What stands in for a missing image."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image

from mmrobust.data.processor import FILLS
from mmrobust.models.backbone import Backbone
from mmrobust.models.backbones.tiny import TINY


@pytest.mark.parametrize("name", TINY)
def test_each_fill_is_an_image_of_the_models_size(tiny: Callable[[str], Backbone], name: str) -> None:
    processor = tiny(name).processor
    fills = {fill: processor.fill("image", fill) for fill in FILLS}
    assert {tuple(fill.shape) for fill in fills.values()} == {(3, 64, 64)}
    assert fills["ones"].unique().tolist() == [1] and fills["zeros"].unique().tolist() == [0]


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("normalised", [True, False])
def test_mean_is_what_becomes_of_an_image_of_the_mean_colour(
    tiny: Callable[[str], Backbone], name: str, normalised: bool
) -> None:
    processor = tiny(name).processor
    images = processor.image_processor  # type: ignore[attr-defined]  # those of the families have one
    images.do_normalize = normalised
    colour = np.round(np.asarray(images.image_mean) * 255).astype(np.uint8)
    encoded = processor.encode("image", Image.fromarray(np.tile(colour, (64, 64, 1))))
    # A picture's colours are whole numbers, the mean colour is none.
    torch.testing.assert_close(processor.fill("image", "mean"), encoded, rtol=0, atol=0.5 / 255 / 0.25)
