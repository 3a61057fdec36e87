"""State dicts of the papers' code, and the result of mapping one to mmrobust's names.

A mapping is a pure function (state dict, settings, head) → :class:`MappedCheckpoint`; it opens no file and builds no
model. It must use every tensor.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from mmrobust.errors import CheckpointError, UsageError, unknown_name

WRAPPER = "module."
"""Prefix that ``DataParallel`` adds to every name."""

HEADS = {
    "mmimdb": ("multi-label", "macro_f1"),
    "food101": ("single-label", "accuracy"),
    "hatememes": ("binary", "auroc"),
}
"""Heads in MMP's, DCP's and DPL's code (``{name}_classifier``, ``{name}_pl_head``): name → (task, headline metric)."""
HEAD_KINDS = {"classifier": "mmp or dcp", "pl_head": "dpl"}
"""Kind of head, the end of its name → the kinds of checkpoint with it."""


@dataclass(frozen=True)
class MappedCheckpoint:
    """A checkpoint of a paper's code under mmrobust's names."""

    family: str
    """Family of the backbone: ``vilt``, ``clip`` or ``cavmae``."""
    repository: str
    """URL of the code that wrote it."""
    sizes: dict[str, Any]
    """Arguments of the backbone's config class."""
    backbone: dict[str, Tensor]
    """Complete state dict of the backbone's model."""
    method: dict[str, Any]
    """``name`` and settings of the method, as in a checkpoint's config."""
    head: dict[str, Any]
    """``name`` and settings of the head."""
    trained: dict[str, Tensor]
    """The trained tensors outside the backbone, as in ``model.safetensors``."""
    classes: int
    task: str
    headline_metric: str
    dataset: str
    """The paper's name of the data that the head was trained on, or ``unknown``."""
    inputs: dict[str, Any] = field(default_factory=dict)
    """Settings of the input processor, as far as the paper's configuration has them."""
    aside: dict[str, Tensor] = field(default_factory=dict)
    """Tensors that this classifier does not use, under the paper's names."""
    remarks: tuple[str, ...] = ()
    """What the user should know, one sentence each."""


class ReferenceState:
    """Tensors under the names of the paper's code, taken out one by one.

    Args:
        state: the state dict, with or without ``module.`` in front of its names.
        settings: the paper's own configuration, under its own names.
        what: names the kind of checkpoint in messages.

    Raises:
        CheckpointError: a name occurs twice, with and without ``module.``. Every method raises one that names the
            weight or setting if it is not there, or not what is asked for.
    """

    def __init__(self, state: Mapping[str, Tensor], settings: Mapping[str, Any], what: str) -> None:
        self.settings, self.what = settings, what
        self._left = {name.removeprefix(WRAPPER): tensor for name, tensor in state.items()}
        if len(self._left) < len(state):
            twice = min(name for name in state if WRAPPER + name in state)
            raise self.error(f"weight {twice} occurs twice, with and without '{WRAPPER}'")

    def error(self, problem: str) -> CheckpointError:
        """The error to raise for a ``problem`` of this checkpoint."""
        return CheckpointError(f"{self.what}: {problem}")

    def take(self, name: str) -> Tensor:
        """Take out the tensor of that name."""
        if name not in self._left:
            raise self.error(f"weight {name} is missing")
        return self._left.pop(name)

    def affine(self, theirs: str, ours: str) -> dict[str, Tensor]:
        """Take out weight and bias of a dense layer or norm called ``theirs``, and name them ``ours``."""
        return {f"{ours}.{kind}": self.take(f"{theirs}.{kind}") for kind in ("weight", "bias")}

    def affines(self, theirs: str, ours: str, names: Mapping[str, str]) -> dict[str, Tensor]:
        """:meth:`affine` of several layers below ``theirs``, given by our name → the paper's."""
        layers = (self.affine(f"{theirs}.{name}", f"{ours}.{own}") for own, name in names.items())
        return {name: tensor for layer in layers for name, tensor in layer.items()}

    def thirds(self, theirs: str, ours: Sequence[str]) -> dict[str, Tensor]:
        """Take out one projection to queries, keys and values, ``{theirs}weight`` and ``{theirs}bias``, as three."""
        return {
            f"{name}.{kind}": rows.contiguous()
            for kind in ("weight", "bias")
            for name, rows in zip(ours, self.take(f"{theirs}{kind}").chunk(3), strict=True)
        }

    def take_all(self, prefix: str) -> dict[str, Tensor]:
        """Take out all tensors whose names start with ``prefix``, under their full names."""
        return {name: self._left.pop(name) for name in sorted(self._left) if name.startswith(prefix)}

    def has(self, prefix: str) -> bool:
        """Whether a tensor with that prefix is left."""
        return any(name.startswith(prefix) for name in self._left)

    def shape(self, name: str, dimensions: int) -> tuple[int, ...]:
        """The shape of a tensor that is still there, which must have so many ``dimensions`` and not be empty."""
        if name not in self._left:
            raise self.error(f"weight {name} is missing")
        shape = tuple(self._left[name].shape)
        if len(shape) != dimensions or 0 in shape:
            raise self.error(f"weight {name} is of shape {list(shape)}, not of {dimensions} dimensions")
        return shape

    def count(self, stem: str) -> int:
        """Number of numbered modules: of the different N in the names ``{stem}.N.…``.

        If a number is skipped, taking the modules up to the count fails and names the missing one.
        """
        numbers = (re.match(rf"{re.escape(stem)}\.(\d+)\.", name) for name in self._left)
        return len({found[1] for found in numbers if found})

    def number(self, name: str, default: float) -> float:
        """A setting that must be a number; ``default`` if the settings do not have it."""
        value = self.settings.get(name, default)
        if value is None:  # an option of the paper's command line that was not given
            return default
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise self.error(f"setting {name} = {value!r} is not a number")
        return value

    def choose_head(self, head_from: str | None, kind: str = "classifier") -> str:
        """The name of the head to take, one of :data:`HEADS`; the weights of each begin with ``{name}_{kind}``.

        ``head_from`` is needed if there are several; a ``UsageError`` if it is unknown.
        """
        if head_from is not None and head_from not in HEADS:
            raise unknown_name("--head-from", head_from, HEADS)
        there = [name for name in HEADS if self.has(f"{name}_{kind}.")]
        if not there:
            other = [key for key in HEAD_KINDS if key != kind and any(self.has(f"{name}_{key}.") for name in HEADS)]
            hint = "".join(f"; with …_{key} it is one for: mmrobust import {HEAD_KINDS[key]}" for key in other)
            raise self.error(f"has no head ({', '.join(f'{name}_{kind}' for name in HEADS)}){hint}")
        if head_from is None and len(there) > 1:
            raise self.error(f"has heads for {', '.join(there)}; choose one with --head-from")
        if head_from is not None and head_from not in there:
            raise self.error(f"has no head for {head_from}, only for {', '.join(there)}; see --head-from")
        return head_from or there[0]

    def other_heads(self, chosen: str, *kinds: str) -> dict[str, Tensor]:
        """Take out all heads of these ``kinds`` (default: ``classifier``) but the ``chosen`` one, under their names."""
        kinds = kinds or ("classifier",)
        prefixes = [f"{head}_{kind}." for head in HEADS for kind in kinds if (head, kind) != (chosen, kinds[0])]
        return {name: tensor for prefix in prefixes for name, tensor in self.take_all(prefix).items()}

    def only_head(self, head_from: str | None) -> None:
        """Refuse ``--head-from``, with a ``UsageError``, for a kind whose checkpoints hold one head."""
        if head_from is not None:
            raise UsageError(f"--head-from {head_from}: a {self.what} holds one head; leave the option out")

    def heads(self, hidden_size: int) -> int:
        """``num_heads`` of the settings, which no tensor shows; 12 by default for the base size of 768."""
        heads = self.settings.get("num_heads", 12 if hidden_size == 768 else None)
        if heads is None:
            raise self.error("no tensor shows the number of attention heads; set num_heads in a --config FILE.json")
        if type(heads) is not int or heads < 1 or hidden_size % heads:
            raise self.error(f"num_heads {heads} does not divide the hidden size {hidden_size}")
        return heads

    def side(self, patches: int, name: str) -> int:
        """Side of the square of ``patches`` patches, which are counted in the tensor ``name``."""
        side = math.isqrt(patches)
        if side * side != patches:
            raise self.error(f"weight {name} holds {patches} image positions, which is not a square number")
        return side

    def finish(self) -> None:
        """Check that every tensor was taken; the message names the first that was not."""
        if self._left:
            name, more = min(self._left), len(self._left) - 1
            raise self.error(f"weight {name} is not known" + (f" ({more} more)" if more else ""))
