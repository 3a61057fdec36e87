"""Parts of the work of an evaluation, so that several processes or machines share it.

A part is every N-th stretch of the split. Batches are formed within a stretch, so who predicts it changes no batch, and
no logit by as much as a bit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mmrobust.errors import UsageError
from mmrobust.prediction.plan import Plan
from mmrobust.prediction.run import STRETCH_SAMPLES


@dataclass(frozen=True)
class Part:
    """Part ``index`` (from 1) of ``of``.

    Raises:
        UsageError: no such part.
    """

    index: int
    of: int

    def __post_init__(self) -> None:
        if not 1 <= self.index <= self.of:
            raise UsageError(f"--shard {self}: shards count from 1/{self.of} to {self.of}/{self.of}")

    @classmethod
    def parse(cls, text: str) -> Part:
        """The part of that name, ``I/N``.

        Raises:
            UsageError: no such part, or not of that form.
        """
        index, slash, of = text.partition("/")
        if not (slash and index.isdecimal() and of.isdecimal() and int(of)):
            raise UsageError(f"--shard '{text}': give I/N, from 1/N to N/N, as in --shard 2/8")
        return cls(int(index), int(of))

    def __str__(self) -> str:
        return f"{self.index}/{self.of}"

    def within(self, plan: Plan) -> dict[tuple[str, str], npt.NDArray[np.int64]]:
        """This part of ``plan``."""
        mine = {key: p[p // STRETCH_SAMPLES % self.of == self.index - 1] for key, p in plan.items()}
        return {key: positions for key, positions in mine.items() if len(positions)}
