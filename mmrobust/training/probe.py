"""The linear probe that is the glance of a tiny backbone (``models/glance.py``).

A regression, logistic for classes, on the simple features of all modalities at once. Each modality's map has an L2
penalty of its own, which the loss on the validation split decides: what says little must not drown what says much.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from mmrobust.cases import Case
from mmrobust.data.dataset import Positions
from mmrobust.models.classifier import Classifier
from mmrobust.models.glance import UNIT, Glance
from mmrobust.training.objective import log_odds, loss
from mmrobust.training.recipe import Recipe
from mmrobust.training.sources import STRETCH, LiveSource
from mmrobust.training.splits import PositionsByCase, TrainingSplit

INVERSE_PENALTIES = (3.0, 30.0, 300.0)
"""What a modality's penalty is chosen from: the weight of the samples' summed loss against half the squares of the map,
scikit-learn's ``C``."""
FIRST = 30.0
SWEEPS = 2
"""How often each modality's penalty is chosen, given the others'."""
ITERATIONS = 100


def fit_glance(
    training: tuple[LiveSource, TrainingSplit, PositionsByCase],
    validation: tuple[LiveSource, TrainingSplit, PositionsByCase],
    recipe: Recipe,
    positive_weight: Tensor | None = None,
) -> None:
    """Fit a probe, and put it into the glance of the classifier's backbone and into its head.

    Args:
        training: features of the training split, the split, and which of its samples count, by case.
        validation: as ``training``, of the validation split.
        recipe: the loss.
        positive_weight: that of :func:`mmrobust.training.objective.loss`.
    """
    classifier = training[0].classifier
    glance = classifier.backbone.glance
    assert glance is not None
    probe = _Probe(classifier, glance, *_features(glance, *training), recipe, positive_weight)
    seen, targets = _features(glance, *validation)
    losses: dict[tuple[float, ...], float] = {}
    best = (FIRST,) * len(glance.modalities)
    for index in [*range(len(best))] * SWEEPS:
        for each in INVERSE_PENALTIES:
            candidate = (*best[:index], each, *best[index + 1 :])
            if candidate not in losses:
                probe.fit(candidate)
                losses[candidate] = probe.loss(seen, targets)
        best = min(losses, key=losses.__getitem__)
    probe.fit(best)
    with torch.no_grad():
        biases = probe.biases.detach()
        for modality, weight, mean_F in zip(glance.modalities, probe.maps, probe.means(), strict=True):
            glance.set(modality, weight, mean_F)
            biases = biases + mean_F @ weight
        classifier.head.start_at_glance(len(glance.modalities), UNIT, biases)


class _Probe:
    """A linear model on the features of every modality: logits = Σ features · map + biases."""

    def __init__(
        self,
        classifier: Classifier,
        glance: Glance,
        seen: list[Tensor],
        targets: Tensor,
        recipe: Recipe,
        positive_weight: Tensor | None,
    ) -> None:
        self._seen, self._targets, self._kind, self._weight = seen, targets, recipe.loss, positive_weight
        self._classifier = classifier
        self.maps = [targets.new_zeros(each.shape[1], glance.outputs, requires_grad=True) for each in seen]
        start = log_odds(targets) if classifier.task == "multi-label" else targets.new_zeros(glance.outputs)
        self.biases = start.requires_grad_()

    def fit(self, inverse_penalties: tuple[float, ...]) -> None:
        """Fit it with a penalty for each modality, from where the last fit ended."""
        variables = [*self.maps, self.biases]
        optimizer = torch.optim.LBFGS(
            variables, max_iter=ITERATIONS, tolerance_change=1e-7, line_search_fn="strong_wolfe"
        )

        def objective() -> Tensor:
            optimizer.zero_grad()
            penalties = [w.square().sum() / (2 * c) for w, c in zip(self.maps, inverse_penalties, strict=True)]
            value = self._total(self._seen, self._targets) + torch.stack(penalties).sum() / len(self._targets)
            value.backward()  # type: ignore[no-untyped-call]  # torch's stub
            return value

        with torch.enable_grad():
            optimizer.step(objective)  # type: ignore[no-untyped-call]  # torch's stub

    def means(self) -> list[Tensor]:
        """The mean [features] of each modality's features, over the samples that have it."""
        there = [each.coalesce().indices()[0] if each.is_sparse else each.any(1).nonzero()[:, 0] for each in self._seen]
        return [
            each.sum(0).to_dense() / max(1, len(torch.unique(rows)))
            for each, rows in zip(self._seen, there, strict=True)
        ]

    @torch.no_grad()
    def loss(self, seen: list[Tensor], targets: Tensor) -> float:
        """The mean loss over samples with these features."""
        return float(self._total(seen, targets))

    def _total(self, seen: list[Tensor], targets: Tensor) -> Tensor:
        classifier = self._classifier
        logits = sum((each @ weight for each, weight in zip(seen, self.maps, strict=True)), start=self.biases)
        numbers = classifier.head.in_unit(logits)
        return loss(numbers, targets, classifier.task, 0.0, self._kind, self._weight, classifier.scale) / len(targets)


@torch.no_grad()
def _features(
    glance: Glance, source: LiveSource, split: TrainingSplit, chosen: PositionsByCase
) -> tuple[list[Tensor], Tensor]:
    """The simple features [N, features] of each modality of the chosen samples, and what they are labelled [N, C]."""
    backbone = source.classifier.backbone
    parts: Mapping[str, list[Tensor]] = {modality: [] for modality in glance.modalities}
    order: list[Positions] = []
    stretches = [
        (name, positions[start : start + STRETCH])
        for name, positions in chosen.items()
        for start in range(0, len(positions), STRETCH)
    ]
    for name, positions in source.encoded.prefetch(stretches, lambda stretch: [stretch]):
        inputs = source.inputs(positions, Case.parse(name, source.classifier.modalities))
        for modality, found in parts.items():
            seen_BF = glance.sight(modality)(*backbone.sight_inputs(modality, inputs))
            found.append(seen_BF.to_sparse() if glance.sight(modality).sparse else seen_BF)
        order.append(positions)
    return [torch.cat(found) for found in parts.values()], split.targets[np.concatenate(order)].to(source.device)
