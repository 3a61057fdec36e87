"""A sequence of tokens that remembers which tokens are whose."""

from __future__ import annotations

from dataclasses import dataclass, replace

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
    causal: bool = False
    """Whether a token attends to itself and to what lies left of it only. Prompts lie in front, so every token sees
    all of them and none of them sees a token."""
    marked_B: Tensor | None = None
    """Index, within its modality's segment, of the token that speaks for the sample, where that differs by sample (the
    end of a text)."""
    padding_ND: Tensor | None = None
    """What padding embeds to at each of the N positions of the stream's table; ``None`` where nothing is padded."""

    def with_prompts(self, prompts_PD: Tensor) -> TokenSequence:
        """The same with prompts in front. Prompts are always attended to.

        Args:
            prompts_PD: [P, D], one copy for each sample, or [B, P, D], where each sample has its own.
        """
        batch, length = self.tokens_BLD.shape[0], prompts_PD.shape[-2]
        prompts = prompts_PD.to(self.tokens_BLD.dtype).expand(batch, -1, -1)
        mask = self.mask_BL
        if mask is not None:
            mask = torch.cat([mask.new_ones(batch, length), mask], dim=1)
        tokens = torch.cat([prompts, self.tokens_BLD], dim=1)
        return replace(self, tokens_BLD=tokens, mask_BL=mask, segments=((PROMPT, length), *self.segments))

    def with_first(self, prompts_PD: Tensor) -> TokenSequence:
        """The same with ``prompts_PD`` ([P, D] or [B, P, D]) in the place of the first P tokens.

        Raises:
            ValueError: those are not all prompts of one earlier layer; a modality's tokens are never replaced.
        """
        batch, length = self.tokens_BLD.shape[0], prompts_PD.shape[-2]
        name, available = self.segments[0]
        if name != PROMPT or length > available:
            raise ValueError(f"{length} prompts cannot take the place of the first tokens of {self.segments}")
        prompts = prompts_PD.to(self.tokens_BLD.dtype).expand(batch, -1, -1)
        return self.with_tokens(torch.cat([prompts, self.tokens_BLD[:, length:]], dim=1))

    def with_tokens(self, tokens_BLD: Tensor) -> TokenSequence:
        """The same segments and mask around other token values."""
        return replace(self, tokens_BLD=tokens_BLD)

    def followed_by(self, other: TokenSequence) -> TokenSequence:
        """Both sequences, one after the other. Neither is causal: what that would mean for the other is not defined."""
        assert not self.causal and not other.causal, "a causal stream is joined with no other"
        mask = None
        if self.mask_BL is not None or other.mask_BL is not None:
            mask = torch.cat([self._full_mask(), other._full_mask()], dim=1)
        tokens = torch.cat([self.tokens_BLD, other.tokens_BLD], dim=1)
        return TokenSequence(tokens, mask, self.segments + other.segments)

    def rows(self, rows: Tensor) -> TokenSequence:
        """The sequences of these samples of the batch, by their indices [n]."""
        return replace(
            self,
            tokens_BLD=self.tokens_BLD[rows],
            mask_BL=None if self.mask_BL is None else self.mask_BL[rows],
            marked_B=None if self.marked_B is None else self.marked_B[rows],
        )

    def segment(self, name: str) -> Tensor:
        """The tokens [B, length, D] of the one segment of that name."""
        start = 0
        for segment, length in self.segments:
            if segment == name:
                return self.tokens_BLD[:, start : start + length]
            start += length
        raise KeyError(name)

    def marked(self, name: str) -> Tensor:
        """The token [B, D] of the segment ``name`` that speaks for each sample: the marked one, else the first."""
        tokens_BLD = self.segment(name)
        if self.marked_B is None:
            return tokens_BLD[:, 0]
        return tokens_BLD[torch.arange(len(tokens_BLD), device=tokens_BLD.device), self.marked_B]

    def content(self) -> Tensor:
        """The tokens [B, L, D] of every segment that is no prompt, in order."""
        names = [name for name, _ in self.segments if name != PROMPT]
        parts = [self.segment(name) for name in names]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def padded_content(self) -> Tensor:
        """The content [B, N, D], padded to the whole position table.

        For a method that looks at padding too: the same for a sample whatever its batch was padded to.
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
