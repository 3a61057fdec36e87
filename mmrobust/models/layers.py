"""One pre-norm transformer layer with prompts, shared by all backbone families.

ViLT, CLIP's towers and CAV-MAE's streams are stacks of pre-norm transformer layers. A :class:`LayerView` points to the
pieces of such a layer in the module that holds its weights, and :func:`run_layer` runs it together with what a method
adds. No other module of the package implements the attention of a backbone's layers.
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
    """The pieces of one pre-norm transformer layer, as functions of [B, L, D] tensors."""

    norm1: Callable[[Tensor], Tensor]
    project: Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]
    """Tokens to queries, keys and values, each [B, L, D]."""
    out: Callable[[Tensor], Tensor]
    """The output projection of the attention, including its dropout."""
    norm2: Callable[[Tensor], Tensor]
    mlp: Callable[[Tensor], Tensor]
    """The feed-forward half, including its dropout, without the residual."""
    heads: int
    attention_dropout: nn.Dropout | None = None
    """Dropout of the attention weights in training mode; ``None``: there is none."""


@dataclass(frozen=True)
class Prompts:
    """What a method adds at one layer. Tensors are [P, D], the same for every sample, or [B, P, D]."""

    tokens_PD: Tensor | None = None
    """Tokens to put in front of the sequence, where they stay in later layers (input level)."""
    replaced_PD: Tensor | None = None
    """Tokens that replace the first P of the sequence, which are prompts of an earlier layer."""
    keys_PD: Tensor | None = None
    """Keys to put in front of the layer's own, used as they are, without a projection (attention level)."""
    values_PD: Tensor | None = None
    """Values that go with ``keys_PD``."""
    context_PD: Tensor | None = None
    """Tokens that are attended to but attend to nothing: the layer's own norm and projections turn them into keys and
    values in front of the layer's own (Prompt the Missing's attention level)."""
    after_attention: Callable[[Tensor], Tensor] | None = None
    """Applied to the output [B, L, D] of the attention before it is added to the residual (an adapter)."""
    after_mlp: Callable[[Tensor], Tensor] | None = None
    """Applied to the output [B, L, D] of the feed-forward half before it is added to the residual."""


def run_layer(layer: LayerView, sequence: TokenSequence, prompts: Prompts | None = None) -> TokenSequence:
    """Run one layer over ``sequence`` with the ``prompts`` of a method.

    ``x = x + out(attention(norm1(x)))``, then ``x = x + mlp(norm2(x))``.
    """
    if prompts is not None and prompts.replaced_PD is not None:
        sequence = sequence.with_first(prompts.replaced_PD)
    if prompts is not None and prompts.tokens_PD is not None:
        sequence = sequence.with_prompts(prompts.tokens_PD)
    x_BLD = sequence.tokens_BLD
    query, key, value = layer.project(cast_once(layer.norm1(x_BLD)))
    if prompts is not None and prompts.keys_PD is not None and prompts.values_PD is not None:
        key, value = prepend(prompts.keys_PD, key), prepend(prompts.values_PD, value)
    if prompts is not None and prompts.context_PD is not None:
        # Once for the whole batch: these keys and values do not depend on the sample.
        _, keys, values = layer.project(cast_once(layer.norm1(prompts.context_PD[None])))
        key, value = prepend(keys[0], key), prepend(values[0], value)
    dropout = layer.attention_dropout
    mask = _attention_mask(sequence, key.shape[1])
    attended = F.scaled_dot_product_attention(
        split_heads(query, layer.heads),
        split_heads(key, layer.heads),
        split_heads(value, layer.heads),
        attn_mask=mask,
        dropout_p=dropout.p if dropout is not None and dropout.training else 0.0,
        is_causal=sequence.causal and mask is None,
    )
    output_BLD = layer.out(attended.transpose(1, 2).flatten(2))
    if prompts is not None and prompts.after_attention is not None:
        output_BLD = prompts.after_attention(output_BLD)
    x_BLD = x_BLD + output_BLD
    output_BLD = layer.mlp(layer.norm2(x_BLD))
    if prompts is not None and prompts.after_mlp is not None:
        output_BLD = prompts.after_mlp(output_BLD)
    return sequence.with_tokens(x_BLD + output_BLD)


def cast_once(x: Tensor) -> Tensor:
    """``x`` as the matrix products that read it take it: autocast would cast it for each of them."""
    device = x.device.type
    return x.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else x


def prepend(rows_PD: Tensor, x_BLD: Tensor) -> Tensor:
    """``rows_PD`` in front of each sample's tokens: [B, P + L, D]."""
    return torch.cat([rows_PD.to(x_BLD.dtype).expand(len(x_BLD), -1, -1), x_BLD], dim=1)


def _attention_mask(sequence: TokenSequence, keys: int) -> Tensor | None:
    """Boolean mask of the keys that each query may attend to [B or 1, 1, L or 1, keys].

    Every query may attend to the keys in front of the sequence's own (attention-level prompts). ``None``: a query may
    attend to all keys or, if the sequence is causal, to those up to its own.
    """
    length = sequence.tokens_BLD.shape[1]
    mask = sequence.mask_BL
    if mask is not None:
        mask = F.pad(mask, (keys - length, 0), value=True)[:, None, None, :]
    if not sequence.causal or (mask is None and keys == length):
        return mask
    causal = torch.ones(length, keys, dtype=torch.bool, device=sequence.tokens_BLD.device).tril(keys - length)
    return causal[None, None] if mask is None else causal & mask


def split_heads(x_BLD: Tensor, heads: int) -> Tensor:
    """[B, L, D] → [B, heads, L, D / heads]."""
    batch, length, size = x_BLD.shape
    return x_BLD.view(batch, length, heads, size // heads).transpose(1, 2)
