"""A sequence of tokens that remembers which tokens are whose."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

PROMPT = "prompt"
"""The name of segments that a method put in; every other segment is named after its modality."""


@dataclass(frozen=True)
class TokenSequence:
    """Tokens of one stream, in named segments (``prompt``, ``text``, ``image`` …).

    So that prompts may be put in front, streams joined and modalities pooled without anyone counting offsets.
    """

    tokens_BLD: Tensor
    mask_BL: Tensor | None
    """Which tokens may be attended to (bool); ``None`` where all may."""
    segments: tuple[tuple[str, int], ...]
    """(name, length), left to right; the lengths add up to L."""

    def with_prompts(self, prompts_PD: Tensor) -> TokenSequence:
        """The same with ``prompts_PD`` in front, one copy for each sample. Prompts are always attended to."""
        batch, length = self.tokens_BLD.shape[0], prompts_PD.shape[0]
        prompts = prompts_PD.to(self.tokens_BLD.dtype).expand(batch, -1, -1)
        mask = self.mask_BL
        if mask is not None:
            mask = torch.cat([mask.new_ones(batch, length), mask], dim=1)
        return TokenSequence(torch.cat([prompts, self.tokens_BLD], dim=1), mask, ((PROMPT, length), *self.segments))

    def with_tokens(self, tokens_BLD: Tensor) -> TokenSequence:
        """The same segments and mask around other token values."""
        return TokenSequence(tokens_BLD, self.mask_BL, self.segments)

    def followed_by(self, other: TokenSequence) -> TokenSequence:
        """Both sequences, one after the other."""
        mask = None
        if self.mask_BL is not None or other.mask_BL is not None:
            mask = torch.cat([self._full_mask(), other._full_mask()], dim=1)
        tokens = torch.cat([self.tokens_BLD, other.tokens_BLD], dim=1)
        return TokenSequence(tokens, mask, self.segments + other.segments)

    def segment(self, name: str) -> Tensor:
        """The tokens [B, length, D] of the one segment of that name."""
        start = 0
        for segment, length in self.segments:
            if segment == name:
                return self.tokens_BLD[:, start : start + length]
            start += length
        raise KeyError(name)

    def content(self) -> Tensor:
        """The tokens [B, L, D] of every segment that is no prompt, in order."""
        names = [name for name, _ in self.segments if name != PROMPT]
        parts = [self.segment(name) for name in names]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def _full_mask(self) -> Tensor:
        if self.mask_BL is not None:
            return self.mask_BL
        return torch.ones(self.tokens_BLD.shape[:2], dtype=torch.bool, device=self.tokens_BLD.device)
