"""A token sequence divided into named segments: prompts and modalities."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

PROMPT = "prompt"
"""Name of the segments that a method adds; every other segment is named after its modality."""
GLANCE = "glance:"
"""Begins the name of a packed sequence's segments that hold a glance. No modality has such a name."""


@dataclass(frozen=True)
class TokenSequence:
    """Tokens of one stream, in named segments (``prompt``, ``text``, ``image`` …).

    The segments let methods prepend prompts, backbones join streams and poolings select modalities without offsets.
    """

    tokens_BLD: Tensor
    mask_BL: Tensor | None
    """Which tokens may be attended to (bool); ``None`` where all may."""
    segments: tuple[tuple[str, int], ...]
    """(name, length) of each segment, left to right; the lengths add up to L."""
    causal: bool = False
    """Whether a token attends only to itself and to the tokens on its left. Prompts stand in front, so all tokens
    attend to them, and they attend to none of the tokens."""
    marked_B: Tensor | None = None
    """Index, within its modality's segment, of the token that represents each sample, if they differ (end of text)."""
    padding_ND: Tensor | None = None
    """Embedding of padding at each of the N positions of the stream's position table; ``None`` if nothing is padded."""
    glance: Mapping[str, Tensor] = field(default_factory=dict)
    """Modality → a tiny backbone's glance at it [B, C] (see ``models/glance.py``), which layers neither read nor
    change."""

    def with_prompts(self, prompts_PD: Tensor) -> TokenSequence:
        """This sequence with prompts in front, [P, D] for all samples or [B, P, D]. They are never masked."""
        batch, length = self.tokens_BLD.shape[0], prompts_PD.shape[-2]
        prompts = prompts_PD.to(self.tokens_BLD.dtype).expand(batch, -1, -1)
        mask = self.mask_BL
        if mask is not None:
            mask = torch.cat([mask.new_ones(batch, length), mask], dim=1)
        tokens = torch.cat([prompts, self.tokens_BLD], dim=1)
        return replace(self, tokens_BLD=tokens, mask_BL=mask, segments=((PROMPT, length), *self.segments))

    def with_first(self, prompts_PD: Tensor) -> TokenSequence:
        """This sequence with its first P tokens, prompts of an earlier layer, replaced by [P, D] or [B, P, D]."""
        batch, length = self.tokens_BLD.shape[0], prompts_PD.shape[-2]
        name, available = self.segments[0]
        if name != PROMPT or length > available:
            raise ValueError(f"{length} prompts cannot replace the first tokens of {self.segments}")
        prompts = prompts_PD.to(self.tokens_BLD.dtype).expand(batch, -1, -1)
        return self.with_tokens(torch.cat([prompts, self.tokens_BLD[:, length:]], dim=1))

    def with_tokens(self, tokens_BLD: Tensor) -> TokenSequence:
        """This sequence with other token values and the same segments and mask."""
        return replace(self, tokens_BLD=tokens_BLD)

    def followed_by(self, other: TokenSequence) -> TokenSequence:
        """The concatenation of two sequences, neither of which may be causal."""
        assert not self.causal and not other.causal, "a causal stream cannot be joined with another"
        mask = None
        if self.mask_BL is not None or other.mask_BL is not None:
            mask = torch.cat([self._full_mask(), other._full_mask()], dim=1)
        tokens = torch.cat([self.tokens_BLD, other.tokens_BLD], dim=1)
        return TokenSequence(tokens, mask, self.segments + other.segments, glance={**self.glance, **other.glance})

    def rows(self, rows: Tensor) -> TokenSequence:
        """The sequences of the samples at the indices ``rows`` [n] of the batch."""
        return replace(
            self,
            tokens_BLD=self.tokens_BLD[rows],
            mask_BL=None if self.mask_BL is None else self.mask_BL[rows],
            marked_B=None if self.marked_B is None else self.marked_B[rows],
            glance={modality: glance_BC[rows] for modality, glance_BC in self.glance.items()},
        )

    def packed(self) -> TokenSequence:
        """This sequence with the glance as further tokens, in segments that :meth:`unpacked` finds."""
        packed, width = replace(self, glance={}), self.tokens_BLD.shape[2]
        for modality, glance_BC in self.glance.items():
            batch, size = glance_BC.shape
            tokens_BKD = F.pad(glance_BC, (0, -size % width)).view(batch, -1, width).to(self.tokens_BLD.dtype)
            mask = None if packed.mask_BL is None else F.pad(packed.mask_BL, (0, tokens_BKD.shape[1]), value=True)
            segment = (f"{GLANCE}{size}:{modality}", tokens_BKD.shape[1])
            tokens_BLD = torch.cat([packed.tokens_BLD, tokens_BKD], dim=1)
            packed = replace(packed, tokens_BLD=tokens_BLD, mask_BL=mask, segments=(*packed.segments, segment))
        return packed

    def unpacked(self) -> TokenSequence:
        """The sequence of which this is :meth:`packed`."""
        segments = tuple(segment for segment in self.segments if not segment[0].startswith(GLANCE))
        length, glance = sum(size for _, size in segments), {}
        for name, _ in self.segments[len(segments) :]:
            size, modality = name.removeprefix(GLANCE).split(":", 1)
            glance[modality] = self.segment(name).flatten(1)[:, : int(size)]
        mask = None if self.mask_BL is None else self.mask_BL[:, :length]
        return replace(self, tokens_BLD=self.tokens_BLD[:, :length], mask_BL=mask, segments=segments, glance=glance)

    def segment(self, name: str) -> Tensor:
        """The tokens [B, length, D] of the first segment of that name."""
        start = 0
        for segment, length in self.segments:
            if segment == name:
                return self.tokens_BLD[:, start : start + length]
            start += length
        raise KeyError(name)

    def mean(self, name: str, tokens_BLD: Tensor | None = None) -> Tensor:
        """The mean [B, D] over the tokens of the segment ``name`` that are not masked; of the sequence, or others."""
        part_BLD = (self if tokens_BLD is None else self.with_tokens(tokens_BLD)).segment(name)
        if self.mask_BL is None:
            return part_BLD.mean(1)
        there_BL1 = self.with_tokens(self.mask_BL[..., None].to(part_BLD.dtype)).segment(name)
        return (part_BLD * there_BL1).sum(1) / there_BL1.sum(1)

    def marked(self, name: str) -> Tensor:
        """The token [B, D] of the segment ``name`` that represents each sample: the marked one, or else the first."""
        tokens_BLD = self.segment(name)
        if self.marked_B is None:
            return tokens_BLD[:, 0]
        return tokens_BLD[torch.arange(len(tokens_BLD), device=tokens_BLD.device), self.marked_B]

    def content(self) -> Tensor:
        """The tokens [B, L, D] of all segments except prompts, in order."""
        contents = [self.segment(name) for name, _ in self.segments if name != PROMPT]
        return contents[0] if len(contents) == 1 else torch.cat(contents, dim=1)

    def padded_content(self) -> Tensor:
        """The content [B, N, D], padded to the length N of the position table.

        For a method that attends to padding as well: the result does not depend on how far the batch was padded.
        """
        content_BLD = self.content()
        if self.padding_ND is None:
            return content_BLD
        batch, length = content_BLD.shape[:2]
        padding_BND = self.padding_ND.to(content_BLD.dtype).expand(batch, -1, -1)
        if self.mask_BL is not None:
            content_BLD = torch.where(self.mask_BL[:, -length:, None], content_BLD, padding_BND[:, :length])
        return torch.cat([content_BLD, padding_BND[:, length:]], dim=1)

    def _full_mask(self) -> Tensor:
        if self.mask_BL is not None:
            return self.mask_BL
        return torch.ones(self.tokens_BLD.shape[:2], dtype=torch.bool, device=self.tokens_BLD.device)
