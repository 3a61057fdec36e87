"""The samples that a missing or degraded input harms most: predicted right when complete, wrong without the input.

Read from the predictions beside a results table and from the data set; needs no model and no torch.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmrobust.cases import PROMPTINGS
from mmrobust.data.dataset import Dataset, Sample
from mmrobust.data.decoding import decode_image
from mmrobust.errors import DataError, NotComparableError, UsageError
from mmrobust.scoring import Floats
from mmrobust.scoring.predictions import Predictions
from mmrobust.scoring.store import predictions_behind
from mmrobust.storage.results import Results
from mmrobust.storage.tasks import REGRESSION

MOST = 12
"""How many samples of each case are shown."""
THUMBNAIL = 128
"""Pixels of a thumbnail's longer side."""
_LONGEST_TEXT = 180


@dataclass(frozen=True)
class Failure:
    """What one checkpoint predicts for a sample without the input."""

    checkpoint: str
    predicted: str
    """The predicted class, or the predicted classes joined by commas."""
    probability: float
    """Of that class; NaN if the task is multi-label."""


@dataclass(frozen=True)
class WorstSample:
    """A sample that some checkpoints predict right when it is complete and wrong in a case."""

    id: str
    truth: str
    text: str | None
    thumbnail: str | None
    """As a data URI."""
    failures: tuple[Failure, ...]
    harm: float
    """Growth of the loss (cross entropy, nats), mean over these checkpoints."""


@dataclass(frozen=True)
class WorstSamples:
    """The worst samples of a split, by case."""

    checkpoints: int
    """Number of checkpoints whose predictions were read."""
    prompting: str
    cases: Mapping[str, tuple[WorstSample, ...]]
    """Case → its worst samples: first those that most checkpoints lose, among these the greatest harm first."""
    lost: Mapping[str, int]
    """Case → how many samples any checkpoint loses."""


_Loss = tuple[float, Failure]
"""Growth of the loss of one checkpoint on a sample, in nats, and what it predicts."""


def find_worst_samples(results: Mapping[Path, Results], data: Path) -> WorstSamples:
    """Find the worst samples of the data set in the folder ``data``.

    ``results`` are those of each path, a folder with ``predictions/`` or a file beside it; other data sets are ignored.

    Raises:
        UsageError: the data set is of numbers, not classes.
        DataError: no data set, or no predictions beside the results.
        NotComparableError: none of the results is of this data set.
    """
    dataset = Dataset(data)
    if dataset.info.task == REGRESSION:
        raise UsageError(f"--data {data}: samples are lost where a class is, and a {REGRESSION} task has none")
    about = {path: of.provenance.get("dataset") or {} for path, of in results.items()}
    same_data = [path for path, its in about.items() if its.get("fingerprint") == dataset.info.fingerprint]
    if not same_data:
        raise NotComparableError(f"--data {data}: the results are of another data set (their fingerprints differ)")
    first = same_data[0]
    split = dataset.split(str(about[first]["split"]))
    predictions = {
        name: predictions_behind(path, results[path], name)
        for path in same_data
        if about[path]["split"] == split.name
        for name in dict.fromkeys(results[path].frame["checkpoint"])
    }
    answered = {key for stored in predictions.values() for key in stored.keys}
    prompting = next((name for name in PROMPTINGS if ("complete", name) in answered), None)
    if prompting is None:
        raise DataError(f"{first}: no predictions of complete samples there; run mmrobust eval with the missing rate 0")

    positions = {sample: position for position, sample in enumerate(split.ids)}
    lost = _lost(predictions, prompting, positions, dataset.info.classes)
    worst = {}
    for case, by_position in sorted(lost.items()):
        order = sorted(by_position, key=lambda at: (-len(by_position[at]), -_harm(by_position[at]), at))[:MOST]
        samples = zip(order, split.read(order), strict=True)
        worst[case] = tuple(_describe(sample, by_position[at], dataset.info.classes) for at, sample in samples)
    return WorstSamples(len(predictions), prompting, worst, {case: len(samples) for case, samples in lost.items()})


def _lost(
    predictions: Mapping[str, Predictions], prompting: str, positions: Mapping[str, int], classes: Sequence[str]
) -> dict[str, dict[int, list[_Loss]]]:
    """Case → position in the split of each lost sample → the losses of the checkpoints that lose it."""
    lost: dict[str, dict[int, list[_Loss]]] = {}
    for checkpoint, stored in predictions.items():
        if ("complete", prompting) not in stored.keys:
            continue
        if absent := [sample for sample in stored.truth.ids if sample not in positions]:
            raise DataError(
                f"the predictions of '{stored.name}' are of sample '{absent[0]}', which is not in the data set"
            )
        at = [positions[sample] for sample in stored.truth.ids]  # maybe only some samples of the split were evaluated
        targets, complete = stored.truth.targets, stored.get("complete", prompting)
        before, right = _losses(stored, complete), (stored.predicted(complete) == targets).all(axis=1)
        for case in (case for case, of in stored.keys if case != "complete" and of == prompting):
            logits = stored.get(case, prompting)
            after, predicted = _losses(stored, logits), stored.predicted(logits)
            known = np.isfinite(before) & np.isfinite(after)
            for row in np.flatnonzero(known & right & ~(predicted == targets).all(axis=1)):
                names = _names(classes, np.flatnonzero(predicted[row]).tolist())
                z, several = logits[row], stored.truth.task == "multi-label"
                probability = math.nan if several else float(np.exp(z.max() - np.logaddexp.reduce(z)))
                failure = Failure(checkpoint, names, probability)
                losses = lost.setdefault(case, {}).setdefault(at[row], [])
                losses.append((float(after[row] - before[row]), failure))
    return lost


def _losses(stored: Predictions, logits: Floats) -> Floats:
    """The loss of every sample [N]; NaN if it was not predicted."""
    z, targets = logits.astype(np.float64), stored.truth.targets
    if stored.truth.task == "multi-label":
        return np.asarray(np.logaddexp(0.0, np.where(targets, -z, z)).sum(axis=1))
    with np.errstate(invalid="ignore"):  # rows of NaN are samples that were not predicted
        return np.asarray(np.logaddexp.reduce(z, axis=1) - (z * targets).sum(axis=1))


def _harm(losses: Sequence[_Loss]) -> float:
    return sum(harm for harm, _ in losses) / len(losses)


def _names(classes: Sequence[str], labels: Iterable[int]) -> str:
    return ", ".join(classes[label] for label in labels) or "none"


def _describe(sample: Sample, losses: Sequence[_Loss], classes: Sequence[str]) -> WorstSample:
    text, image = sample.first("text"), sample.first("image")
    assert text is None or isinstance(text, str)
    return WorstSample(
        id=sample.id,
        truth=_names(classes, sample.label),
        text=text if text is None or len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}…",
        thumbnail=_thumbnail(image) if isinstance(image, bytes) else None,
        failures=tuple(failure for _, failure in sorted(losses, key=lambda loss: -loss[0])),
        harm=_harm(losses),
    )


def _thumbnail(image: bytes) -> str | None:
    """``image`` as a model sees it, scaled down, as a data URI of WebP; ``None`` if it cannot be decoded."""
    try:
        seen = decode_image(image, "sample")
    except DataError:
        return None
    seen.thumbnail((THUMBNAIL, THUMBNAIL))
    encoded = io.BytesIO()
    seen.save(encoded, "WEBP", quality=75)
    return f"data:image/webp;base64,{base64.b64encode(encoded.getvalue()).decode()}"
