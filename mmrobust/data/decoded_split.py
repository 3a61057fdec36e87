"""The samples of a split as decoded media, in their cases: what a model takes that encodes its inputs itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from mmrobust.cases import Case
from mmrobust.data.dataset import Split
from mmrobust.data.decoding import SplitDegrader
from mmrobust.data.loading import Loader, Request
from mmrobust.degradations import Noise

Media = dict[str, Any]
"""Modality → ``PIL.Image`` (RGB) / ``str`` / (waveform float32 [n], rate in Hz) / features float32 [D] or [T, D]."""


class DecodedSplit:
    """The samples of a split as decoded media.

    Args:
        split: the samples.
        modalities: the modalities to give.
        fills: modality → what is given where it is missing; ``None`` for all others.
        noise: what is done to a modality that a case calls degraded.
        workers: number of processes that decode; 0: this process does.
    """

    def __init__(
        self, split: Split, modalities: Sequence[str], fills: Mapping[str, Any], noise: Noise, workers: int = 0
    ) -> None:
        self.split, self.modalities, self.fills, self.noise = split, tuple(modalities), dict(fills), noise
        self._degrader = SplitDegrader(split)
        self._loader = Loader(split, None, workers, keep=True)

    def load(self, requests: Iterable[Request]) -> Iterator[dict[int, Media]]:
        """Yield the samples of each request as they are in the data: position → media, in ascending order.

        Raises:
            DataError: a sample cannot be read; names it.
        """
        for loaded in self._loader.media(requests):
            samples: dict[int, Media] = {}
            for (position, modality), medium in loaded.items():
                samples.setdefault(position, {})[modality] = medium
            yield samples

    def in_case(self, position: int, media: Media, case: Case) -> Media:
        """A sample in ``case``: a copy, with the fill for what is missing, and degraded where the case says so.

        Args:
            position: of the sample in the split.
            media: the sample as :meth:`load` gives it; at least what is present in the case.
            case: its case, for which :func:`mmrobust.degradations.check_recordings` does not raise.
        """
        return {modality: self._one(position, modality, media, case) for modality in self.modalities}

    def release(self) -> None:
        """End the workers, and drop what the split keeps in memory."""
        self._loader.close()
        self.split.release()

    def _one(self, position: int, modality: str, media: Media, case: Case) -> Any:
        if case.is_missing(modality):
            return copied(self.fills.get(modality))
        if modality not in case.degraded:
            return copied(media[modality])
        degradation = self._degrader.degradation(case, modality, self.split.ids[position], self.noise)
        return (degradation.on_picture if degradation.encoded else degradation.on_medium)(media[modality])


def copied(medium: Any) -> Any:
    """A copy of a medium: whoever changes it changes no other case of the sample."""
    if isinstance(medium, tuple):
        return tuple(copied(part) for part in medium)
    return medium.copy() if hasattr(medium, "copy") else medium
