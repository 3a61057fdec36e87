"""The classifier: backbone + method + head. A batch and a case go in, logits come out."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmrobust.cases import CONCAT, PROMPTINGS, SITUATION, Case
from mmrobust.data.processor import check_fill
from mmrobust.errors import UsageError, unknown_name
from mmrobust.models.backbone import Backbone, Begun, Features
from mmrobust.models.heads.base import Head, HeadConfig, HeadSizes
from mmrobust.models.methods.base import Method, MethodConfig
from mmrobust.models.sequence import TokenSequence


class Classifier(nn.Module):
    """A frozen backbone, what a method adds to it, and a head.

    Args:
        backbone: the encoder.
        method: class of the method.
        method_config: its settings.
        head: class of the head.
        head_config: its settings.
        classes: names of the classes.
        task: ``single-label``, ``multi-label`` or ``binary``.
        cases: the cases that method and head tell apart.
        fill: what stands in for a missing image.
    """

    def __init__(
        self,
        backbone: Backbone,
        method: type[Method],
        method_config: MethodConfig,
        head: type[Head],
        head_config: HeadConfig,
        *,
        classes: Sequence[str],
        task: str,
        cases: Sequence[Case],
        fill: str = "ones",
    ) -> None:
        super().__init__()
        self.classes, self.task, self.fill = tuple(classes), task, check_fill(fill)
        self.classes_named = True
        """Whether ``classes`` are names, and not mere numbers for want of them (an imported checkpoint's)."""
        self.dtype = "float32"
        """``bfloat16``: matrix work runs in that type (autocast); weights and logits stay float32."""
        self.modalities: tuple[str, ...] = tuple(backbone.modalities)
        self.cases = tuple(case.name for case in cases)
        self.backbone = backbone
        self.method = method(method_config, backbone, self.cases)
        pooling = backbone.pooling()
        # A method that trains the pooling alone must not touch the backbone's own weights: it gets a copy.
        self.pooling = (
            copy.deepcopy(pooling) if self.method.trains_pooling and not self.method.trains_backbone else pooling
        )
        sizes = HeadSizes(pooling.pooled_size, pooling.part_sizes, backbone.normed_head)
        self.head = head(head_config, sizes, len(self.classes), cases)
        self._choose_trained()
        self.train(False)

    @property
    def depends_on_prompting(self) -> bool:
        """Whether situation and concat prompting can give different logits."""
        return self.method.has_prompts or self.head.knows_case or self.backbone.knows_case

    def forward(self, inputs: Mapping[str, Tensor], case: str = "complete", prompting: str = SITUATION) -> Tensor:
        """Logits [B, classes], float32.

        Args:
            inputs: the backbone's own tensors (``input_ids``, ``attention_mask``, ``pixel_values``, ``pixel_mask``;
                ``audio_values`` [B, frames, mel]), with the fill of a missing modality already in place.
            case: the case of every sample of the batch; see :meth:`told`.
            prompting: ``situation``: the model is told the case; ``concat``: it is offered all cases together.

        Raises:
            UsageError: as for :meth:`told`.
        """
        told = self.told(case, prompting)
        with self.autocast():
            logits: Tensor = self.head(self.features(inputs, told), told)
        return logits.float()

    def learn(self, features: Features, case: str, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [B, classes] and the head's own term of the loss, as a training step takes them: :meth:`Head.learn`.

        Args:
            features: of the batch: :meth:`features`.
            case: the case of every sample, which the model is told.
            targets: labels as ones in [B, classes].
        """
        with self.autocast():
            logits, own = self.head.learn(features, self.told(case, SITUATION), targets)
        return logits.float(), own.float()

    def autocast(self) -> torch.autocast:
        """The context in which it runs: matrix work in :attr:`dtype`."""
        device = next(self.parameters()).device.type
        return torch.autocast(device, torch.bfloat16, enabled=self.dtype == "bfloat16")

    def features(
        self, inputs: Mapping[str, Tensor], told: Sequence[str], begun: Mapping[str, Begun] | None = None
    ) -> Features:
        """What the head sees of a batch; ``told`` are the cases whose prompts are offered.

        Args:
            inputs: as for :meth:`forward`.
            told: see :meth:`told`.
            begun: streams to go on from: :meth:`Backbone.forward`.
        """
        return self.pool(self.backbone(inputs, self.method.source(told), self.known_missing(told), begun))

    def known_missing(self, told: Sequence[str]) -> tuple[str, ...]:
        """The modalities that are missing in every case of ``told``, so that nothing need look at them.

        Whoever is told the case can do without its tower. Under concat prompting the cases name every modality, so
        nothing is told of the sample's own.
        """
        present = {modality for case in told for modality in Case.parse(case, self.modalities).present}
        return tuple(modality for modality in self.modalities if modality not in present)

    def pool(self, streams: Mapping[str, TokenSequence]) -> Features:
        """What the head sees of the streams after their last layers."""
        if self.head.reads_parts:
            return Features(None, self.pooling.parts(streams))
        return Features(self.pooling.pooled(streams), {})

    def logits(
        self, samples: Iterable[Mapping[str, Any]], case: str = "complete", prompting: str = SITUATION
    ) -> Tensor:
        """Logits [N, classes] of raw samples, in one batch.

        Args:
            samples: dicts modality → ``PIL.Image`` / ``str`` / (waveform, rate in Hz); ``None`` or absent: missing.
            case: the case of the samples; what it calls missing is replaced by the fill, whatever the sample holds.
            prompting: as for :meth:`forward`.

        Raises:
            UsageError: a sample that lacks what ``case`` calls present, or no samples.
        """
        self.told(case, prompting)
        encoded = [self._encode(sample, Case.parse(case, self.modalities)) for sample in samples]
        if not encoded:
            raise UsageError("no samples were given to classify")
        device = next(self.parameters()).device
        batch = {key: value.to(device) for key, value in self.backbone.processor.collate(encoded).items()}
        with torch.inference_mode():
            logits: Tensor = self(batch, case, prompting)
            return logits

    def _encode(self, sample: Mapping[str, Any], case: Case) -> dict[str, Tensor]:
        processor, encoded = self.backbone.processor, {}
        for modality in self.modalities:
            raw = sample.get(modality)
            if not case.is_missing(modality) and raw is None:
                raise UsageError(f"a sample has no {modality}, but case '{case}' says it is present")
            missing = case.is_missing(modality)
            encoded[modality] = processor.fill(modality, self.fill) if missing else processor.encode(modality, raw)
        return encoded

    def told(self, case: str, prompting: str) -> tuple[str, ...]:
        """The cases whose prompts and prototypes are offered to a sample in ``case``.

        Any case of the modalities will do under concat prompting, which offers those of every case trained for, and
        where there is nothing that is trained for a case. Which corruption a case names is never told.

        Raises:
            UsageError: an unknown case or prompting, or, under situation prompting, one that nothing was trained for.
        """
        if prompting not in PROMPTINGS:
            raise unknown_name("prompting", prompting, PROMPTINGS)
        name = Case.parse(case, self.modalities).plain.name
        if prompting == CONCAT:
            return self.cases
        if (self.method.has_prompts or self.head.knows_case) and name not in self.cases:
            raise UsageError(
                f"nothing of this {self.method.name} + {self.head.name} checkpoint was trained for case '{name}', only "
                f"for {', '.join(self.cases)}; --prompting concat works for any case"
            )
        return (name,)

    def _choose_trained(self) -> None:
        """Mark what trains: the method's and the head's own, what the method wants of the pooling, or everything."""
        head_trains = {name: p.requires_grad for name, p in self.head.named_parameters()}
        self.requires_grad_(self.method.trains_backbone)
        self.method.requires_grad_(True)
        for name, parameter in self.head.named_parameters():
            parameter.requires_grad_(head_trains[name] and self.method.trains_head)
        if self.method.trains_pooling:
            pooling = self.pooling
            for name in pooling.trained_part_names if self.head.reads_parts else pooling.trained_names:
                self.pooling.get_submodule(name).requires_grad_(True)

    def trained(self) -> dict[str, nn.Parameter]:
        """Name → every parameter that trains."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    def train(self, mode: bool = True) -> Classifier:
        """Training mode for what trains.

        A frozen backbone stays in evaluation mode, so that its dropout is off, unless its settings ask for it.
        """
        super().train(mode)
        if not self.method.trains_backbone:
            self.backbone.train(mode and self.backbone.settings.dropout)
        return self


def compile_model(classifier: Classifier) -> None:
    """Compile what a classifier's backbone runs, for inputs of any size. The first batches take long."""
    backbone = classifier.backbone
    # Not the module's forward: evaluation runs each modality alone and where they meet apart, to share them.
    for name in ("alone", "meet"):
        setattr(backbone, name, torch.compile(getattr(backbone, name), dynamic=True))
