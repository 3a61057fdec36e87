"""A checkpoint as the subject of an audit: its tensors, weights and number format can be reached."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mmrobust.audit.subject import Subject
from mmrobust.cases import SITUATION, Case
from mmrobust.data.dataset import Dataset
from mmrobust.data.encoded_split import EncodedSplit
from mmrobust.models.checkpoint import Checkpoint

Inputs = dict[str, Tensor]
"""A batch of the backbone's inputs, as its processor collates them."""

EXTREME = 1000.0
"""The factor on the neighbours' pixels and filter banks."""


class CheckpointSubject(Subject):
    """A checkpoint, whose classifier runs in float32 unless a check changes that; arguments as for :class:`Subject`."""

    open = True

    def __init__(self, checkpoint: Checkpoint, dataset: Dataset, *, split: str, limit: int, seed: int) -> None:
        super().__init__(checkpoint, str(checkpoint.folder), dataset, split=split, limit=limit, seed=seed)
        self.checkpoint, self.classifier = checkpoint, checkpoint.classifier
        backbone = self.classifier.backbone
        self.encoded = EncodedSplit(self.split, backbone.processor, self.modalities, self.classifier.fill)

    @property
    def made_of(self) -> dict[str, str]:
        """Method, head and the backbone's family."""
        classifier = self.classifier
        return {
            "method": classifier.method.name,
            "head": classifier.head.name,
            "backbone": classifier.backbone.family,
        }

    @property
    def about(self) -> str:
        """Method, head and backbone."""
        return "{method} + {head} on {backbone}".format(**self.made_of)

    @property
    def cases(self) -> tuple[str, ...]:
        """The cases that the classifier was trained for."""
        return self.classifier.cases

    @property
    def tells_cases_apart(self) -> bool:
        """Whether method or head have something for each case."""
        return self.classifier.method.knows_case or self.classifier.head.knows_case

    @property
    def on_cpu(self) -> bool:
        """Whether the classifier's parameters are in main memory."""
        return next(self.classifier.parameters()).device.type == "cpu"

    @property
    def number_format(self) -> str:
        """The type in which matrix products run."""
        return self.classifier.dtype

    def samples(self, positions: Sequence[int], case: str) -> list[dict[str, Tensor]]:
        """Encoded samples in ``case``: modality → tensor."""
        return self.encoded.samples(positions, Case.parse(case, self.modalities))

    def collate(self, samples: Sequence[Mapping[str, Tensor]]) -> Inputs:
        """Collate encoded samples into one batch."""
        return self.encoded.processor.collate(samples)

    def inputs(self, positions: Sequence[int], case: str) -> Inputs:
        """The backbone's inputs."""
        return self.collate(self.samples(positions, case))

    def run(self, inputs: Inputs, case: str, prompting: str = SITUATION) -> Tensor:
        """See :meth:`Subject.run`."""
        device = next(self.classifier.parameters()).device
        with torch.inference_mode():
            logits: Tensor = self.classifier({k: v.to(device) for k, v in inputs.items()}, case, prompting)
            return logits.cpu()

    def rows(self, inputs: Inputs, chosen: Sequence[int]) -> Inputs:
        """See :meth:`Subject.rows`."""
        return {name: tensor[list(chosen)] for name, tensor in inputs.items()}

    def with_extreme_neighbours(self, inputs: Inputs, unchanged: Sequence[int]) -> Inputs:
        """Huge values, and texts of one repeated token. Masks and sizes stay."""
        changed = dict(inputs)
        for name, tensor in inputs.items():
            if "mask" not in name and not name.endswith(".sizes"):
                extreme = tensor * EXTREME if tensor.is_floating_point() else tensor.amax().expand_as(tensor)
                changed[name] = extreme.clone()
                changed[name][list(unchanged)] = tensor[list(unchanged)]
        return changed

    def alone_and_padded(self, position: int, case: str, prompting: str) -> tuple[Tensor, Tensor] | None:
        """See :meth:`Subject.alone_and_padded`."""
        (sample,) = self.samples([position], case)
        alone = self.collate([sample])
        larger = {modality: self.encoded.processor.larger(modality, tensor) for modality, tensor in sample.items()}
        beside = self.rows(self.collate([sample, larger]), [0])
        if all(beside[name].shape == tensor.shape for name, tensor in alone.items()):
            return None
        return self.run(alone, case, prompting), self.run(beside, case, prompting)

    def fill_of(self, position: int, modality: str, case: Case) -> npt.NDArray[Any]:
        """The fill's tensor. Present modalities are not decoded: that would be most of the work."""
        return np.asarray(self.encoded.inputs([position], modality, case)[0].numpy())
