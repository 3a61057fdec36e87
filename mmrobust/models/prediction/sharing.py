"""What the predictions of one sample in several cases have in common, and need not be computed twice.

A sample's way through a classifier has three parts: each modality alone (a tower, a stream of its own layers, or no
more than an embedding), the layers where modalities meet, and the head. Each part of a prediction is named here by all
that decides it beside the sample. Two predictions with the same name for a part share it, exactly:

- a modality alone is decided by its own state in the case, and by the prompts of its own stream. So CLIP's image tower
  serves ``complete`` and ``missing-text`` where the method adds nothing that depends on the case, or under concat
  prompting, where it adds the same in all;
- where it is missing and its fill runs, nothing of the sample decides it: once is enough for the whole data set;
- a head that knows the case leaves the features below it as they are: a prototype head on a frozen backbone needs one
  forward pass for both promptings.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass

from mmrobust.cases import Case
from mmrobust.data.encoded_split import input_key
from mmrobust.models.classifier import Classifier
from mmrobust.scoring.truth import Key


@dataclass(frozen=True)
class Alone:
    """One modality before it meets another: what decides it, beside the sample."""

    modality: str
    input: Hashable
    """What its input is."""
    prompts: Hashable
    """What its stream's prompts are."""
    is_fill: bool
    """Whether the sample decides nothing of it."""


@dataclass(frozen=True)
class Parts:
    """The parts of the predictions in one case under one prompting."""

    case: Case
    told: tuple[str, ...]
    """The cases that the model is told."""
    alone: Mapping[str, Alone]
    """Of each modality that runs."""
    features: Hashable
    """What decides the features, beside the sample."""


def parts_of(classifier: Classifier, key: Key) -> Parts:
    """The parts of the predictions of ``classifier`` under ``key``.

    Raises:
        UsageError: as for :meth:`Classifier.told`.
    """
    case, told = Case.parse(key[0], classifier.modalities), classifier.told(*key)
    method, backbone = classifier.method, classifier.backbone
    alone = {}
    for modality in backbone.needed(classifier.known_missing(told)):
        prompts = method.prompts_key(modality, told) if modality in backbone.streams else ()
        alone[modality] = Alone(modality, input_key(modality, case), prompts, case.is_missing(modality))
    added = told if method.has_prompts else ()
    return Parts(case, told, alone, (tuple(alone.values()), added))
