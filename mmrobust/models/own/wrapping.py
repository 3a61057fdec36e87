"""Models of ``transformers`` as models of one's own: a pipeline, or a processor and a classifier."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from transformers import Pipeline, PreTrainedModel

from mmrobust.data.decoded_split import Media
from mmrobust.data.resampling import resample
from mmrobust.errors import UsageError, unknown_name
from mmrobust.scoring.scales import LOGITS, PROBABILITIES
from mmrobust.storage.fingerprints import fingerprint_settings, fingerprint_tensors

PIPELINES = {
    "text-classification": "text",
    "image-classification": "image",
    "audio-classification": "audio",
    "zero-shot-classification": "text",
    "zero-shot-image-classification": "image",
    "zero-shot-audio-classification": "audio",
}
"""Task of a pipeline → the modality that it takes."""
ZERO_SHOT = "zero-shot-"
FILL_SIDE = 224
FILL_RATE = 16_000
PROBE_TEXT = "It's a TEST: naïve façades, 3.14 € — привет, 東京 🙂"
"""A text that tokenizers split differently."""


def pipeline_fields(
    pipeline: Pipeline,
    *,
    modalities: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    task: str | None = None,
    name: str | None = None,
    version: str | None = None,
    fill: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    **fields: Any,
) -> dict[str, Any]:
    """The fields of :class:`mmrobust.Model` for a pipeline of ``transformers``, of a task in :data:`PIPELINES`.

    Args:
        pipeline: the pipeline.
        modalities: those of the model: the pipeline's own, and any others, which it ignores. Default: its own.
        classes: the candidate labels of a zero-shot pipeline; for others the names of the classes, in the order of the
            model's ``id2label``, where its labels are not the data set's names.
        task: ``single-label``, ``multi-label`` or ``binary``. Default: what the model's config says, or single-label.
        name: the name in tables. Default: that of the weights.
        version: Default: a hash of the weights, the processors' output for a probe, and the settings.
        fill: see :class:`mmrobust.Model`. Default: :func:`usual_fills`.
        settings: further arguments of every call, such as ``hypothesis_template``.
        **fields: other fields.

    Raises:
        UsageError: the pipeline is for another task, or a field does not fit.
    """
    if pipeline.task not in PIPELINES:
        raise unknown_name("task of a pipeline", pipeline.task, PIPELINES)
    modality, zero_shot = PIPELINES[pipeline.task], pipeline.task.startswith(ZERO_SHOT)
    labels = list(classes or ()) if zero_shot else _labels(pipeline.model)
    if not labels:
        raise UsageError(f"a {pipeline.task} pipeline needs the names of the classes: classes=[…]")
    task = task or _task(pipeline.model)
    call = _call_settings(pipeline.task, task, labels) | dict(settings or {})
    chosen = tuple(modalities or (modality,))
    if modality not in chosen:
        raise UsageError(f"a {pipeline.task} pipeline takes {modality}, which is not among {', '.join(chosen)}")

    def predict(samples: list[Media], case: str | None) -> npt.NDArray[np.float64]:
        inputs = [_input(sample[modality], modality, pipeline) for sample in samples]
        return np.stack([_scores(answer, labels) for answer in pipeline(inputs, **call)])

    parts = [getattr(pipeline, part, None) for part in ("tokenizer", "image_processor", "feature_extractor")]
    kept = {key: getattr(pipeline, f"_{key}_params", {}) for key in ("preprocess", "forward", "postprocess")}
    return dict(
        name=name or _name(pipeline.model),
        version=version
        or _version(pipeline.model, [part for part in parts if part is not None], {**kept, "call": call}),
        modalities=chosen,
        classes=tuple(classes or labels),
        task=task,
        predict=predict,
        fill={**usual_fills((modality,)), **(fill or {})},
        **{"scale": PROBABILITIES, "device": str(pipeline.device), **fields},
    )


def transformers_fields(
    processor: Any,
    model: PreTrainedModel,
    *,
    modalities: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    task: str | None = None,
    name: str | None = None,
    version: str | None = None,
    fill: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    **fields: Any,
) -> dict[str, Any]:
    """The fields of :class:`mmrobust.Model` for a classifier of ``transformers`` and its processor.

    Args:
        processor: a processor for several modalities, a tokenizer, an image processor or a feature extractor.
        model: the classifier, which returns ``logits`` [n, classes]. It is put into evaluation mode, and stays on its
            device.
        modalities: those of the model: the processor's own, and any others, which it ignores. Default: its own.
        classes: the names of the classes, in the order of the model's ``id2label``, where its labels are not the data
            set's names.
        task: ``single-label``, ``multi-label`` or ``binary``. Default: what the model's config says, or single-label.
        name: the name in tables. Default: that of the weights.
        version: Default: a hash of the weights, the processor's output for a probe, and the settings.
        fill: see :class:`mmrobust.Model`. Default: :func:`usual_fills`.
        settings: further arguments of the processor, such as ``max_length``.
        **fields: other fields.

    Raises:
        UsageError: the processor takes no modality that is known here, or a field does not fit.
    """
    taken = _taken(processor)
    if not taken:
        raise UsageError(f"a {type(processor).__name__} is no processor of images, texts or audio")
    chosen = tuple(modalities or taken)
    used = tuple(modality for modality in taken if modality in chosen)
    model.eval()

    def predict(samples: list[Media], case: str | None) -> torch.Tensor:
        inputs = _processed(processor, samples, used, settings or {}).to(model.device)
        with torch.inference_mode():
            logits: torch.Tensor = model(**inputs).logits
        return logits

    return dict(
        name=name or _name(model),
        version=version or _version(model, [processor], dict(settings or {})),
        modalities=chosen,
        classes=tuple(classes or _labels(model)),
        task=task or _task(model),
        predict=predict,
        fill={**usual_fills(used), **(fill or {})},
        **{"scale": LOGITS, "device": str(model.device), **fields},
    )


def usual_fills(modalities: Sequence[str]) -> dict[str, Any]:
    """What stands in for a missing modality, as processors take no ``None``.

    A white picture of 224 × 224 pixels, an empty text, one second of silence.
    """
    fills = {
        "image": Image.new("RGB", (FILL_SIDE, FILL_SIDE), "white"),
        "text": "",
        "audio": (np.zeros(FILL_RATE, dtype=np.float32), FILL_RATE),
    }
    return {modality: fill for modality, fill in fills.items() if modality in modalities}


def _call_settings(kind: str, task: str, labels: list[str]) -> dict[str, Any]:
    """The arguments with which a pipeline gives the probability of every class."""
    if kind == "zero-shot-classification":
        return {"candidate_labels": labels, "multi_label": task == "multi-label"}
    if kind.startswith(ZERO_SHOT):
        return {"candidate_labels": labels}
    further = {"truncation": True} if kind == "text-classification" else {}
    function = "sigmoid" if task == "multi-label" else "softmax"
    return {"top_k": len(labels), "function_to_apply": function, **further}


def _input(medium: Any, modality: str, pipeline: Pipeline) -> Any:
    """A medium as a pipeline takes it."""
    if modality == "audio":
        waveform, rate = medium
        return resample(waveform, rate, pipeline.feature_extractor.sampling_rate)
    # The zero-shot pipeline for texts refuses an empty one.
    return medium or " " if modality == "text" and pipeline.task.startswith(ZERO_SHOT) else medium


def _scores(answer: Any, labels: Sequence[str]) -> npt.NDArray[np.float64]:
    """The scores of the ``labels`` [C] in a pipeline's answer for one sample, which is sorted by score."""
    if isinstance(answer, Mapping):  # zero-shot-classification
        found = dict(zip(answer["labels"], answer["scores"], strict=True))
    else:
        found = {one["label"]: one["score"] for one in answer}
    return np.asarray([found[label] for label in labels], dtype=np.float64)


def _taken(processor: Any) -> tuple[str, ...]:
    """The modalities that a processor takes."""
    parts = {"image": "image_processor", "text": "tokenizer", "audio": "feature_extractor"}
    combined = tuple(modality for modality, part in parts.items() if getattr(processor, part, None) is not None)
    if combined:
        return combined
    methods = {"image": "preprocess", "text": "tokenize", "audio": "pad"}
    single = [modality for modality, method in methods.items() if callable(getattr(processor, method, None))]
    return tuple(single[:1])


def _processed(processor: Any, samples: Sequence[Media], modalities: Sequence[str], settings: Mapping[str, Any]) -> Any:
    """A batch of the model's inputs."""
    given: dict[str, Any] = {"return_tensors": "pt"}
    if "image" in modalities:
        given["images"] = [sample["image"] for sample in samples]
    if "text" in modalities:
        given |= {"text": [sample["text"] for sample in samples], "padding": True, "truncation": True}
    if "audio" in modalities:
        rate = getattr(processor, "feature_extractor", processor).sampling_rate
        waveforms = [resample(waveform, own, rate) for waveform, own in (sample["audio"] for sample in samples)]
        given |= {"audio" if len(_taken(processor)) > 1 else "raw_speech": waveforms, "sampling_rate": rate}
        given["padding"] = True
    return processor(**{**given, **settings})


def _labels(model: PreTrainedModel) -> list[str]:
    return [str(label) for _, label in sorted(model.config.id2label.items())]


def _task(model: PreTrainedModel) -> str:
    return "multi-label" if model.config.problem_type == "multi_label_classification" else "single-label"


def _name(model: PreTrainedModel) -> str:
    return str(model.config.name_or_path).rstrip("/").rpartition("/")[2] or type(model).__name__


def _version(model: PreTrainedModel, processors: Sequence[Any], settings: Mapping[str, Any]) -> str:
    """A hash of whatever decides the scores: weights, what the processors make of a probe, settings."""
    return fingerprint_settings(
        {
            "class": type(model).__name__,
            "weights": fingerprint_tensors(model.state_dict()),
            "inputs": [_behaviour(processor) for processor in processors],
            "settings": json.dumps(settings, sort_keys=True, default=str),
        }
    )


def _behaviour(processor: Any) -> str:
    """A hash of what a processor makes of one picture, text and recording."""
    ramp = np.arange(64 * 48 * 3, dtype=np.int64).reshape(48, 64, 3) % 251
    recording = np.sin(np.arange(FILL_RATE, dtype=np.float64) / 40).astype(np.float32)
    probe = {"image": Image.fromarray(ramp.astype(np.uint8)), "text": PROBE_TEXT, "audio": (recording, FILL_RATE)}
    inputs = _processed(processor, [probe], _taken(processor), {})
    return fingerprint_tensors({key: value for key, value in inputs.items() if isinstance(value, torch.Tensor)})
