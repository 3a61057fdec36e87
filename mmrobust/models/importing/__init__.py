"""Checkpoints of the papers' own code, made into ours.

One module per method, each a pure function of a state dict (``mmp``, ``dcp``, ``cavmae``), and one line in
:data:`KINDS`; ``reading`` opens the files, ``backbone`` builds the encoder, ``checkpoint`` does the whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from mmrobust.configuration import look_up

if TYPE_CHECKING:
    from torch import Tensor

    from mmrobust.models.importing.reference import Imported

    Mapper = Callable[[Mapping[str, Tensor], Mapping[str, Any], str | None], Imported]

KINDS = {
    "mmp": "mmrobust.models.importing.mmp:from_mmp",
    "dcp": "mmrobust.models.importing.dcp:from_dcp",
    "cav-mae": "mmrobust.models.importing.cavmae:from_cavmae",
}
"""Kind of checkpoint → ``module:function`` that maps (state dict, settings, head) to :class:`Imported`."""


def mapper(kind: str) -> Mapper:
    """The mapping for checkpoints of that kind.

    Raises:
        UsageError: no such kind.
    """
    found: Mapper = look_up(KINDS, kind, "kind of checkpoint")
    return found
