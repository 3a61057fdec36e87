"""Weights of ``towers``: one encoder per modality, projections to one width, and a joint stream of pre-norm layers.

:class:`mmrobust.models.backbones.towers.TowersBackbone` runs them.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mmrobust.models.backbones import LINEAR, TINY
from mmrobust.models.backbones.parts import Attention, Mlp, sincos_positions
from mmrobust.models.backbones.tower_inputs import TowerInput
from mmrobust.models.layers import LayerView, run_layer
from mmrobust.models.sequence import TokenSequence

NORM_EPS = 1e-5
TINY_WIDTH, TINY_LAYERS, TINY_HEADS, TINY_DROPOUT, STEM = 128, 2, 4, 0.1, 32


@dataclass(frozen=True)
class JointSizes:
    """Sizes of the joint stream."""

    layers: int = 2
    width: int = 256
    heads: int = 4
    dropout: float = 0.1


def key(modality: str) -> str:
    """A modality's key in a ``ModuleDict``, whose own attributes (``values``, ``type``) are no keys."""
    return f"of_{modality}"


class JointLayer(nn.Module):
    """A pre-norm layer that may begin as the identity, so that the joint stream begins as a linear model."""

    def __init__(self, width: int, heads: int, dropout: float, identity: bool = True) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=NORM_EPS), nn.LayerNorm(width, eps=NORM_EPS)
        self.attn, self.mlp = Attention(width, heads, dropout), Mlp(width, dropout)
        for layer in (self.attn.proj, self.mlp.fc2) if identity else ():
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)


def view(layer: JointLayer) -> LayerView:
    """The pieces of a layer."""
    attention = layer.attn
    return LayerView(
        norm1=layer.norm1,
        project=lambda x: attention.qkv(x).chunk(3, dim=-1),
        out=lambda x: attention.proj_drop(attention.proj(x)),
        norm2=layer.norm2,
        mlp=layer.mlp,
        heads=attention.num_heads,
    )


class Encoder(nn.Module, ABC):
    """The encoder of one modality: its tensors → tokens.

    A subclass sets the size of its tokens, ``width``, its ``input`` and whether it is of ``own`` make, so that it has
    no weights before it is trained.
    """

    width: int
    input: TowerInput
    own: bool = True
    name: str
    """What ``--encoder`` calls it."""

    @abstractmethod
    def forward(self, values: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor | None]:
        """Tokens [B, L, width], and which are none [B, L] (bool; ``None`` where all are), of padded ``values``.

        ``sizes`` [B, axes] are those of each sample without padding; a sample depends on nothing beyond its own.
        """

    def settings(self) -> dict[str, Any]:
        """What must be known to build it again, beside its weights and input."""
        return {}

    def held(self) -> dict[str, Tensor]:
        """Name → each weight that affects its tokens."""
        return dict(self.state_dict())


class Linear(Encoder):
    """Features as they are: the projection of ``towers`` is their linear map. One token per time step."""

    name = LINEAR

    def __init__(self, input: Any) -> None:
        super().__init__()
        self.input, self.width, self.steps = input, len(input.mean), input.steps

    def forward(self, values: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor | None]:
        """See :meth:`Encoder.forward`."""
        return values, within(sizes, values.shape[1]) if self.steps else None


class Tiny(Encoder):
    """A small encoder of our own: a stem, positions, and pre-norm layers."""

    name = TINY

    def __init__(self, input: Any) -> None:
        super().__init__()
        self.input, self.width = input, TINY_WIDTH
        self.layers = nn.ModuleList(
            JointLayer(TINY_WIDTH, TINY_HEADS, TINY_DROPOUT, identity=False) for _ in range(TINY_LAYERS)
        )
        self.norm = nn.LayerNorm(TINY_WIDTH, eps=NORM_EPS)

    @abstractmethod
    def stem(self, values: Tensor) -> Tensor:
        """Tokens [B, L, width] with positions."""

    def mask(self, sizes: Tensor, length: int) -> Tensor | None:
        """Which of the tokens are none; by default all are."""
        return None

    def forward(self, values: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor | None]:
        """See :meth:`Encoder.forward`."""
        tokens_BLD = self.stem(values)
        mask = self.mask(sizes, tokens_BLD.shape[1])
        sequence = TokenSequence(tokens_BLD, mask, (("", tokens_BLD.shape[1]),))
        for layer in self.layers:
            assert isinstance(layer, JointLayer)
            sequence = run_layer(view(layer), sequence)
        return self.norm(sequence.tokens_BLD), mask


class TinyText(Tiny):
    """Token embeddings, with positions."""

    def __init__(self, input: Any, vocabulary: int) -> None:
        super().__init__(input)
        self.words = nn.Embedding(vocabulary, TINY_WIDTH)
        self.positions = nn.Parameter(torch.randn(input.max_length, TINY_WIDTH) * 0.02)
        nn.init.normal_(self.words.weight, std=0.1)

    def stem(self, values: Tensor) -> Tensor:
        """See :meth:`Tiny.stem`."""
        tokens: Tensor = self.words(values) + self.positions[: values.shape[1]]
        return tokens

    def mask(self, sizes: Tensor, length: int) -> Tensor | None:
        """See :meth:`Tiny.mask`."""
        return within(sizes, length)

    def settings(self) -> dict[str, Any]:
        """See :meth:`Encoder.settings`."""
        return {"vocabulary": self.words.num_embeddings}


class TinyGrid(Tiny):
    """Four strided convolutions over a picture, or a filter bank, with fixed sine-cosine positions.

    Raises:
        ValueError: a grid that is smaller than a patch of 16 × 16.
    """

    def __init__(self, input: Any, channels: int) -> None:
        super().__init__(input)
        widths = (channels, STEM, 2 * STEM, TINY_WIDTH, TINY_WIDTH)
        convolutions: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            convolutions += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.GroupNorm(8, after), nn.GELU()]
        self.convolutions = nn.Sequential(*convolutions[:-2])
        self.channels = channels
        rows, columns = (math.ceil(side / 16) for side in input.fill("zeros").shape[-2:])
        self.register_buffer("positions", sincos_positions(rows, columns, TINY_WIDTH), persistent=False)

    def stem(self, values: Tensor) -> Tensor:
        """See :meth:`Tiny.stem`."""
        grid = values if self.channels == 3 else values[:, None]
        tokens: Tensor = self.convolutions(grid).flatten(2).transpose(1, 2) + self.get_buffer("positions")
        return tokens


def within(sizes: Tensor, length: int) -> Tensor:
    """Mask [B, length] of the positions that lie within each sample."""
    return torch.arange(length, device=sizes.device) < sizes[:, :1]


class TowersModel(nn.Module):
    """The encoders, and what joins them."""

    def __init__(self, encoders: Mapping[str, Encoder], sizes: JointSizes) -> None:
        super().__init__()
        self.sizes, width = sizes, sizes.width
        self.encoders = nn.ModuleDict({key(m): encoder for m, encoder in encoders.items()})
        self.projections = nn.ModuleDict({key(m): _projection(encoder, width) for m, encoder in encoders.items()})
        self.types = nn.ParameterDict({key(m): nn.Parameter(torch.randn(width) * 0.02) for m in encoders})
        self.joint = nn.ModuleList(JointLayer(width, sizes.heads, sizes.dropout) for _ in range(sizes.layers))
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)

    @property
    def config(self) -> JointSizes:
        """The sizes of the joint stream."""
        return self.sizes

    def encoder(self, modality: str) -> Encoder:
        """The encoder of a modality."""
        encoder = self.encoders[key(modality)]
        assert isinstance(encoder, Encoder)
        return encoder

    def projected(self, modality: str, tokens_BLW: Tensor) -> Tensor:
        """An encoder's tokens as those of the joint stream [B, L, D]; features along time are given positions."""
        tokens_BLD: Tensor = self.projections[key(modality)](tokens_BLW) + self.types[key(modality)]
        if getattr(self.encoder(modality), "steps", False):
            tokens_BLD = tokens_BLD + positions(tokens_BLD.shape[1], tokens_BLD.shape[2], tokens_BLD.device)
        return tokens_BLD

    def described(self) -> dict[str, Any]:
        """The sizes, as plain values."""
        return dataclasses.asdict(self.sizes)


def _projection(encoder: Encoder, width: int) -> nn.Module:
    """A linear map; outputs of an encoder, other than standardised features, are normed first."""
    linear = nn.Linear(encoder.width, width)
    if isinstance(encoder, Linear):
        return linear
    return nn.Sequential(nn.LayerNorm(encoder.width, eps=NORM_EPS), linear)


def positions(length: int, size: int, device: torch.device) -> Tensor:
    """Sine-cosine positions [length, size] of time steps (Vaswani et al., NeurIPS 2017); ``size`` is even."""
    frequency = 10000.0 ** (-torch.arange(0, size, 2, device=device) / size)
    angle = torch.arange(length, device=device)[:, None] * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=-1) * 0.1
