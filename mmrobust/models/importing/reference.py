"""What a reference's checkpoint is to the mappings: a state dict of which every tensor must find its place.

A mapping is a pure function (state dict, settings, head) → :class:`Imported`; it opens no file and builds no model.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from mmrobust.errors import CheckpointError, UsageError, unknown_name

WRAPPER = "module."
"""What ``DataParallel`` puts in front of every name."""

HEADS = {
    "mmimdb": ("multi-label", "macro_f1"),
    "food101": ("single-label", "accuracy"),
    "hatememes": ("binary", "auroc"),
}
"""The heads of MMP's and DCP's code, ``{name}_classifier`` → (our task, our headline metric)."""


@dataclass(frozen=True)
class Imported:
    """What a reference's checkpoint holds, in our words."""

    family: str
    """Of the backbone: ``vilt``, ``clip`` or ``cavmae``."""
    repository: str
    """Whose code wrote such checkpoints."""
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
    task: str
    headline_metric: str
    dataset: str
    """The reference's name of the data that the head was trained on, or ``unknown``."""
    inputs: dict[str, Any] = field(default_factory=dict)
    """How raw inputs become tensors, where the reference's settings say so: fields of the family's own settings."""
    aside: dict[str, Tensor] = field(default_factory=dict)
    """Tensors that are known but play no part in this classifier, under the reference's names."""
    remarks: tuple[str, ...] = ()
    """What the user should know, one sentence each."""


class ReferenceState:
    """Tensors by the reference's names, handed out one by one.

    Args:
        state: the state dict, with or without ``module.`` in front of its names.
        settings: the reference's own configuration, by its own names.
        what: names the kind of checkpoint in messages.

    Raises:
        CheckpointError: a name that is there twice, with and without ``module.``.
    """

    def __init__(self, state: Mapping[str, Tensor], settings: Mapping[str, Any], what: str) -> None:
        self.settings, self.what = settings, what
        self._left = {name.removeprefix(WRAPPER): tensor for name, tensor in state.items()}
        if len(self._left) < len(state):
            twice = min(name for name in state if WRAPPER + name in state)
            raise CheckpointError(f"{what}: weight {twice} is there twice, with and without '{WRAPPER}'")

    def take(self, name: str) -> Tensor:
        """The tensor of that name, which is mapped by that.

        Raises:
            CheckpointError: there is none.
        """
        if name not in self._left:
            raise CheckpointError(f"{self.what}: weight {name} is missing")
        return self._left.pop(name)

    def affine(self, theirs: str, ours: str) -> dict[str, Tensor]:
        """Weight and bias of a dense layer or a norm, under our name of it."""
        return {f"{ours}.{kind}": self.take(f"{theirs}.{kind}") for kind in ("weight", "bias")}

    def take_all(self, prefix: str) -> dict[str, Tensor]:
        """Every tensor whose name begins with ``prefix``, by its whole name."""
        return {name: self._left.pop(name) for name in sorted(self._left) if name.startswith(prefix)}

    def has(self, prefix: str) -> bool:
        """Whether a name with that beginning is left."""
        return any(name.startswith(prefix) for name in self._left)

    def shape(self, name: str, dimensions: int) -> tuple[int, ...]:
        """The shape of a tensor that is not taken yet.

        Raises:
            CheckpointError: there is none of that name, or it has another number of ``dimensions``, or an empty one.
        """
        if name not in self._left:
            raise CheckpointError(f"{self.what}: weight {name} is missing")
        shape = tuple(self._left[name].shape)
        if len(shape) != dimensions or 0 in shape:
            raise CheckpointError(
                f"{self.what}: weight {name} is of shape {list(shape)}, not of {dimensions} dimensions"
            )
        return shape

    def count(self, stem: str) -> int:
        """How many numbered modules there are: the different N of the names ``{stem}.N.…``.

        Where a number is left out, the modules up to the count are looked for, and the missing one is named then.
        """
        numbers = (re.match(rf"{re.escape(stem)}\.(\d+)\.", name) for name in self._left)
        return len({found[1] for found in numbers if found})

    def number(self, name: str, default: float) -> float:
        """A setting that is a number; ``default`` where the settings do not have it.

        Raises:
            CheckpointError: it is something else.
        """
        value = self.settings.get(name, default)
        if value is None:  # an option of a command line that was not given
            return default
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise CheckpointError(f"{self.what}: setting {name} = {value!r} is no number")
        return value

    def choose_head(self, head_from: str | None) -> str:
        """The name of the head to take, one of :data:`HEADS`.

        Raises:
            UsageError: no such name.
            CheckpointError: there is no head, not this one, or several and none is named.
        """
        if head_from is not None and head_from not in HEADS:
            raise unknown_name("--head-from", head_from, HEADS)
        there = [name for name in HEADS if self.has(f"{name}_classifier.")]
        if not there:
            names = ", ".join(f"{name}_classifier" for name in HEADS)
            raise CheckpointError(f"{self.what}: there is no head in it ({names})")
        if head_from is None and len(there) > 1:
            raise CheckpointError(
                f"{self.what}: there are heads for {', '.join(there)} in it; choose one with --head-from"
            )
        if head_from is not None and head_from not in there:
            raise CheckpointError(
                f"{self.what}: there is no head for {head_from} in it, but for {', '.join(there)}; see --head-from"
            )
        return head_from or there[0]

    def only_head(self, head_from: str | None) -> None:
        """For a reference whose checkpoints hold one head.

        Raises:
            UsageError: a head was named all the same.
        """
        if head_from is not None:
            raise UsageError(f"--head-from {head_from}: a {self.what} holds one head; leave the option out")

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
        if isinstance(heads, bool) or not isinstance(heads, int) or heads < 1 or hidden_size % heads:
            raise CheckpointError(f"{self.what}: num_heads {heads} does not divide the hidden size {hidden_size}")
        return heads

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
