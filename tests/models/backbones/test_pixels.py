"""Packed pictures are bytes, and give what the image processor gives, to the last bit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPImageProcessorPil, ViltImageProcessorPil

from mmrobust.cases import Case
from mmrobust.data import Dataset
from mmrobust.data.encoded_split import EncodedSplit
from mmrobust.data.processor import Processor
from mmrobust.degradations import Noise
from mmrobust.models.backbone import Backbone
from mmrobust.models.backbones.pixels import Pixels
from mmrobust.models.backbones.tiny import TINY
from mmrobust.models.classifier import Classifier
from mmrobust.models.prediction.predictor import Predictor
from mmrobust.runtime.machine import MemoryBudget
from mmrobust.training.sources import LiveSource


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    draws = np.random.default_rng(0)
    shapes = ((8, 8), (130, 40), (90, 300))
    return [Image.fromarray(draws.integers(0, 256, (*shape, 3), dtype=np.uint8)) for shape in shapes]


@pytest.mark.parametrize(
    "image_processor",
    [
        ViltImageProcessorPil(),
        CLIPImageProcessorPil(),
        CLIPImageProcessorPil(do_normalize=False),
        ViltImageProcessorPil(image_mean=0.45, image_std=0.225),
        CLIPImageProcessorPil(size={"shortest_edge": 20}, do_resize=False),  # smaller pictures are padded
    ],
)
def test_unpacked_they_are_the_processors_own(image_processor: Any, pictures: list[Image.Image]) -> None:
    pixels = Pixels(image_processor, do_pad=False)
    for packed, encoded in zip(pixels.pack(pictures), pixels.encode(pictures), strict=True):
        assert packed.dtype == torch.uint8 and 4 * packed.nbytes == encoded.nbytes
        assert torch.equal(pixels.unpack(packed), encoded) and pixels.unpack(encoded) is encoded
    batch = torch.stack([pixels.pack(pictures)[0]] * 2)
    assert torch.equal(pixels.unpack(batch), torch.stack([pixels.encode(pictures)[0]] * 2))


class Inverting(CLIPImageProcessorPil):  # type: ignore[misc]  # the library has no types
    """Has a step of its own behind the usual ones."""

    def normalize(self, *arguments: Any, **settings: Any) -> Any:
        return -super().normalize(*arguments, **settings)


@pytest.mark.parametrize(
    "image_processor",
    [Inverting(), CLIPImageProcessorPil(rescale_factor=1 / 128), CLIPImageProcessorPil(do_rescale=False)],
)
def test_a_processor_of_another_kind_gives_what_it_gives(image_processor: Any, pictures: list[Image.Image]) -> None:
    pixels = Pixels(image_processor)
    for packed, encoded in zip(pixels.pack(pictures), pixels.encode(pictures), strict=True):
        assert packed.dtype == torch.float32 and torch.equal(pixels.unpack(packed), encoded)


@pytest.mark.parametrize("name", TINY)
def test_every_family_packs_its_pictures_and_nothing_else(
    tiny: Callable[[str], Backbone], digits: Dataset, name: str
) -> None:
    processor = tiny(name).processor
    split = digits.split("test")
    modalities = tiny(name).modalities
    encoded = EncodedSplit(split, processor, modalities, "ones", memory=MemoryBudget(2**30))
    samples = encoded.samples(range(8), Case.complete(modalities))
    for (position, modality), packed in encoded._cache.items():
        assert (packed.dtype == torch.uint8) == (modality == "image")
        assert torch.equal(samples[position][modality], processor.unpack(modality, packed))
    batch = encoded.batch(range(8), Case.complete(modalities), torch.device("cpu"))
    for input_name, tensor in processor.collate(samples).items():
        assert torch.equal(batch[input_name], tensor)


@pytest.mark.parametrize("backbone", ["tiny-vilt", "tiny-cavmae", "tiny-towers"])
def test_nothing_changes_a_bit(
    classifier: Callable[..., Classifier],
    digits: Dataset,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    backbone: str,
) -> None:
    """Of predictions, among them degraded ones, nor of what a training reads, with and without a folder of inputs."""
    built = classifier(backbone)
    cases = ("complete", "missing-image", "noisy-image", "noisy-image:blur@2")
    plan = {(case, "situation"): np.arange(20) for case in cases}

    def found(folder: Path | None) -> tuple[list[Any], list[torch.Tensor]]:
        split = Dataset(digits.folder, folder).split("test")
        encoded = EncodedSplit(split, built.backbone.processor, built.modalities, "mean", Noise("released"))
        source = LiveSource(built, encoded)
        with torch.no_grad():
            read = [
                t
                for case in cases
                for t in source._inputs(np.arange(4), Case.parse(case, built.modalities), None).values()
            ]
        return [rows[1] for part in Predictor(built, encoded, 8).stretches(plan) for rows in part.values()], read

    def as_before(self: Processor, modality: str, raws: Sequence[Any]) -> list[torch.Tensor]:
        return self.encode_all(modality, raws)

    packed, kept, again = found(None), found(tmp_path / "kept"), found(tmp_path / "kept")
    monkeypatch.setattr(type(built.backbone.processor), "pack", as_before)
    expected = found(None)
    for logits, inputs in (packed, kept, again):
        assert all((one == other).all() for one, other in zip(logits, expected[0], strict=True))
        assert all(torch.equal(one, other) for one, other in zip(inputs, expected[1], strict=True))
