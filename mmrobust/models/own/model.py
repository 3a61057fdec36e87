"""``mmrobust.Model``: what a user says of a model of their own. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mmrobust.cases import Case
from mmrobust.errors import UsageError, unknown_name
from mmrobust.scoring.scales import LOGITS, SCALES
from mmrobust.storage.fingerprints import fingerprint_settings, new_digest
from mmrobust.storage.tasks import REGRESSION, TASKS

if TYPE_CHECKING:
    from transformers import Pipeline, PreTrainedModel

Sample = dict[str, Any]
"""Modality → ``PIL.Image`` (RGB) / ``str`` / (waveform float32 [n], rate in Hz). The fill or ``None`` where missing."""
PredictFunction = Callable[[list[Sample], str | None], Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class Model:
    """A model of the user's own: a function from samples to scores, and what an evaluation must know of it.

    >>> def predict(samples, case):
    ...     return [[0.0, 1.0] if sample["text"] else [1.0, 0.0] for sample in samples]
    >>> model = Model(
    ...     name="has-text", version="1", modalities=("image", "text"), classes=("no", "yes"), task="single-label",
    ...     predict=predict,
    ... )

    Raises:
        UsageError: a field has a value that does not exist or fit; the message names the model and the field.
    """

    name: str
    """The name in tables and reports."""
    version: str
    """Identifies the predictions, together with the other fields: those of another version are made anew. A hash of the
    weights is best."""
    modalities: Sequence[str]
    """The modalities that it takes; a data set may have more. Under ``missing-both``, half of the affected samples lose
    the first, half the second: in the data set's order, they are those of other models."""
    classes: Sequence[str]
    """The names of its classes, in the order of the scores. They are matched with the data set's by name. In a
    regression task, the name of the number alone, as ``dataset.json`` has it."""
    task: str
    """``single-label``, ``multi-label``, ``binary`` or ``regression``."""
    predict: PredictFunction = field(repr=False)
    """``predict(samples, case)`` returns scores [n, classes]: a NumPy array, a tensor or a list. In a regression task
    they are numbers, [n] or [n, 1], in the unit of the labels.

    ``samples`` are n dicts modality → ``PIL.Image`` (RGB) / ``str`` / (waveform float32 [n], rate in Hz) / features
    float32 [D] or [T, D], by its kind, which it may change; a missing modality is ``None``, or the fill. All samples
    are in one case. ``case`` is the name of the case if the model is to be told, and ``None`` otherwise."""
    knows_case: bool = False
    """Whether it uses ``case``. Then situation and concat prompting differ: it is told the case (``missing-text``;
    ``noisy-image``, whatever the corruption) under situation, and gets ``None`` under concat. Otherwise it always gets
    ``None``, and is asked once for both."""
    scale: str = LOGITS
    """What the scores are: ``logits``, or ``probabilities`` in [0, 1] (those of a sample sum to 1, unless the task is
    multi-label)."""
    fill: Mapping[str, Any] = field(default_factory=dict)
    """Modality → what the function gets where it is missing, instead of ``None``: a picture, text, recording or array,
    the same for every sample."""
    device: str = "cpu"
    """Where it runs: recorded, and with Ray a worker on ``cuda`` is given a GPU."""
    dtype: str = "float32"
    """The number format that it computes in: recorded."""

    def __post_init__(self) -> None:
        for what in ("name", "version"):
            value = getattr(self, what)
            if not (isinstance(value, str) and value.strip() and value.isprintable()):
                raise UsageError(f"a model needs a {what}: a text of one line, not {value!r}")
        for what in ("modalities", "classes"):
            value = getattr(self, what)
            names = () if isinstance(value, str) else tuple(value)
            if not names or not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
                raise UsageError(f"model {self.name}: {what} must be different names in a list, not {value!r}")
            object.__setattr__(self, what, names)
        Case.complete(self.modalities)  # raises where a modality is unknown
        for what, known in (("task", TASKS), ("scale", SCALES)):
            if getattr(self, what) not in known:
                raise unknown_name(f"{what} of model {self.name}:", getattr(self, what), known)
        if self.task == REGRESSION:
            if len(self.classes) != 1 or self.scale != LOGITS:
                wrong = f"scale='{self.scale}'" if len(self.classes) == 1 else f"{len(self.classes)} classes"
                raise UsageError(
                    f"model {self.name}: a {REGRESSION} task has numbers, not {wrong}: name the number, as in "
                    "classes=('price',), and leave out the scale"
                )
        elif len(self.classes) < 2 or (self.task == "binary" and len(self.classes) != 2):
            needed = "two classes" if self.task == "binary" else "two or more classes"
            raise UsageError(f"model {self.name}: a {self.task} task has {needed}, not {len(self.classes)}")
        if not callable(self.predict):
            raise UsageError(f"model {self.name}: predict must be a function of (samples, case), not {self.predict!r}")
        for modality, value in self.fill.items():
            if modality not in self.modalities:
                raise unknown_name(f"modality in the fill of model {self.name}:", modality, self.modalities)
            if value is not None:
                _digest(value, f"model {self.name}: the fill of {modality}")

    @property
    def fingerprint(self) -> str:
        """Identifies its predictions: a hash of every field but the function, the device and the format."""
        return fingerprint_settings(
            {
                "own": [self.name, self.version],
                "modalities": list(self.modalities),
                "classes": list(self.classes),
                "task": self.task,
                "knows_case": self.knows_case,
                "scale": self.scale,
                "fill": self.fill_digests,
            }
        )

    @property
    def fill_digests(self) -> dict[str, str]:
        """Modality → a text or hash that identifies its fill."""
        return {name: _digest(value, name) for name, value in sorted(self.fill.items()) if value is not None}

    @classmethod
    def from_pipeline(cls, pipeline: Pipeline, **fields: Any) -> Model:
        """A model from a ``transformers`` pipeline.

        Args:
            pipeline: for the classification, zero-shot or not, of images, texts or audio.
            **fields: see :func:`mmrobust.models.own.wrapping.pipeline_fields`; all have defaults, but a zero-shot
                pipeline needs ``classes``.
        """
        from mmrobust.models.own.wrapping import pipeline_fields

        return cls(**pipeline_fields(pipeline, **fields))

    @classmethod
    def from_transformers(cls, processor: Any, model: PreTrainedModel, **fields: Any) -> Model:
        """A model from a processor and a classifier of ``transformers``.

        Args:
            processor: a processor for several modalities, a tokenizer, an image processor or a feature extractor.
            model: a classifier that returns ``logits``.
            **fields: see :func:`mmrobust.models.own.wrapping.transformers_fields`; all have defaults.
        """
        from mmrobust.models.own.wrapping import transformers_fields

        return cls(**transformers_fields(processor, model, **fields))


def _digest(value: Any, what: str) -> str:
    """A text that identifies a fill: itself, or a hash of a picture, recording or array.

    Raises:
        UsageError: it is something else.
    """
    import numpy as np
    from PIL import Image

    if isinstance(value, str):
        return value
    digest = new_digest()
    recording = isinstance(value, tuple) and len(value) == 2 and np.ndim(value[1]) == 0
    for part in value if recording else (value,):
        array = np.asarray(part)
        if array.dtype.kind not in "biuf":
            raise UsageError(f"{what} must be a picture, a text, (waveform, rate) or an array, not {value!r}")
        kind = part.mode if isinstance(part, Image.Image) else array.dtype.str
        digest.update(f"{kind}/{array.shape}/".encode() + array.tobytes())
    return digest.hexdigest()
