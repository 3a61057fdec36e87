"""A backbone of your own: SigLIP (Zhai et al., ICCV 2023) through `transformers`, added by this file alone.

    python examples/own_backbone.py train --data data/digits --backbone tiny-siglip --method full --out runs/full
    python examples/own_backbone.py train --data data/digits --backbone runs/full --method mmp --out runs/prompts
    python examples/own_backbone.py eval runs/prompts --data data/digits --out runs/results

Pretrained weights work the same way: `--backbone google/siglip-base-patch16-224`, or a folder. A family defines how raw
inputs become tensors (processor), how they are embedded, which layers its streams have, and how streams become features
(pooling). It does not implement attention: mmrobust runs every layer, together with what a method adds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import SiglipConfig, SiglipImageProcessorPil, SiglipModel

from mmrobust.data import Split
from mmrobust.models.backbone import Backbone
from mmrobust.models.backbones import FAMILIES
from mmrobust.models.backbones.processors import TextImageProcessor
from mmrobust.models.backbones.tiny import BERT_ENDS, TINY, train_tokenizer
from mmrobust.models.layers import LayerView
from mmrobust.models.pooling import Pooling
from mmrobust.models.sequence import TokenSequence


class SiglipProcessor(TextImageProcessor):
    """Text by the backbone's tokenizer, images by its image processor."""

    image_processor_class = "SiglipImageProcessorPil"

    def encode(self, modality: str, raw: Any) -> Tensor:
        """Texts are padded to the full length: SigLIP has no mask, and uses the last token."""
        if modality != "text":
            return super().encode(modality, raw)
        ids = self.tokenizer(raw, truncation=True, padding="max_length", max_length=self.max_length)["input_ids"]
        return torch.tensor(ids, dtype=torch.long)

    @property
    def fill_size(self) -> tuple[int, int]:
        """The size that the model was trained on."""
        return int(self.image_processor.size["height"]), int(self.image_processor.size["width"])

    def length(self, sample: Mapping[str, Tensor]) -> tuple[int, ...]:
        """All samples have the same size."""
        return ()


class SiglipPooling(Pooling):
    """Attention pooling of the image's patches; a dense layer on the text's last token."""

    trained_if_pooled = trained_if_by_modality = ("post_layernorm", "final_layer_norm")

    def __init__(self, model: SiglipModel) -> None:
        super().__init__(model)
        vision, text = model.vision_model, model.text_model
        self.post_layernorm, self.image_head = vision.post_layernorm, vision.head
        self.final_layer_norm, self.text_head = text.final_layer_norm, text.head
        self.modality_sizes = {"image": vision.config.hidden_size, "text": text.config.projection_size}
        self.pooled_size = sum(self.modality_sizes.values())

    def by_modality(self, streams: Mapping[str, TokenSequence]) -> dict[str, Tensor]:
        """Modality → feature [B, D] of each tower that was run."""
        found = {}
        if "image" in streams:  # prompts are not patches: they are left out of the pooling
            found["image"] = self.image_head(self.post_layernorm(streams["image"].segment("image")))
        if "text" in streams:
            found["text"] = self.text_head(self.final_layer_norm(streams["text"].segment("text")[:, -1]))
        return found


class SiglipBackbone(Backbone):
    """Two towers whose features are combined after their pooling."""

    family = "siglip"
    pooling_class = SiglipPooling
    modalities = ("image", "text")
    streams = ("image", "text")
    late_fusion = True
    lora_targets = ("self_attn.q_proj", "self_attn.v_proj")

    @classmethod
    def load(cls, place: str, source: str) -> SiglipBackbone:
        """The SigLIP whose weights and processor lie in the folder or Hub id ``place``."""
        model = SiglipModel.from_pretrained(place)
        return cls(model, SiglipProcessor.load(place, model.config.text_config.max_position_embeddings), source)

    @property
    def width(self) -> Mapping[str, int]:
        """Tower → size of its tokens."""
        return {stream: self._tower(stream).config.hidden_size for stream in self.streams}

    def embed(self, modality: str, inputs: Mapping[str, Tensor]) -> TokenSequence:
        """Patches or tokens, with positions."""
        read = inputs["pixel_values" if modality == "image" else "input_ids"]
        tokens_BLD = self._tower(modality).embeddings(read)
        return TokenSequence(tokens_BLD, None, ((modality, tokens_BLD.shape[1]),))

    def layers(self, stream: str) -> Sequence[LayerView]:
        """A view onto each layer of the tower."""
        return [_view(layer) for layer in self._tower(stream).encoder.layers]

    def _tower(self, stream: str) -> Any:
        return self.model.vision_model if stream == "image" else self.model.text_model


def _view(layer: Any) -> LayerView:
    attention = layer.self_attn
    return LayerView(
        norm1=layer.layer_norm1,
        project=lambda x_BLD: (attention.q_proj(x_BLD), attention.k_proj(x_BLD), attention.v_proj(x_BLD)),
        out=attention.out_proj,
        norm2=layer.layer_norm2,
        mlp=layer.mlp,
        heads=attention.num_heads,
    )


def tiny(train: Split) -> SiglipBackbone:
    """A small SigLIP with random weights and a tokenizer trained on the data set's texts."""
    tokenizer = train_tokenizer((sample.text for sample in train if sample.text is not None), BERT_ENDS)
    tower = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 3, "num_attention_heads": 4}
    ends = {f"{kind}_token_id": getattr(tokenizer, f"{kind}_token_id") for kind in ("pad", "cls", "sep")}
    config = SiglipConfig(
        text_config={
            **tower,
            "vocab_size": len(tokenizer),
            "max_position_embeddings": 32,
            "pad_token_id": ends["pad_token_id"],
            "bos_token_id": ends["cls_token_id"],
            "eos_token_id": ends["sep_token_id"],
        },
        vision_config={**tower, "image_size": 64, "patch_size": 16},
    )
    images = SiglipImageProcessorPil(size={"height": 64, "width": 64})
    return SiglipBackbone(SiglipModel(config), SiglipProcessor(tokenizer, images, 32), "tiny-siglip")


FAMILIES["siglip"] = "own_backbone:SiglipBackbone"  # the model_type in its config.json → module:class
TINY["tiny-siglip"] = (SiglipBackbone, tiny)  # only if there is to be a tiny one


if __name__ == "__main__":
    from mmrobust.cli.app import main

    main()
