"""The fill of a missing image, and weights without a tokenizer or an image processor."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mmrobust.data.processor import FILLS
from mmrobust.errors import CheckpointError
from mmrobust.models.backbone import Backbone
from mmrobust.models.backbones import load_backbone
from mmrobust.models.backbones.processors import FILES, Unavailable
from mmrobust.models.backbones.tiny import TINY


@pytest.mark.parametrize("name", ["tiny-vilt", "tiny-clip"])
@pytest.mark.parametrize(
    ("files", "what", "works"),
    [(FILES["tokenizer"], "tokenizer", "image"), (FILES["image processor"], "image processor", "text")],
)
def test_only_what_is_lacking_fails(
    tiny: Callable[[str], Backbone], tmp_path: Path, name: str, files: tuple[str, ...], what: str, works: str
) -> None:
    tiny(name).save(tmp_path / "backbone")
    for file in files:
        (tmp_path / "backbone" / file).unlink(missing_ok=True)
    backbone = load_backbone(str(tmp_path / "backbone"), ("image", "text"))
    raw: dict[str, Any] = {"image": Image.new("RGB", (64, 64)), "text": "one"}
    assert isinstance(backbone.processor.encode(works, raw.pop(works)), torch.Tensor)
    for modality, value in raw.items():
        for use in (lambda m=modality, v=value: backbone.processor.encode(m, v), lambda m=modality: fill(backbone, m)):
            with pytest.raises(CheckpointError, match=rf"backbone: holds no {what}, so raw inputs cannot be encoded"):
                use()
    backbone.save(tmp_path / "again")
    assert not any((tmp_path / "again" / file).is_file() for file in files)


def fill(backbone: Backbone, modality: str) -> torch.Tensor:
    return backbone.processor.fill(modality, "ones")


def test_it_can_be_copied_and_sent_to_another_process() -> None:
    absent = Unavailable("tokenizer", "place")
    for twin in (copy.deepcopy(absent), pickle.loads(pickle.dumps(absent))):
        with pytest.raises(CheckpointError, match="place: holds no tokenizer"):
            twin("text")
        with pytest.raises(CheckpointError, match="import again with --processor"):
            _ = twin.pad_token_id


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


@pytest.mark.parametrize("name", TINY)
def test_several_at_once_are_as_each_alone(tiny: Callable[[str], Backbone], name: str) -> None:
    draws = np.random.default_rng(0)
    shapes = ((8, 8), (40, 90), (120, 50), (33, 33))
    media: dict[str, list[Any]] = {
        "image": [Image.fromarray(draws.integers(0, 256, (*shape, 3), dtype=np.uint8)) for shape in shapes],
        "text": ["", "a red seven", "the figure " * 40, "née café 7"],
        "audio": [(draws.normal(size=size).astype(np.float32), 8000) for size in (100, 4000, 9000, 16_000)],
    }
    backbone = tiny(name)
    for modality in backbone.modalities:
        together = backbone.processor.encode_all(modality, media[modality])
        for raw, found in zip(media[modality], together, strict=True):
            alone = backbone.processor.encode(modality, raw)
            assert found.dtype == alone.dtype and torch.equal(found, alone)
