"""CLIP (Radford et al., ICML 2021) through ``transformers.CLIPModel``: two towers, image and text.

The towers are combined only after their projections, unnormalised and side by side, as in DCP (Hu et al., NeurIPS
2024). If the model is told that a modality is missing, its tower is not run and its half of the vector is zero. If it
is not told (concat prompting), both towers run, the missing modality's on its fill.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from transformers import CLIPModel
from transformers.activations import QuickGELUActivation

from mmrobust.models.backbone import Backbone, text_mask
from mmrobust.models.backbones.processors import TextImageProcessor
from mmrobust.models.layers import LayerView, cast_once
from mmrobust.models.pooling import Pooling
from mmrobust.models.sequence import TokenSequence

PADDING_ID = 0
"""Padding token of OpenAI's own tokenizer. The library's pads with the end token. Tokens never attend to padding; only
DCP's dynamic prompts do, and they were trained on this one."""
ARGMAX_EOS_ID = 2
"""The wrong ``eos_token_id`` of configs written before transformers 4.31; the end token is the highest id then."""


class ClipProcessor(TextImageProcessor):
    """Text by the backbone's tokenizer, images by its image processor (resize, centre crop, normalise)."""

    image_processor_class = "CLIPImageProcessorPil"

    @property
    def fill_size(self) -> tuple[int, int]:
        """See :attr:`TextImageProcessor.fill_size`: the size that the model was trained on."""
        crop = self.image_processor.crop_size
        return int(crop["height"]), int(crop["width"])

    def length(self, sample: Mapping[str, Tensor]) -> tuple[int, ...]:
        """Text length; all images have the same size."""
        return (len(sample["text"]),)


class ClipPooling(Pooling):
    """The feature of each tower, unnormalised: norm and projection of the image's [CLS] and of the text's end token.

    DCP trains both norms and the image's projection; the text's projection stays frozen, as in the reference.
    """

    trained_if_pooled: ClassVar[tuple[str, ...]] = ("post_layernorm", "visual_projection", "final_layer_norm")
    trained_if_by_modality: ClassVar[tuple[str, ...]] = trained_if_pooled

    def __init__(self, model: CLIPModel) -> None:
        super().__init__(model)
        self.post_layernorm, self.visual_projection = model.vision_model.post_layernorm, model.visual_projection
        self.final_layer_norm, self.text_projection = model.text_model.final_layer_norm, model.text_projection
        size = model.config.projection_dim
        self.modality_sizes = {"image": size, "text": size}
        self.pooled_size = 2 * size

    def by_modality(self, streams: Mapping[str, TokenSequence]) -> dict[str, Tensor]:
        """Modality → feature [B, D] of each tower that was run."""
        into = {
            "image": (self.post_layernorm, self.visual_projection),
            "text": (self.final_layer_norm, self.text_projection),
        }
        return {m: projection(norm(streams[m].marked(m))) for m, (norm, projection) in into.items() if m in streams}


class ClipBackbone(Backbone):
    """CLIP as two towers: [prompts | CLS, patches], and [prompts | text], which is causal."""

    family = "clip"
    pooling_class = ClipPooling
    modalities = ("image", "text")
    streams = ("image", "text")
    late_fusion = True
    config_keys = (*Backbone.config_keys, "eos_token_id")
    lora_targets = ("self_attn.q_proj", "self_attn.v_proj")

    @classmethod
    def load(cls, place: str, source: str) -> ClipBackbone:
        """See :meth:`Backbone.load`."""
        model = CLIPModel.from_pretrained(place)
        return cls(model, ClipProcessor.load(place, model.config.text_config.max_position_embeddings), source)

    @property
    def width(self) -> Mapping[str, int]:
        """See :attr:`Backbone.width`."""
        return {stream: self._tower(stream).config.hidden_size for stream in self.streams}

    def layers(self, stream: str) -> Sequence[LayerView]:
        """See :meth:`Backbone.layers`."""
        return [_view(layer) for layer in self._tower(stream).encoder.layers]

    def embed(self, modality: str, inputs: Mapping[str, Tensor]) -> TokenSequence:
        """[CLS] and patches after the first norm, or text tokens; both with position embeddings."""
        tower = self._tower(modality)
        if modality == "image":
            tokens = tower.pre_layrnorm(tower.embeddings(inputs["pixel_values"]))
            return TokenSequence(tokens, None, (("image", tokens.shape[1]),))
        ids, end = inputs["input_ids"], self.model.config.text_config.eos_token_id
        tokens = tower.embeddings(input_ids=ids)
        return TokenSequence(
            tokens,
            text_mask(inputs),
            (("text", tokens.shape[1]),),
            causal=True,
            # The first end token of each text, as CLIPTextModel determines it.
            marked_B=ids.argmax(-1) if end == ARGMAX_EOS_ID else (ids == end).int().argmax(-1),
            padding_ND=tower.embeddings.token_embedding.weight[PADDING_ID] + tower.embeddings.position_embedding.weight,
        )

    def _tower(self, stream: str) -> Any:
        return self.model.vision_model if stream == "image" else self.model.text_model


def _view(layer: Any) -> LayerView:
    attention = layer.self_attn
    return LayerView(
        norm1=layer.layer_norm1,
        project=lambda x: (attention.q_proj(x), attention.k_proj(x), attention.v_proj(x)),
        out=attention.out_proj,
        norm2=layer.layer_norm2,
        mlp=_quick_gelu_mlp(layer.mlp) if _is_plain(layer.mlp) else layer.mlp,
        heads=attention.num_heads,
        attention_dropout=nn.Dropout(attention.dropout).train(attention.training),
    )


def _is_plain(mlp: Any) -> bool:
    """Whether it is CLIP's own: no other activation, and no product that LoRA has wrapped."""
    return isinstance(mlp.activation_fn, QuickGELUActivation) and {type(mlp.fc1), type(mlp.fc2)} == {nn.Linear}


QUICK = 1.702
"""The factor of the quick GELU, h · σ(1.702 h)."""


def _quick_gelu_mlp(mlp: Any) -> Callable[[Tensor], Tensor]:
    """CLIP's feed-forward half, with its activation in one operation instead of three, each of four times the tokens.

    h · σ(1.702 h) is silu(1.702 h) / 1.702, whose two factors the matrix products before and after it apply themselves.
    """

    def run(x_BLD: Tensor) -> Tensor:
        bias = QUICK * cast_once(mlp.fc1.bias)
        inner = F.silu(torch.addmm(bias, x_BLD.flatten(0, 1), mlp.fc1.weight.T, alpha=QUICK))
        return torch.addmm(mlp.fc2.bias, inner, mlp.fc2.weight.T, alpha=1 / QUICK).view_as(x_BLD)

    return run
