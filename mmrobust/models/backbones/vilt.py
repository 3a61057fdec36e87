"""ViLT (Kim et al., ICML 2021) through ``transformers.ViltModel``: one joint stream over text and image.

It differs from the library in two ways, both needed for reproducible numbers: patches keep their order (the library
shuffles them, which changes float sums), and LayerNorm in the blocks uses eps 1e-6 as in the original weights. With
Hugging Face's default of 1e-12, the gradient of MMP's constant initial prompts is a thousand times too large.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812
from transformers import ViltModel

from mmrobust.errors import UsageError
from mmrobust.models.backbone import Backbone, BackboneSettings, PartialStream, PromptSource, text_mask
from mmrobust.models.backbones.processors import TextImageProcessor
from mmrobust.models.layers import LayerView
from mmrobust.models.pooling import Pooling
from mmrobust.models.sequence import TokenSequence

BLOCK_EPS = 1e-6
"""LayerNorm eps of the blocks and of the final norm; the text embedding keeps the config's (1e-12)."""
JOINT = "joint"
MOST_TEXT_TOKENS = 2**16
"""Upper limit of ``max_text_length``, far above any text: a longer position table would only fill the memory."""


@dataclass(frozen=True)
class ViltSettings(BackboneSettings):
    """Settings of a ViLT."""

    max_text_length: int = 0
    """Tokens of a text at most; longer texts are cut. If it exceeds the position table, the table is stretched, as MMP
    stretches the 40 positions of the released weights. 0: the length of the table."""

    def __post_init__(self) -> None:
        given = f"vilt backbone: max_text_length {self.max_text_length}"
        if self.max_text_length and self.max_text_length < 2:
            raise UsageError(f"{given} must be 2 or more, for [CLS] and [SEP]")
        if self.max_text_length > MOST_TEXT_TOKENS:
            raise UsageError(f"{given} must be at most {MOST_TEXT_TOKENS:,}")


class ViltProcessor(TextImageProcessor):
    """Text by the backbone's tokenizer, images by its image processor, which keeps their aspect ratio."""

    image_processor_class = "ViltImageProcessorPil"
    patch = 32
    """Pixels of a patch's side; the backbone sets its own."""

    @property
    def fill_size(self) -> tuple[int, int]:
        """See :attr:`TextImageProcessor.fill_size`: the size that the model was trained on."""
        side = int(self.image_processor.size["shortest_edge"])
        return side, side

    def collate_images(self, images: Sequence[Tensor], pinned: bool) -> dict[str, Tensor]:
        """pixel_values [B, 3, H, W] and, where images are padded, what :func:`place_patches` says of them."""
        height, width = (max(image.shape[axis] for image in images) for axis in (1, 2))
        padded = images[0].new_empty(len(images), 3, height, width, pin_memory=pinned)
        for row, image in zip(padded, images, strict=True):
            if image.shape != row.shape:
                row.zero_()
            row[:, : image.shape[1], : image.shape[2]] = image
        grids = [(image.shape[1] // self.patch, image.shape[2] // self.patch) for image in images]
        return {"pixel_values": padded} | place_patches(grids, (height // self.patch, width // self.patch))

    def larger(self, modality: str, tensor: Tensor) -> Tensor:
        """See :meth:`Processor.larger`."""
        return tensor.repeat(1, 2, 2) if modality == "image" else super().larger(modality, tensor)

    def length(self, sample: Mapping[str, Tensor]) -> tuple[int, ...]:
        """Patches and their rows and columns, so that images of one size are batched together, and text tokens."""
        rows, columns = (side // self.patch for side in sample["image"].shape[1:])
        return rows * columns, rows, len(sample["text"])


class ViltPooling(Pooling):
    """Final norm, then a tanh dense layer on the text [CLS] (pooled), or the text and the image [CLS] (by modality)."""

    trained_if_pooled: ClassVar[tuple[str, ...]] = ("pooler",)

    def __init__(self, model: ViltModel) -> None:
        super().__init__(model)
        self.norm, self.pooler = model.layernorm, model.pooler
        self.pooled_size = model.config.hidden_size
        self.modality_sizes = dict.fromkeys(("image", "text"), self.pooled_size)

    def pooled(self, streams: Mapping[str, TokenSequence]) -> Tensor:
        """tanh(dense(norm(text [CLS]))) [B, D]."""
        pooled: Tensor = self.pooler(self.norm(streams[JOINT].segment("text")))
        return pooled

    def by_modality(self, streams: Mapping[str, TokenSequence]) -> dict[str, Tensor]:
        """Modality → its normed [CLS] of the last layer [B, D]."""
        return {m: self.norm(streams[JOINT].segment(m)[:, 0]) for m in ("image", "text")}


class ViltBackbone(Backbone):
    """ViLT as one joint stream: [prompts | text | image]."""

    family = "vilt"
    settings_class = ViltSettings
    pooling_class = ViltPooling
    modalities = ("image", "text")
    streams = (JOINT,)
    processor: ViltProcessor
    lora_targets = ("attention.query", "attention.value")

    def __init__(self, model: ViltModel, processor: ViltProcessor, source: str) -> None:
        for layer in model.encoder.layer:
            layer.layernorm_before.eps = layer.layernorm_after.eps = BLOCK_EPS
        model.layernorm.eps = BLOCK_EPS
        super().__init__(model, processor, source)
        if processor is not None:
            processor.patch = model.config.patch_size

    @classmethod
    def load(cls, place: str, source: str) -> ViltBackbone:
        """See :meth:`Backbone.load`."""
        model = ViltModel.from_pretrained(place)
        return cls(model, ViltProcessor.load(place, model.config.max_position_embeddings), source)

    def configure(self, settings: Mapping[str, Any]) -> None:
        """See :meth:`Backbone.configure`; the processor cuts texts at the length that is set."""
        super().configure(settings)
        self.processor.max_length = self.settings.max_text_length or self.model.config.max_position_embeddings

    @property
    def width(self) -> Mapping[str, int]:
        """See :attr:`Backbone.width`."""
        return {JOINT: self.model.config.hidden_size}

    def layers(self, stream: str) -> Sequence[LayerView]:
        """See :meth:`Backbone.layers`."""
        return [_view(layer) for layer in self.model.encoder.layer]

    def embed(self, modality: str, inputs: Mapping[str, Tensor]) -> TokenSequence:
        """Text tokens, or the image [CLS] and the valid patches; both with position and modality type embeddings.

        An image batch of transformers' own processor, with its ``pixel_mask`` [B, H, W], is understood as well.
        """
        modality_type = self.model.embeddings.token_type_embeddings.weight
        if modality == "text":
            text = self._embed_text(inputs["input_ids"]) + modality_type[0]
            return TokenSequence(text, text_mask(inputs), (("text", text.shape[1]),))
        if "pixel_mask" in inputs:
            inputs = {**inputs, **self._placed(inputs["pixel_mask"])}
        image, mask = self._embed_image(inputs["pixel_values"], *map(inputs.get, PLACED))
        return TokenSequence(image + modality_type[1], mask, (("image", image.shape[1]),))

    def sight_inputs(self, modality: str, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor | None]:
        """See :meth:`Backbone.sight_inputs`; images may be padded."""
        if modality == "text":
            return super().sight_inputs(modality, inputs)
        pixels = inputs["pixel_values"]
        if "pixel_mask" in inputs:
            inputs = {**inputs, **self._placed(inputs["pixel_mask"])}
        if "patch_order" not in inputs:
            return pixels, None
        patch = self.model.config.patch_size
        order, mask = inputs["patch_order"], inputs["patch_mask"]
        last = [
            (place * mask).amax(1)
            for place in (order // (pixels.shape[3] // patch), order % (pixels.shape[3] // patch))
        ]
        return pixels, (torch.stack(last, dim=1) + 1) * patch

    def fuse(
        self,
        encoded: Mapping[str, TokenSequence],
        prompts: PromptSource | None = None,
        partial: Mapping[str, PartialStream] | None = None,
    ) -> dict[str, TokenSequence]:
        """See :meth:`Backbone.fuse`: all layers run over text and image together."""
        return {JOINT: self.run_remaining_layers(JOINT, self.joint_start(encoded, partial), prompts)}

    def joint_input(self, encoded: Mapping[str, TokenSequence]) -> TokenSequence:
        """See :meth:`Backbone.joint_input`: text, then image."""
        return encoded["text"].followed_by(encoded["image"])

    def _embed_text(self, ids: Tensor) -> Tensor:
        """Tokens [B, L, D] with positions, which are stretched if texts may be longer than the position table.

        The table itself, a weight of the backbone, is not changed.
        """
        embeddings = self.model.embeddings.text_embeddings
        table = embeddings.position_embeddings.weight
        longest = self.settings.max_text_length
        if longest <= len(table):
            short: Tensor = embeddings(input_ids=ids)
            return short
        positions = stretch_text_positions(table, longest)[: ids.shape[1]]
        tokens = embeddings.word_embeddings(ids) + embeddings.token_type_embeddings.weight[0] + positions
        long: Tensor = embeddings.dropout(embeddings.LayerNorm(tokens))
        return long

    def _placed(self, pixel_mask: Tensor) -> dict[str, Tensor]:
        """What :func:`place_patches` says of images whose valid pixels the mask [B, H, W] names."""
        rows, columns = (side // self.model.config.patch_size for side in pixel_mask.shape[1:])
        mask = F.interpolate(pixel_mask[:, None].float(), size=(rows, columns))[:, 0].bool()
        grids = list(zip(mask[:, :, 0].sum(1).tolist(), mask[:, 0].sum(1).tolist(), strict=True))
        placed = place_patches(grids, (rows, columns))
        return {name: tensor.to(pixel_mask.device) for name, tensor in placed.items()}

    def _embed_image(
        self, pixels: Tensor, order: Tensor | None, mask: Tensor | None, place: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """[CLS] and patches [B, 1 + K, D] with positions, and their mask [B, 1 + K] if any image is padded.

        K is the largest number of valid patches of an image. Valid patches come first, in reading order; padding is
        masked. Nothing here depends on a value on the device, for which a GPU would have to be waited for.
        """
        embeddings = self.model.embeddings
        patches = embeddings.patch_embeddings(pixels)
        side = self.model.config.image_size // self.model.config.patch_size
        table = embeddings.position_embeddings[:, 1:].transpose(1, 2).unflatten(2, (side, side))
        if order is None or place is None:
            tokens = (patches + _stretch(table, *patches.shape[2:])).flatten(2).transpose(1, 2)
        else:
            positions = F.grid_sample(table, place[None], align_corners=True)[0].permute(1, 2, 0)
            tokens = patches.flatten(2).transpose(1, 2)
            tokens = tokens.gather(1, order[..., None].expand(-1, -1, tokens.shape[2])) + positions
        cls = (embeddings.cls_token + embeddings.position_embeddings[:, :1]).expand(len(tokens), -1, -1)
        tokens = embeddings.dropout(torch.cat([cls, tokens], dim=1))
        return tokens, None if mask is None else F.pad(mask, (1, 0), value=True)


PLACED = ("patch_order", "patch_mask", "patch_place")
"""What :func:`place_patches` returns, in the order in which the backbone takes it."""


def place_patches(grids: Sequence[tuple[int, int]], padded: tuple[int, int]) -> dict[str, Tensor]:
    """Where the valid patches of images are in a batch whose images are padded.

    Args:
        grids: rows and columns of valid patches of each image, at the top left of the padded grid.
        padded: rows and columns of the padded grid.

    Returns:
        ``patch_order`` [B, K]: the places of the valid patches in the flattened grid, in reading order; ``patch_mask``
        [B, K]: which of these are valid and which fill up; ``patch_place`` [B, K, 2]: the column and the row of each in
        its own image, from −1 to 1. Nothing at all if no image is padded.
    """
    if set(grids) == {padded}:
        return {}
    most = max(rows * own for rows, own in grids)
    order, mask = torch.zeros(len(grids), most, dtype=torch.long), torch.zeros(len(grids), most, dtype=torch.bool)
    place = torch.zeros(len(grids), most, 2)
    for image, (rows, own) in enumerate(grids):
        row, column = torch.arange(rows).repeat_interleave(own), torch.arange(own).repeat(rows)
        order[image, : rows * own], mask[image, : rows * own] = row * padded[1] + column, True
        place[image, : rows * own, 0] = 2 * column / max(own - 1, 1) - 1
        place[image, : rows * own, 1] = 2 * row / max(rows - 1, 1) - 1
    return dict(zip(PLACED, (order, mask, place), strict=True))


def stretch_text_positions(table: Tensor, length: int) -> Tensor:
    """A position table [L, D] stretched to [length, D], linearly and without aligned corners.

    MMP interpolates bilinearly, but along L alone, which is the same.
    """
    return F.interpolate(table.T[None], size=length, mode="linear", align_corners=False)[0].T


def _stretch(table: Tensor, rows: int, columns: int) -> Tensor:
    """A position map [1, D, side, side] at another size, bilinear with aligned corners, as in ViLT."""
    if table.shape[2:] == (rows, columns):
        return table
    return F.interpolate(table, size=(rows, columns), mode="bilinear", align_corners=True)


def _view(layer: Any) -> LayerView:
    attention = layer.attention.attention
    return LayerView(
        norm1=layer.layernorm_before,
        project=lambda x: (attention.query(x), attention.key(x), attention.value(x)),
        out=lambda x: layer.attention.output(x, None),
        norm2=layer.layernorm_after,
        mlp=lambda x: layer.output.dropout(layer.output.dense(layer.intermediate(x))),
        heads=attention.num_attention_heads,
        attention_dropout=attention.dropout,
    )
