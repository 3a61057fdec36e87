"""A model of the user's own as the subject of an audit: only what it is given and what it returns can be seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps
from torch import Tensor

from mmrobust.audit.subject import Subject
from mmrobust.cases import SITUATION, Case, missing_cases
from mmrobust.data.dataset import Dataset
from mmrobust.data.decoded_split import DecodedSplit, Media, copied
from mmrobust.degradations import Noise
from mmrobust.errors import ModelError
from mmrobust.models.own.own_model import OwnModel

LOUDER = 1000.0
"""The factor on the neighbours' recordings and arrays."""
LONGER = 8
"""How many times as long the text and the recording of a larger neighbour are."""


class RawSample(NamedTuple):
    """A sample as the model gets it."""

    id: str
    media: Media


class OwnSubject(Subject):
    """A model of the user's own; arguments as for :class:`Subject`."""

    open = False

    def __init__(self, model: OwnModel, dataset: Dataset, *, split: str, limit: int, seed: int) -> None:
        super().__init__(model, model.name, dataset, split=split, limit=limit, seed=seed)
        self.own = model
        self.decoded = DecodedSplit(self.split, self.modalities, model.model.fill, Noise())

    @property
    def made_of(self) -> dict[str, str]:
        """``own``, throughout."""
        described = self.own.described()
        return {key: str(described[key]) for key in ("method", "head", "backbone")}

    @property
    def about(self) -> str:
        """Its version."""
        return f"a model of your own, version {self.own.model.version}"

    @property
    def cases(self) -> tuple[str, ...]:
        """Complete, and each modality missing, where another is left."""
        if len(self.modalities) == 1:
            return ("complete",)
        return tuple(case.name for case in missing_cases(self.modalities))

    @property
    def tells_cases_apart(self) -> bool:
        """Whether its function is told the case."""
        return self.own.model.knows_case

    @property
    def on_cpu(self) -> bool:
        """Whether it says so."""
        return self.own.device.partition(":")[0] == "cpu"

    def inputs(self, positions: Sequence[int], case: str) -> list[RawSample]:
        """Raw samples."""
        state, positions = Case.parse(case, self.modalities), sorted(positions)
        (loaded,) = self.decoded.load([dict.fromkeys(positions, state.present)])
        return [
            RawSample(self.split.ids[p], self.decoded.in_case(p, media, state)) for p, media in sorted(loaded.items())
        ]

    def run(self, inputs: list[RawSample], case: str, prompting: str = SITUATION) -> Tensor:
        """See :meth:`Subject.run`. The function gets copies, since it may change them."""
        batch = [{modality: copied(medium) for modality, medium in sample.media.items()} for sample in inputs]
        ids = [sample.id for sample in inputs]
        return torch.from_numpy(self.own.logits(batch, (case, prompting), self.split.info.classes, ids))

    def rows(self, inputs: list[RawSample], chosen: Sequence[int]) -> list[RawSample]:
        """See :meth:`Subject.rows`; how the function pads is its own affair."""
        return [inputs[row] for row in chosen]

    def with_extreme_neighbours(self, inputs: list[RawSample], unchanged: Sequence[int]) -> list[RawSample]:
        """Pictures in negative, texts with their words in reverse, recordings and arrays 1,000 times as loud."""
        return [
            sample if row in unchanged else RawSample(sample.id, {m: _extreme(v) for m, v in sample.media.items()})
            for row, sample in enumerate(inputs)
        ]

    def alone_and_padded(self, position: int, case: str, prompting: str) -> tuple[Tensor, Tensor] | None:
        """See :meth:`Subject.alone_and_padded`; ``None`` if the function takes no larger neighbour."""
        (sample,) = self.inputs([position], case)
        larger = RawSample(sample.id, {modality: _larger(medium) for modality, medium in sample.media.items()})
        alone = self.run([sample], case, prompting)
        try:
            return alone, self.run([sample, larger], case, prompting)[:1]
        except ModelError:
            return None

    def fill_of(self, position: int, modality: str, case: Case) -> npt.NDArray[Any]:
        """The fill; 0 for ``None``."""
        fill = self.decoded.in_case(position, dict.fromkeys(case.present), case)[modality]
        if isinstance(fill, str):
            return np.frombuffer(f" {fill}".encode(), dtype=np.uint8)
        waveform = fill[0] if isinstance(fill, tuple) else fill
        return np.zeros(1) if fill is None else np.asarray(waveform, dtype=np.float64)


def _extreme(medium: Any) -> Any:
    if isinstance(medium, Image.Image):
        return ImageOps.invert(medium)
    if isinstance(medium, str):
        return " ".join(reversed(medium.split()))
    if isinstance(medium, tuple):
        return medium[0] * np.float32(LOUDER), medium[1]
    return medium if medium is None else medium * LOUDER


def _larger(medium: Any) -> Any:
    if isinstance(medium, Image.Image):
        return medium.resize((2 * medium.width, 2 * medium.height))
    if isinstance(medium, str):
        return " ".join([medium] * LONGER)
    if isinstance(medium, tuple):
        return np.tile(medium[0], LONGER), medium[1]
    return medium
