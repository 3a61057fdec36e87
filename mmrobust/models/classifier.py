"""The classifier: backbone + method + head, from a batch and its case to logits."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmrobust.cases import CONCAT, PROMPTINGS, SITUATION, Case
from mmrobust.data.processor import check_fill
from mmrobust.errors import UsageError, unknown_name
from mmrobust.models.backbone import Backbone, PartialStream
from mmrobust.models.heads.base import Head, HeadConfig, HeadSizes, LabelScale
from mmrobust.models.layers import run_layer
from mmrobust.models.methods.base import Method, MethodConfig
from mmrobust.models.pooling import Features
from mmrobust.models.sequence import TokenSequence
from mmrobust.storage.tasks import REGRESSION


class Classifier(nn.Module):
    """A frozen backbone, what a method adds to it, and a head, both given by their classes and settings.

    Args:
        classes: names of the classes; of a regression task, of the number.
        task: one of :data:`mmrobust.storage.tasks.TASKS`.
        cases: the cases that method and head distinguish.
        fill: the fill of a missing image, one of :data:`mmrobust.data.processor.FILLS`.
        label_scale: that of the labels of a regression task.

    Raises:
        UsageError: an unknown fill, or a head that needs classes for a regression task.
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
        label_scale: LabelScale | None = None,
    ) -> None:
        super().__init__()
        self.classes, self.task, self.fill = tuple(classes), task, check_fill(fill)
        self.classes_named = True
        """Whether the names of the classes are known; an imported checkpoint may only number them."""
        self.dtype = "float32"
        """``bfloat16``: matrix products run in that type (autocast); weights and logits stay float32."""
        self.modalities: tuple[str, ...] = tuple(backbone.modalities)
        self.cases = tuple(case.name for case in cases)
        self.backbone = backbone
        self.method = method(method_config, backbone, self.cases)
        pooling = backbone.pooling()
        # A method that trains the pooling but not the backbone gets a copy: the backbone's own weights must not change.
        self.pooling = (
            copy.deepcopy(pooling) if self.method.trains_pooling and not self.method.trains_backbone else pooling
        )
        normed = backbone.normed_head and backbone.glance is None  # a norm over both would bend the glance
        sizes = HeadSizes(pooling.pooled_size, pooling.modality_sizes, normed)
        if task == REGRESSION and not head.predicts_numbers:
            raise UsageError(f"head {head.name} needs classes; for a {REGRESSION} task take --head linear or mlp")
        self.head = head(head_config, sizes, len(self.classes), cases)
        self.head.label_scale = label_scale
        self._choose_trained()
        self.train(False)

    @property
    def depends_on_prompting(self) -> bool:
        """Whether situation and concat prompting can give different logits."""
        return self.method.knows_case or self.head.knows_case or self.backbone.knows_case

    def forward(self, inputs: Mapping[str, Tensor], case: str = "complete", prompting: str = SITUATION) -> Tensor:
        """Logits [B, classes], float32; in a regression task, numbers [B, 1] in the unit of the labels.

        Args:
            inputs: the backbone's own tensors, as its processor's ``collate`` makes them (``input_ids``,
                ``attention_mask``, ``pixel_values``; ``audio_values`` [B, frames, mel]), including the fill of a
                missing modality.
            case: the case of all samples of the batch; see :meth:`told`.
            prompting: ``situation``: the model is told the case; ``concat``: prompts of all cases are added together.

        Raises:
            UsageError: as for :meth:`told`.
        """
        told = self.told(case, prompting)
        with self.autocast():
            logits: Tensor = self.head(self.features(inputs, told), told)
        return logits.float()

    def learn(self, features: Features, case: str, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [B, classes] and the head's own loss term for a training step; see :meth:`Head.learn`.

        The model is told the ``case`` of all samples; ``targets`` are multi-hot labels [B, classes].
        """
        with self.autocast():
            logits, own = self.head.learn(features, self.told(case, SITUATION), targets)
        return logits.float(), own.float()

    @property
    def scale(self) -> float:
        """The standard deviation of a regression task's training labels; otherwise 1."""
        return 1.0 if self.head.label_scale is None else self.head.label_scale.std

    def autocast(self) -> torch.autocast:
        """The context in which matrix products run in :attr:`dtype`."""
        device = next(self.parameters()).device.type
        return torch.autocast(device, torch.bfloat16, enabled=self.dtype == "bfloat16")

    def features(
        self, inputs: Mapping[str, Tensor], told: Sequence[str], partial: Mapping[str, PartialStream] | None = None
    ) -> Features:
        """The features of a batch that the head reads, continuing from ``partial``; see :meth:`Backbone.forward`."""
        return self.pool(self.backbone(inputs, self.method.source(told), self.known_missing(told), partial))

    def known_missing(self, told: Sequence[str]) -> tuple[str, ...]:
        """The modalities that are missing in all cases of ``told``; usually none if it names all cases (concat)."""
        present = {modality for case in told for modality in Case.parse(case, self.modalities).present}
        return tuple(modality for modality in self.modalities if modality not in present)

    def pool(self, streams: Mapping[str, TokenSequence]) -> Features:
        """The features that the head reads, from the streams after their last layers."""
        if self.head.reads_modalities:
            return Features(None, self.pooling.by_modality_with_glance(streams))
        return Features(self.pooling.pooled_with_glance(streams), {})

    def logits(
        self, samples: Iterable[Mapping[str, Any]], case: str = "complete", prompting: str = SITUATION
    ) -> Tensor:
        """Logits [N, classes] of raw samples, in one batch.

        Args:
            samples: dicts modality → ``PIL.Image`` / ``str`` / (waveform, rate in Hz); ``None`` or no key: missing.
            case: the case of the samples; modalities that are missing in it are replaced by the fill in any case.
            prompting: as for :meth:`forward`.

        Raises:
            UsageError: there are no samples, or one lacks a modality that is present in ``case``.
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
        """The cases that the model is told for a sample in ``case``: those whose prompts and prototypes are used.

        Under situation prompting that is the case itself, without the corruption that it may name; under concat
        prompting all cases that were trained for. Concat prompting, and models that do not know the case, accept any
        case.

        Raises:
            UsageError: an unknown case or prompting, or, under situation prompting, a case that was not trained for.
        """
        if prompting not in PROMPTINGS:
            raise unknown_name("prompting", prompting, PROMPTINGS)
        name = Case.parse(case, self.modalities).plain.name
        if prompting == CONCAT:
            return self.cases
        if (self.method.knows_case or self.head.knows_case) and name not in self.cases:
            raise UsageError(
                f"nothing of this {self.method.name} + {self.head.name} checkpoint was trained for case '{name}', only "
                f"for {', '.join(self.cases)}; --prompting concat works for any case"
            )
        return (name,)

    def _choose_trained(self) -> None:
        """Mark what trains: the parameters of method and head, the method's choice of the pooling, or everything."""
        for part in (self.backbone, self.pooling):
            part.requires_grad_(self.method.trains_backbone)
        self.method.requires_grad_(True)
        if not self.method.trains_head:
            self.head.requires_grad_(False)
        if self.method.trains_pooling:
            pooling = self.pooling
            names = pooling.trained_if_by_modality if self.head.reads_modalities else pooling.trained_if_pooled
            for name in names:
                self.pooling.get_submodule(name).requires_grad_(True)

    def trained(self) -> dict[str, nn.Parameter]:
        """Name → each parameter that trains."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    def train(self, mode: bool = True) -> Classifier:
        """Set training mode; a frozen backbone stays in evaluation mode unless its settings ask for dropout."""
        super().train(mode)
        if not self.method.trains_backbone:
            self.backbone.train(mode and self.backbone.settings.dropout)
        return self


def compile_model(classifier: Classifier) -> None:
    """Compile the layers of a classifier's backbone for inputs of any size. The first batches take longer.

    A layer at a time: the layers of a stream that get the same from the method share one graph, and what the method
    adds is among its inputs. So neither the depth nor the number of cases makes more to compile.
    """
    import torch._dynamo

    # Graphs of one layer; beyond this limit, the rest runs uncompiled unsaid. PyTorch 2.6 knows no other name of it.
    torch._dynamo.config.cache_size_limit = 64
    classifier.backbone.run_layer = torch.compile(run_layer, dynamic=True)
