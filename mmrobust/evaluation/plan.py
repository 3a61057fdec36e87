"""Which (sample, case, prompting) a grid needs: each once, and none that no cell asks for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from mmrobust.cases import Case
from mmrobust.scenarios.grid import Grid


def plan_predictions(
    sample_ids: Sequence[str],
    grid: Grid,
    modalities: Sequence[str],
    natural: Sequence[Case] | None,
    promptings: Sequence[str],
) -> dict[tuple[str, str], npt.NDArray[np.int64]]:
    """What the cells of ``grid`` need.

    Tables are nested over rates, so the lowest rate says who is needed unaffected and the highest who is needed
    affected; the rates between add nothing.

    Args:
        sample_ids: the ids of the split, in its order.
        grid: the grid.
        modalities: of the model.
        natural: the case of each sample by nature, or ``None``.
        promptings: those that the model tells apart (one, where it makes no difference to it).
    """
    needed: dict[str, set[int]] = {}
    for _, _, rates, draw in grid.draws(sample_ids, modalities, natural):
        for rate in {rates[0], rates[-1]}:
            table = draw.table(rate)
            for case in set(table.tolist()):
                needed.setdefault(case, set()).update(np.flatnonzero(table == case).tolist())
    return {
        (case, prompting): np.asarray(sorted(positions), dtype=np.int64)
        for case, positions in sorted(needed.items())
        for prompting in promptings
    }
