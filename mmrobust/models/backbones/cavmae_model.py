"""CAV-MAE (Gong et al., ICLR 2023), the fine-tuning encoder, under the names of its released weights.

Modality-specific layers over the patches of a log mel filter bank and of an image, then joint layers over both. Module
names follow ``CAVMAEFT`` of the reference (``blocks_a``, ``blocks_v``, ``blocks_u``, ``norm1_a`` …), so that its state
dict loads as it is. The classification head is not part of the encoder.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from mmrobust.models.backbones.cavmae_fusion import FusionAttention, FusionBlock

NORM_EPS = 1e-5


class CavMaeConfig(PretrainedConfig):  # type: ignore[misc]  # transformers' classes are untyped here
    """Sizes of a CAV-MAE; the defaults are the released base model's.

    Args:
        audio_frames: frames of the filter bank, 10 ms each.
        mel_bins: mel bins of the filter bank.
        image_size: side of the square image in pixels.
        patch_size: side of the square patches of both modalities.
        num_channels: channels of the image.
        hidden_size: size of a token.
        num_specific_layers: layers of each modality's own stream.
        num_joint_layers: layers over both modalities.
        num_attention_heads: heads of every layer.
        mlp_ratio: size of the feed-forward layer, in hidden sizes.
        hidden_dropout_prob: dropout after attention and feed-forward (0 in the reference).
        fusion: whether a cross-attention block stands between the modalities' own layers and the joint ones
            (Prompt the Missing's; no part of CAV-MAE).
    """

    model_type = "mmrobust-cavmae"

    audio_frames: int = 1024
    mel_bins: int = 128
    image_size: int = 224
    patch_size: int = 16
    num_channels: int = 3
    hidden_size: int = 768
    num_specific_layers: int = 11
    num_joint_layers: int = 1
    num_attention_heads: int = 12
    mlp_ratio: float = 4.0
    hidden_dropout_prob: float = 0.0
    fusion: bool = False

    @property
    def audio_grid(self) -> tuple[int, int]:
        """Audio patches along (mel, time)."""
        return self.mel_bins // self.patch_size, self.audio_frames // self.patch_size

    @property
    def image_grid(self) -> tuple[int, int]:
        """Image patches along (height, width)."""
        return self.image_size // self.patch_size, self.image_size // self.patch_size


class PatchEmbedding(nn.Module):
    """Non-overlapping patches to tokens: [B, channels, H, W] → [B, patches, D], row-major."""

    def __init__(self, channels: int, patch_size: int, hidden_size: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, hidden_size, patch_size, stride=patch_size)

    def forward(self, x: Tensor) -> Tensor:
        """[B, channels, H, W] → [B, patches, D]."""
        tokens: Tensor = self.proj(x).flatten(2).transpose(1, 2)
        return tokens


class Attention(nn.Module):
    """The weights of a self-attention; run by :func:`mmrobust.models.layers.run_layer`."""

    def __init__(self, hidden_size: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = heads
        self.qkv = nn.Linear(hidden_size, 3 * hidden_size)
        self.proj = nn.Linear(hidden_size, hidden_size)
        self.proj_drop = nn.Dropout(dropout)


class Mlp(nn.Module):
    """Linear, GELU, linear."""

    def __init__(self, hidden_size: int, inner_size: int, dropout: float) -> None:
        super().__init__()
        self.fc1 = nn.Linear(hidden_size, inner_size)
        self.fc2 = nn.Linear(inner_size, hidden_size)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """[B, L, D] → [B, L, D]."""
        hidden: Tensor = self.drop(self.fc2(nn.functional.gelu(self.fc1(x))))
        return hidden


class Block(nn.Module):
    """A pre-norm layer with three pairs of norms: one for both modalities together, one for each alone."""

    def __init__(self, config: CavMaeConfig) -> None:
        super().__init__()
        size = config.hidden_size
        for suffix in ("", "_a", "_v"):
            setattr(self, f"norm1{suffix}", nn.LayerNorm(size, eps=NORM_EPS))
            setattr(self, f"norm2{suffix}", nn.LayerNorm(size, eps=NORM_EPS))
        self.attn = Attention(size, config.num_attention_heads, config.hidden_dropout_prob)
        self.mlp = _mlp(config)


def _mlp(config: CavMaeConfig) -> Mlp:
    size = config.hidden_size
    return Mlp(size, int(size * config.mlp_ratio), config.hidden_dropout_prob)


class CavMaeModel(PreTrainedModel):  # type: ignore[misc]  # transformers' classes are untyped here
    """The encoder's weights. Its forward is :class:`mmrobust.models.backbones.cavmae.CavMaeBackbone`'s."""

    config_class = CavMaeConfig
    base_model_prefix = "cavmae"
    main_input_name = "audio_values"

    def __init__(self, config: CavMaeConfig) -> None:
        super().__init__(config)
        size = config.hidden_size
        self.patch_embed_a = PatchEmbedding(1, config.patch_size, size)
        self.patch_embed_v = PatchEmbedding(config.num_channels, config.patch_size, size)
        self.modality_a = nn.Parameter(torch.zeros(1, 1, size))
        self.modality_v = nn.Parameter(torch.zeros(1, 1, size))
        self.pos_embed_a = nn.Parameter(sincos_positions(*config.audio_grid, size))
        self.pos_embed_v = nn.Parameter(sincos_positions(*config.image_grid, size))
        self.blocks_a = nn.ModuleList(Block(config) for _ in range(config.num_specific_layers))
        self.blocks_v = nn.ModuleList(Block(config) for _ in range(config.num_specific_layers))
        self.blocks_u = nn.ModuleList(Block(config) for _ in range(config.num_joint_layers))
        if config.fusion:
            self.fusion_block = FusionBlock(size, config.num_attention_heads, _mlp(config), _mlp(config), NORM_EPS)
        self.norm_a = nn.LayerNorm(size, eps=NORM_EPS)
        self.norm_v = nn.LayerNorm(size, eps=NORM_EPS)
        self.norm = nn.LayerNorm(size, eps=NORM_EPS)
        self.post_init()

    def _init_weights(self, module: Any) -> None:
        """As the reference: Xavier for dense layers and patch projections, 0.02 for the modality embeddings."""
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


def sincos_positions(rows: int, columns: int, size: int) -> Tensor:
    """Fixed 2-D sine-cosine positions [1, rows · columns, size], row-major (MAE's ``get_2d_sincos_pos_embed``).

    The first half of the channels encodes the column, the second the row; in each half sines, then cosines.
    """
    # Takes no memory: what an Allowance (storage.untrusted) counts, before NumPy makes it of a config's numbers.
    torch.empty(1, rows * columns, size, device="meta")
    row, column = np.meshgrid(np.arange(rows, dtype=np.float64), np.arange(columns, dtype=np.float64), indexing="ij")
    frequency = 1.0 / 10000 ** (np.arange(size // 4, dtype=np.float64) / (size / 4.0))
    halves = []
    for position in (column, row):
        angle = position.reshape(-1, 1) * frequency
        halves += [np.sin(angle), np.cos(angle)]
    return torch.from_numpy(np.concatenate(halves, axis=1)).float()[None]
