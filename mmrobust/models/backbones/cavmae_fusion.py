"""Prompt the Missing's fusion block: cross-attention between CAV-MAE's streams, under the released names.

After ``BlockWithAttentionPrompt`` of the release (Park, CVPRW 2025), between the layers of each modality and the joint
ones. Two errors of the release are corrected: its self-attention runs over the BATCH, so that a sample's logits depend
on its neighbours, and it drops the residual around the cross-attention. Here all attention runs over tokens and every
residual is kept. As in the release, queries, keys and values of the cross-attention are not normed.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from mmrobust.models.layers import prepend, split_heads


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
    """Self-attention of each stream, cross-attention in both directions, then a feed-forward half for each.

    Args:
        hidden_size: D.
        heads: attention heads.
        mlp_a: the feed-forward half of the audio tokens.
        mlp_v: that of the image tokens.
        eps: LayerNorm eps.
    """

    def __init__(self, hidden_size: int, heads: int, mlp_a: nn.Module, mlp_v: nn.Module, eps: float) -> None:
        super().__init__()
        self.norm1_a, self.norm1_v = nn.LayerNorm(hidden_size, eps=eps), nn.LayerNorm(hidden_size, eps=eps)
        self.self_attn_a, self.self_attn_v = FusionAttention(hidden_size, heads), FusionAttention(hidden_size, heads)
        self.norm2_a, self.norm2_v = nn.LayerNorm(hidden_size, eps=eps), nn.LayerNorm(hidden_size, eps=eps)
        self.cross_attn_a_to_v = FusionAttention(hidden_size, heads)
        self.cross_attn_v_to_a = FusionAttention(hidden_size, heads)
        self.mlp_a, self.mlp_v = mlp_a, mlp_v

    def forward(
        self,
        audio_BLD: Tensor,
        image_BMD: Tensor,
        image_context_PD: Tensor | None = None,
        audio_context_PD: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Audio [B, L, D] and image tokens [B, M, D] after the block.

        Args:
            audio_BLD: the audio tokens.
            image_BMD: the image tokens.
            image_context_PD: tokens in front of the image's that the audio attends to.
            audio_context_PD: tokens in front of the audio's that the image attends to.
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
