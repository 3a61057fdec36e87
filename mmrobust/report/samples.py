"""The samples that a missing or degraded input does the most harm to: right when complete, wrong without.

Read from the predictions beside a results table and from the data set itself; no model, no torch.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mmrobust.cases import PROMPTINGS
from mmrobust.data.dataset import Dataset, Sample
from mmrobust.data.decoding import decode_image
from mmrobust.errors import DataError, NotComparableError
from mmrobust.scoring.metrics import target_matrix
from mmrobust.scoring.predictions import Predictions
from mmrobust.scoring.store import predictions_behind
from mmrobust.storage.results import Results

MOST = 12
"""Samples that are shown of a case."""
THUMBNAIL = 128
"""Pixels of a thumbnail's longer side."""
_LONGEST_TEXT = 180


@dataclass(frozen=True)
class Failure:
    """What one checkpoint makes of a sample."""

    checkpoint: str
    predicted: str
    """The class, or the classes joined by commas, that it gives without the input."""
    probability: float
    """Of that class; NaN where the task is multi-label."""


@dataclass(frozen=True)
class WorstSample:
    """A sample that some checkpoints get right when it is complete and wrong in a case."""

    id: str
    truth: str
    text: str | None
    thumbnail: str | None
    """As a data URI."""
    failures: tuple[Failure, ...]
    harm: float
    """How much the loss (cross entropy, nats) grows, mean over these checkpoints."""


@dataclass(frozen=True)
class Worst:
    """The worst samples of a split, by case."""

    dataset: str
    split: str
    checkpoints: int
    """How many were asked."""
    prompting: str
    cases: Mapping[str, tuple[WorstSample, ...]]
    """Case → its worst samples: those that most checkpoints lose first, then those with the greatest harm."""
    lost: Mapping[str, int]
    """Case → how many samples any checkpoint loses."""


class _Loss(NamedTuple):
    """What a case costs one checkpoint on one sample."""

    checkpoint: str
    harm: float
    """By how much the loss grows, in nats."""
    probability: float
    """Of the predicted class; NaN where the task is multi-label."""
    predicted: npt.NDArray[np.bool_]
    """In the case [C]."""


def find_worst(paths: Sequence[Path], results: Sequence[Results], data: Path) -> Worst:
    """The worst samples of the results that are of the data set ``data``.

    Args:
        paths: where the ``results`` come from, one path for each: folders with ``predictions/``, or files in such.
        results: as read from there.
        data: the data set's folder.

    Raises:
        DataError: no data set, or no predictions beside the results.
        NotComparableError: none of the results is of this data set.
    """
    dataset = Dataset(data)
    fitting = [
        (path, result)
        for path, result in zip(paths, results, strict=True)
        if (result.provenance.get("dataset") or {}).get("fingerprint") == dataset.info.fingerprint
    ]
    if not fitting:
        raise NotComparableError(f"--data {data}: the results are of another data set (their fingerprints differ)")
    split = dataset.split(str(fitting[0][1].provenance["dataset"]["split"]))
    classes = dataset.info.classes
    predictions = {
        name: predictions_behind(folder, of, name)
        for folder, of in fitting
        if of.provenance["dataset"]["split"] == split.name
        for name in dict.fromkeys(of.frame["checkpoint"])
    }
    told = {told for stored in predictions.values() for case, told in stored.keys if case == "complete"}
    prompting = next((name for name in PROMPTINGS if name in told), None)
    if prompting is None:
        raise DataError(f"{fitting[0][0]}: no predictions of complete samples there; run mmrobust eval with the rate 0")

    lost = _lost(predictions, prompting, {sample: place for place, sample in enumerate(split.ids)})
    chosen = {}
    for case, by_sample in sorted(lost.items()):
        order = sorted(by_sample, key=lambda place: (-len(by_sample[place]), -_harm(by_sample[place]), place))[:MOST]
        chosen[case] = tuple(
            _describe(sample, by_sample[place], classes) for place, sample in zip(order, split.read(order), strict=True)
        )
    return Worst(
        dataset=dataset.info.name,
        split=split.name,
        checkpoints=len(predictions),
        prompting=prompting,
        cases=chosen,
        lost={case: len(by_sample) for case, by_sample in lost.items()},
    )


def _lost(
    predictions: Mapping[str, Predictions], prompting: str, position: Mapping[str, int]
) -> dict[str, dict[int, list[_Loss]]]:
    """Case → position of a sample in the split → who gets it right when complete, and wrong in the case."""
    lost: dict[str, dict[int, list[_Loss]]] = {}
    for checkpoint, stored in predictions.items():
        if ("complete", prompting) not in stored.keys:
            continue
        at = _positions(stored, position)
        targets = target_matrix(stored.truth.labels, stored.truth.classes)
        before, said = _judge(stored, stored.get("complete", prompting), targets)
        right = (said == targets).all(axis=1)
        for case in dict.fromkeys(case for case, told in stored.keys if case != "complete" and told == prompting):
            logits = stored.get(case, prompting)
            after, said = _judge(stored, logits, targets)
            known = np.isfinite(before) & np.isfinite(after)
            for row in np.flatnonzero(known & right & ~(said == targets).all(axis=1)):
                loss = _Loss(checkpoint, float(after[row] - before[row]), _share(stored, logits[row]), said[row])
                lost.setdefault(case, {}).setdefault(at[row], []).append(loss)
    return lost


def _positions(stored: Predictions, position: Mapping[str, int]) -> list[int]:
    """Where in the whole split the samples stand, of which only some may have been evaluated.

    Raises:
        DataError: they are of other samples.
    """
    if absent := [sample for sample in stored.truth.ids if sample not in position]:
        raise DataError(f"the predictions of '{stored.name}' are of sample '{absent[0]}', which the data set has not")
    return [position[sample] for sample in stored.truth.ids]


def _judge(
    stored: Predictions, logits: npt.NDArray[np.float32], targets: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """The loss of every sample [N], NaN where not predicted, and what is predicted [N, C], as the results count it."""
    z = logits.astype(np.float64)
    if stored.truth.task == "multi-label":
        return np.logaddexp(0.0, np.where(targets, -z, z)).sum(axis=1), stored.predicted(logits)
    with np.errstate(invalid="ignore"):  # NaN is meant
        loss = np.logaddexp.reduce(z, axis=1) - (z * targets).sum(axis=1)
    return loss, stored.predicted(logits)


def _share(stored: Predictions, logits: npt.NDArray[np.float32]) -> float:
    """The probability of the predicted class; NaN where the task is multi-label."""
    if stored.truth.task == "multi-label":
        return float("nan")
    return float(np.exp(logits.max() - np.logaddexp.reduce(logits)))


def _harm(losses: Sequence[_Loss]) -> float:
    return sum(loss.harm for loss in losses) / len(losses)


def _describe(sample: Sample, losses: Sequence[_Loss], classes: Sequence[str]) -> WorstSample:
    failures = []
    for loss in sorted(losses, key=lambda loss: -loss.harm):
        named = ", ".join(classes[int(i)] for i in np.flatnonzero(loss.predicted)) or "none"
        failures.append(Failure(loss.checkpoint, named, loss.probability))
    text = sample.text
    return WorstSample(
        id=sample.id,
        truth=", ".join(classes[label] for label in sample.label) or "none",
        text=text if text is None or len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}…",
        thumbnail=None if sample.image is None else _thumbnail(sample.image),
        failures=tuple(failures),
        harm=_harm(losses),
    )


def _thumbnail(image: bytes) -> str | None:
    """What a model sees of ``image``, small, as a data URI of WebP; ``None`` where it cannot be decoded."""
    try:
        seen = decode_image(image, "sample")
    except DataError:
        return None
    seen.thumbnail((THUMBNAIL, THUMBNAIL))
    encoded = io.BytesIO()
    seen.save(encoded, "WEBP", quality=75)
    return f"data:image/webp;base64,{base64.b64encode(encoded.getvalue()).decode()}"
