"""What the prototype head's training is made of: ArcFace's angular margin and the supervised contrastive loss."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def with_margin(cosines: Tensor, margin: float) -> Tensor:
    """cos(θ + m) from cos(θ), elementwise, if θ + m < π; otherwise cos(θ) − m · sin(m), which keeps decreasing.

    This is ArcFace's own continuation: cos(θ + m) alone would increase again and reward an angle close to π.
    """
    # The clamp keeps the gradient of the square root finite at θ = 0.
    sines = (1 - cosines.square()).clamp(min=1e-7).sqrt()
    moved = cosines * math.cos(margin) - sines * math.sin(margin)
    return torch.where(cosines > -math.cos(margin), moved, cosines - margin * math.sin(margin))


def supervised_contrast(h_BD: Tensor, targets: Tensor, temperature: float, anchors: int | None = None) -> Tensor:
    """Supervised contrastive loss (Khosla et al., equation 2), summed over the anchors; a scalar.

    L_i = −1/|P(i)| Σ_{p ∈ P(i)} log( exp(h_i·h_p / τ) / Σ_{a ≠ i} exp(h_i·h_a / τ) ), where P(i) are the other rows
    that share a label with i. A row without such others contributes nothing.

    Args:
        h_BD: vectors of length 1.
        targets: multi-hot labels [B, classes].
        temperature: τ.
        anchors: number of rows i, from the first, that are summed over; ``None``: all.
    """
    itself = torch.eye(len(h_BD), dtype=torch.bool, device=h_BD.device)[:anchors]
    with torch.autocast(h_BD.device.type, enabled=False):  # τ is small: bfloat16's rounding would show
        similar = (h_BD[:anchors] @ h_BD.T / temperature).masked_fill(itself, -torch.inf)
        positive = (targets[:anchors] @ targets.T > 0) & ~itself
    log_share = (similar - similar.logsumexp(1, keepdim=True)).masked_fill(~positive, 0.0)
    return -(log_share.sum(1) / positive.sum(1).clamp(min=1)).sum()
