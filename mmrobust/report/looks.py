"""How checkpoints are told apart in pictures: the page and the figures give each the same colour and dash."""

from __future__ import annotations

COLOURS = (
    "#4269d0", "#e8850c", "#2f9e5b", "#d6457b", "#8b5cf6", "#12a5b8", "#b5651d", "#7a8b99", "#c2a511", "#5f7f2b",
)  # fmt: skip
"""Told apart on white and on black; from the eleventh checkpoint on they come again, dashed."""
DASHES = ((1, 0), (6, 3), (2, 2), (8, 3, 2, 3), (4, 4, 1, 4))


def appearance(number: int) -> tuple[str, tuple[int, ...]]:
    """Colour and dash of the checkpoint of that number, in the order in which a report names them."""
    return COLOURS[number % len(COLOURS)], DASHES[number // len(COLOURS) % len(DASHES)]
