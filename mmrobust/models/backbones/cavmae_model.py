"""CAV-MAE (Gong et al., ICLR 2023), the fine-tuning encoder, under the names of its released weights.

Modality-specific layers over the patches of a log mel filter bank and of an image, then joint layers over both. Module
names follow ``CAVMAEFT`` of the reference (``blocks_a``, ``blocks_v``, ``blocks_u``, ``norm1_a`` …), so that its state
dict loads unchanged. The classification head is not part of the encoder.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from transformers import PretrainedConfig, PreTrainedModel

from mmrobust.models.backbones.parts import Attention, Mlp, sincos_positions
from mmrobust.models.layers import prepend, split_heads

NORM_EPS = 1e-5


class CavMaeConfig(PretrainedConfig):  # type: ignore[misc]  # transformers' classes are untyped here
    """Sizes of a CAV-MAE; the defaults are the released base model's."""

    model_type = "mmrobust-cavmae"

    audio_frames: int = 1024  # of the filter bank, 10 ms each
    mel_bins: int = 128
    image_size: int = 224  # side of the square image in pixels
    patch_size: int = 16  # side of the square patches of both modalities
    num_channels: int = 3  # of the image
    hidden_size: int = 768
    num_specific_layers: int = 11  # in each modality's own stream
    num_joint_layers: int = 1
    num_attention_heads: int = 12
    mlp_ratio: float = 4.0  # size of the feed-forward layer, in hidden sizes
    hidden_dropout_prob: float = 0.0  # after attention and feed-forward
    fusion: bool = False  # Prompt the Missing's FusionBlock stands before the joint layers; no part of CAV-MAE


class PatchEmbedding(nn.Module):
    """Tokens of non-overlapping patches: [B, channels, H, W] → [B, patches, D], row-major."""

    def __init__(self, channels: int, patch_size: int, hidden_size: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, hidden_size, patch_size, stride=patch_size)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens [B, patches, D] of images [B, channels, H, W]."""
        tokens: Tensor = self.proj(x).flatten(2).transpose(1, 2)
        return tokens


class Block(nn.Module):
    """A pre-norm layer with three pairs of norms: for both modalities together and for each alone."""

    def __init__(self, config: CavMaeConfig) -> None:
        super().__init__()
        for suffix in ("", "_a", "_v"):
            setattr(self, f"norm1{suffix}", nn.LayerNorm(config.hidden_size, eps=NORM_EPS))
            setattr(self, f"norm2{suffix}", nn.LayerNorm(config.hidden_size, eps=NORM_EPS))
        size, dropout = config.hidden_size, config.hidden_dropout_prob
        self.attn = Attention(size, config.num_attention_heads, dropout)
        self.mlp = Mlp(size, dropout, config.mlp_ratio)


class FusionAttention(nn.Module):
    """Attention from one sequence to another; its weights are named as in ``torch.nn.MultiheadAttention``."""

    def __init__(self, hidden_size: int, heads: int) -> None:
        super().__init__()
        self.num_heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * hidden_size, hidden_size))
        self.in_proj_bias = nn.Parameter(torch.empty(3 * hidden_size))
        self.out_proj = nn.Linear(hidden_size, hidden_size)
        self.reset()

    def reset(self) -> None:
        """Initialise the projections to queries, keys and values."""
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.in_proj_bias)

    def forward(self, queries_BLD: Tensor, seen_BMD: Tensor) -> Tensor:
        """Attention of the queries [B, L, D] to the tokens [B, M, D]: [B, L, D]."""
        weights, biases = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        inputs = (queries_BLD, seen_BMD, seen_BMD)
        query, key, value = (
            split_heads(F.linear(x, weight, bias), self.num_heads)
            for x, weight, bias in zip(inputs, weights, biases, strict=True)
        )
        attended = F.scaled_dot_product_attention(query, key, value)
        output: Tensor = self.out_proj(attended.transpose(1, 2).flatten(2))
        return output


class FusionBlock(nn.Module):
    """Prompt the Missing's fusion block: cross-attention between the streams, under the released names.

    Self-attention of each stream, cross-attention in both directions, then a feed-forward half for each, as in
    ``BlockWithAttentionPrompt`` of the release (Park, CVPRW 2025), between the layers of each modality and the joint
    ones. Two errors of the release are corrected: its self-attention runs over the BATCH, so that a sample's logits
    depend on its neighbours, and it drops the residual around the cross-attention. Here all attention runs over tokens
    and every residual is kept. As in the release, queries, keys and values of the cross-attention are not normed.
    """

    def __init__(self, config: CavMaeConfig) -> None:
        super().__init__()
        size, heads = config.hidden_size, config.num_attention_heads
        self.norm1_a, self.norm1_v = nn.LayerNorm(size, eps=NORM_EPS), nn.LayerNorm(size, eps=NORM_EPS)
        self.self_attn_a, self.self_attn_v = FusionAttention(size, heads), FusionAttention(size, heads)
        self.norm2_a, self.norm2_v = nn.LayerNorm(size, eps=NORM_EPS), nn.LayerNorm(size, eps=NORM_EPS)
        self.cross_attn_a_to_v, self.cross_attn_v_to_a = FusionAttention(size, heads), FusionAttention(size, heads)
        self.mlp_a, self.mlp_v = (Mlp(size, config.hidden_dropout_prob, config.mlp_ratio) for _ in range(2))

    def forward(
        self,
        audio_BLD: Tensor,
        image_BMD: Tensor,
        image_context_PD: Tensor | None = None,
        audio_context_PD: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Audio [B, L, D] and image tokens [B, M, D] after the block.

        Audio attends to ``image_context_PD`` in front of the image's tokens, images to ``audio_context_PD``.
        """
        normed_audio, normed_image = self.norm1_a(audio_BLD), self.norm1_v(image_BMD)
        audio = audio_BLD + self.self_attn_a(normed_audio, normed_audio)
        image = image_BMD + self.self_attn_v(normed_image, normed_image)
        seen_image = image if image_context_PD is None else prepend(image_context_PD, image)
        seen_audio = audio if audio_context_PD is None else prepend(audio_context_PD, audio)
        audio, image = (
            audio + self.cross_attn_a_to_v(audio, seen_image),
            image + self.cross_attn_v_to_a(image, seen_audio),
        )
        return audio + self.mlp_a(self.norm2_a(audio)), image + self.mlp_v(self.norm2_v(image))


class CavMaeModel(PreTrainedModel):  # type: ignore[misc]  # transformers' classes are untyped here
    """Weights of the encoder; :class:`mmrobust.models.backbones.cavmae.CavMaeBackbone` runs them."""

    config_class = CavMaeConfig
    base_model_prefix = "cavmae"
    main_input_name = "audio_values"

    def __init__(self, config: CavMaeConfig) -> None:
        super().__init__(config)
        size, patch = config.hidden_size, config.patch_size
        mel, time, side = config.mel_bins // patch, config.audio_frames // patch, config.image_size // patch
        self.patch_embed_a = PatchEmbedding(1, patch, size)
        self.patch_embed_v = PatchEmbedding(config.num_channels, patch, size)
        self.modality_a = nn.Parameter(torch.zeros(1, 1, size))
        self.modality_v = nn.Parameter(torch.zeros(1, 1, size))
        self.pos_embed_a = nn.Parameter(sincos_positions(mel, time, size))
        self.pos_embed_v = nn.Parameter(sincos_positions(side, side, size))
        specific, joint = config.num_specific_layers, config.num_joint_layers
        for name, layers in (("blocks_a", specific), ("blocks_v", specific), ("blocks_u", joint)):
            setattr(self, name, nn.ModuleList(Block(config) for _ in range(layers)))
        if config.fusion:
            self.fusion_block = FusionBlock(config)
        for name in ("norm_a", "norm_v", "norm"):
            setattr(self, name, nn.LayerNorm(size, eps=NORM_EPS))
        self.post_init()

    def _init_weights(self, module: Any) -> None:
        """Initialise as the reference: Xavier for dense layers and patches, std 0.02 for the modality embeddings."""
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Conv2d):
            nn.init.xavier_uniform_(module.weight.view(module.weight.shape[0], -1))
        elif isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, FusionAttention):
            module.reset()
        elif isinstance(module, CavMaeModel):
            nn.init.normal_(module.modality_a, std=0.02)
            nn.init.normal_(module.modality_v, std=0.02)
