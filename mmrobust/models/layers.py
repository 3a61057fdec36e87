"""The one prompted-transformer layer that every family runs.

ViLT, CLIP's towers and CAV-MAE's streams are stacks of pre-norm transformer layers. A :class:`LayerView` names the
parts of one of them where they lie in the module that holds the weights, and :func:`run_layer` runs it together with
what a method adds. Nothing else in the package knows how attention works.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (the usual name)

from mmrobust.models.sequence import TokenSequence


@dataclass(frozen=True)
class LayerView:
    """The parts of one pre-norm transformer layer, as functions of [B, L, D] tensors."""

    norm1: Callable[[Tensor], Tensor]
    project: Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]
    """Tokens to queries, keys and values, each [B, L, D]."""
    out: Callable[[Tensor], Tensor]
    """The output projection of the attention, its dropout included."""
    norm2: Callable[[Tensor], Tensor]
    mlp: Callable[[Tensor], Tensor]
    """The feed-forward half, its dropout included, without the residual."""
    heads: int
    attention_dropout: nn.Dropout | None = None
    """Drops attention weights while its module trains; ``None``: never."""


@dataclass(frozen=True)
class Prompts:
    """What a method adds at one layer: [P, D], the same for every sample, or [B, P, D]."""

    tokens_PD: Tensor | None = None
    """Tokens in front of the sequence; they stay there in the layers after (input level)."""
    replaced_PD: Tensor | None = None
    """Tokens in the place of the first P of the sequence, which an earlier layer's prompts hold."""
    keys_PD: Tensor | None = None
    """Keys in front of the layer's keys, raw, after the projection (attention level)."""
    values_PD: Tensor | None = None
    """Values that go with ``keys_PD``."""
    context_PD: Tensor | None = None
    """Tokens that are attended to but attend to nothing: the layer's own norm and projections make keys and values of
    them, in front of the layer's (Prompt the Missing's attention level)."""
    after_attention: Callable[[Tensor], Tensor] | None = None
    """What the attention's output [B, L, D] passes through before it is added to the residual (an adapter)."""
    after_mlp: Callable[[Tensor], Tensor] | None = None
    """The same for the output of the feed-forward half."""


def run_layer(layer: LayerView, sequence: TokenSequence, prompts: Prompts | None = None) -> TokenSequence:
    """One layer over ``sequence`` with the ``prompts`` of a method.

    ``x = x + out(attention(norm1(x)))``, then ``x = x + mlp(norm2(x))``.
    """
    if prompts is not None and prompts.replaced_PD is not None:
        sequence = sequence.with_first(prompts.replaced_PD)
    if prompts is not None and prompts.tokens_PD is not None:
        sequence = sequence.with_prompts(prompts.tokens_PD)
    x_BLD = sequence.tokens_BLD
    query, key, value = layer.project(layer.norm1(x_BLD))
    if prompts is not None and prompts.keys_PD is not None and prompts.values_PD is not None:
        key, value = in_front(prompts.keys_PD, key), in_front(prompts.values_PD, value)
    if prompts is not None and prompts.context_PD is not None:
        # Once for the whole batch: what comes of these tokens depends on no sample.
        _, keys, values = layer.project(layer.norm1(prompts.context_PD[None]))
        key, value = in_front(keys[0], key), in_front(values[0], value)
    dropout = layer.attention_dropout
    attended = F.scaled_dot_product_attention(
        split_heads(query, layer.heads),
        split_heads(key, layer.heads),
        split_heads(value, layer.heads),
        attn_mask=_attention_mask(sequence, key.shape[1]),
        dropout_p=dropout.p if dropout is not None and dropout.training else 0.0,
    )
    output_BLD = layer.out(attended.transpose(1, 2).flatten(2))
    if prompts is not None and prompts.after_attention is not None:
        output_BLD = prompts.after_attention(output_BLD)
    x_BLD = x_BLD + output_BLD
    output_BLD = layer.mlp(layer.norm2(x_BLD))
    if prompts is not None and prompts.after_mlp is not None:
        output_BLD = prompts.after_mlp(output_BLD)
    return sequence.with_tokens(x_BLD + output_BLD)


def in_front(rows_PD: Tensor, x_BLD: Tensor) -> Tensor:
    """[B, L, D] → [B, P + L, D]."""
    return torch.cat([rows_PD.to(x_BLD.dtype).expand(len(x_BLD), -1, -1), x_BLD], dim=1)


def _attention_mask(sequence: TokenSequence, keys: int) -> Tensor | None:
    """Which query may look at which key [B or 1, 1, L or 1, keys]; ``None``: each at all.

    Keys in front of the sequence's own (attention-level prompts) are open to every query.
    """
    length = sequence.tokens_BLD.shape[1]
    mask = sequence.mask_BL
    if mask is not None:
        mask = F.pad(mask, (keys - length, 0), value=True)[:, None, None, :]
    if not sequence.causal:
        return mask
    causal = torch.ones(length, keys, dtype=torch.bool, device=sequence.tokens_BLD.device).tril(keys - length)
    return causal[None, None] if mask is None else causal & mask


def split_heads(x_BLD: Tensor, heads: int) -> Tensor:
    """[B, L, D] → [B, heads, L, D / heads]."""
    batch, length, size = x_BLD.shape
    return x_BLD.view(batch, length, heads, size // heads).transpose(1, 2)
