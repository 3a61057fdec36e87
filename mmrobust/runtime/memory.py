"""A budget of memory that several users share."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class MemoryBudget:
    """Bytes of memory that several users may take together."""

    left: int

    def take(self, size: int) -> bool:
        """Take ``size`` bytes, if so many are left; returns whether they were."""
        fits = size <= self.left
        self.left -= size if fits else 0
        return fits

    def give_back(self, size: int) -> None:
        """Return ``size`` bytes that were taken."""
        self.left += size
