"""A reference's state dict, of which every tensor must find its place."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from mmrobust.errors import CheckpointError

WRAPPER = "module."
"""What ``DataParallel`` puts in front of every name."""


@dataclass(frozen=True)
class Imported:
    """What a reference's checkpoint holds, in our words."""

    sizes: dict[str, Any]
    """Arguments of the backbone's config class."""
    backbone: dict[str, Tensor]
    """State dict of the backbone's model, complete."""
    method: dict[str, Any]
    """``name`` and settings, as in a checkpoint's config."""
    head: dict[str, Any]
    """The head's, likewise."""
    trained: dict[str, Tensor]
    """The classifier's trained tensors that are not the backbone's: what ``model.safetensors`` holds."""
    classes: int
    aside: dict[str, Tensor] = field(default_factory=dict)
    """Tensors that are known but play no part in this classifier, under the reference's names."""


class ReferenceState:
    """Tensors by the reference's names, handed out one by one.

    Args:
        state: the state dict, with or without ``module.`` in front of its names.
        settings: the reference's own configuration, by its own names.
        what: names the kind of checkpoint in messages.
    """

    def __init__(self, state: Mapping[str, Tensor], settings: Mapping[str, Any], what: str) -> None:
        self.settings, self.what = settings, what
        self._left = {name.removeprefix(WRAPPER): tensor for name, tensor in state.items()}

    def take(self, name: str) -> Tensor:
        """The tensor of that name, which is mapped by that.

        Raises:
            CheckpointError: there is none.
        """
        if name not in self._left:
            raise CheckpointError(f"{self.what}: weight {name} is missing")
        return self._left.pop(name)

    def take_all(self, prefix: str) -> dict[str, Tensor]:
        """Every tensor whose name begins with ``prefix``, by its whole name."""
        return {name: self._left.pop(name) for name in sorted(self._left) if name.startswith(prefix)}

    def has(self, prefix: str) -> bool:
        """Whether a name with that beginning is left."""
        return any(name.startswith(prefix) for name in self._left)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor that is not taken yet.

        Raises:
            CheckpointError: there is none of that name.
        """
        if name not in self._left:
            raise CheckpointError(f"{self.what}: weight {name} is missing")
        return tuple(self._left[name].shape)

    def count(self, stem: str) -> int:
        """How many numbered modules there are: 1 + the largest N of the names ``{stem}.N.…``."""
        numbers = [re.match(rf"{re.escape(stem)}\.(\d+)\.", name) for name in self._left]
        return max((int(found[1]) + 1 for found in numbers if found), default=0)

    def heads(self, hidden_size: int) -> int:
        """``num_heads`` of the settings; the base size's 12 where they do not say. No tensor tells.

        Raises:
            CheckpointError: unknown, or no divisor of ``hidden_size``.
        """
        heads = self.settings.get("num_heads", 12 if hidden_size == 768 else None)
        if heads is None:
            raise CheckpointError(
                f"{self.what}: no tensor tells the number of attention heads; name num_heads in a --config FILE.json"
            )
        if not isinstance(heads, int) or heads < 1 or hidden_size % heads:
            raise CheckpointError(f"{self.what}: num_heads {heads} does not divide the hidden size {hidden_size}")
        return int(heads)

    def side(self, patches: int, name: str) -> int:
        """Side of the square that ``patches`` patches make.

        Raises:
            CheckpointError: they make none; ``name`` is the tensor they were counted in.
        """
        side = math.isqrt(patches)
        if side * side != patches:
            raise CheckpointError(f"{self.what}: weight {name} holds {patches} image positions, which make no square")
        return side

    def finish(self) -> None:
        """Make sure that nothing is left.

        Raises:
            CheckpointError: a tensor found no place; the message names the first.
        """
        if self._left:
            name, more = min(self._left), len(self._left) - 1
            raise CheckpointError(f"{self.what}: weight {name} is not known" + (f" ({more} more)" if more else ""))
