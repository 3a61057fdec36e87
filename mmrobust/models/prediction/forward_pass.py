"""The steps of a forward pass, and for each what determines its result besides the sample."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass

from mmrobust.cases import Case
from mmrobust.data.encoded_split import input_key
from mmrobust.models.classifier import Classifier
from mmrobust.scoring.truth import Key


@dataclass(frozen=True)
class InputKey:
    """What determines the input of one modality, besides the sample."""

    modality: str
    state: Hashable
    """The state of its input: :func:`input_key`."""


@dataclass(frozen=True)
class EncodingKey:
    """What determines the encoding of one modality, besides the sample."""

    input: InputKey
    prompts: Hashable
    """The prompts of its stream: :meth:`Method.prompts_key`."""
    is_fill: bool
    """Whether the input is the fill, so that the result is the same for all samples."""


@dataclass(frozen=True)
class ForwardPass:
    """The steps of a forward pass in one case under one prompting."""

    case: Case
    told: tuple[str, ...]
    """The cases that the model is told."""
    encodings: Mapping[str, EncodingKey]
    """Modality → key of its encoding, for the modalities that are run."""
    features: Hashable
    """Key of the features that the head reads."""

    @property
    def joined(self) -> Hashable:
        """Key of what the joint stream starts from: every encoding."""
        return tuple(self.encodings.values())


def forward_pass(classifier: Classifier, key: Key) -> ForwardPass:
    """The steps of the predictions under ``key``, a pair (case, prompting)."""
    case, told = Case.parse(key[0], classifier.modalities), classifier.told(*key)
    method, backbone = classifier.method, classifier.backbone
    encodings = {}
    for modality in backbone.modalities_to_run(classifier.known_missing(told)):
        prompts = method.prompts_key(modality, told) if modality in backbone.streams else ()
        of = InputKey(modality, input_key(modality, case))
        encodings[modality] = EncodingKey(of, prompts, case.is_missing(modality))
    prompts = tuple(method.prompts_key(stream, told) for stream in method.injections)
    return ForwardPass(case, told, encodings, (tuple(encodings.values()), prompts))


def unchanged_layers(classifier: Classifier) -> dict[str, int]:
    """Stream → how many of its first layers are the same under all prompts, for the streams in which some are."""
    method, backbone = classifier.method, classifier.backbone
    streams = [*backbone.modalities, *([backbone.joint_stream] if backbone.joint_stream else [])]
    return {
        stream: first for stream in streams if stream in backbone.streams and (first := method.first_changed(stream))
    }
