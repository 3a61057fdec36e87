"""Parts of a transformer that CAV-MAE and ``towers`` are made of, under the names of CAV-MAE's released weights.

CAV-MAE's model is a class of ``transformers``, whose models take longer to import than torch; towers without pictures
do not need them.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812


class Attention(nn.Module):
    """Weights of a self-attention, which :func:`mmrobust.models.layers.run_layer` runs."""

    def __init__(self, size: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = heads
        self.qkv = nn.Linear(size, 3 * size)
        self.proj = nn.Linear(size, size)
        self.proj_drop = nn.Dropout(dropout)


class Mlp(nn.Module):
    """Two dense layers with a GELU between them."""

    def __init__(self, size: int, dropout: float, ratio: float = 4.0) -> None:
        super().__init__()
        inner_size = int(size * ratio)
        self.fc1 = nn.Linear(size, inner_size)
        self.fc2 = nn.Linear(inner_size, size)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """[B, L, D] → [B, L, D]."""
        hidden: Tensor = self.drop(self.fc2(F.gelu(self.fc1(x))))
        return hidden


def sincos_positions(rows: int, columns: int, size: int) -> Tensor:
    """Fixed 2-D sine-cosine positions [1, rows · columns, size], row-major (MAE's ``get_2d_sincos_pos_embed``).

    The first half of the channels encodes the column, the second the row; in each half sines, then cosines.
    """
    # Takes no memory: counted by a TensorLimit (mmrobust.storage.weights) before NumPy creates the table.
    torch.empty(1, rows * columns, size, device="meta")
    row, column = np.meshgrid(np.arange(rows, dtype=np.float64), np.arange(columns, dtype=np.float64), indexing="ij")
    frequency = 1.0 / 10000 ** (np.arange(size // 4, dtype=np.float64) / (size / 4.0))
    halves = []
    for position in (column, row):
        angle = position.reshape(-1, 1) * frequency
        halves += [np.sin(angle), np.cos(angle)]
    return torch.from_numpy(np.concatenate(halves, axis=1)).float()[None]
