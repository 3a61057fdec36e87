"""The samples that a missing or degraded input does the most harm to: right when complete, wrong without.

Read from the predictions beside a results table and from the data set itself; no model, no torch.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from mmrobust.data.dataset import Dataset, Sample
from mmrobust.data.decoding import decode_image
from mmrobust.errors import DataError, NotComparableError
from mmrobust.results import PREDICTIONS_SCHEMA, PREDICTIONS_VERSION, Results, read_provenance
from mmrobust.scenarios import PROMPTINGS
from mmrobust.scoring.metrics import target_matrix

MOST = 12
"""Samples that are shown of a case."""
THUMBNAIL = 128
"""Pixels of a thumbnail's longer side."""
_LONGEST_TEXT = 180
_PREDICTIONS = "predictions"


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


Predictions = dict[tuple[str, str], npt.NDArray[np.float32]]
"""(case, prompting) → logits [N, C] of one checkpoint; NaN where a sample was not predicted."""


class _Loss(NamedTuple):
    """What a case costs one checkpoint on one sample."""

    checkpoint: str
    harm: float
    """By how much the loss grows, in nats."""
    logits: npt.NDArray[np.float32]
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
        (path if path.is_dir() else path.parent, result.provenance)
        for path, result in zip(paths, results, strict=True)
        if (result.provenance.get("dataset") or {}).get("fingerprint") == dataset.info.fingerprint
    ]
    if not fitting:
        raise NotComparableError(f"--data {data}: the results are of another data set (their fingerprints differ)")
    split = dataset.split(str(fitting[0][1]["dataset"]["split"]))
    classes, several = dataset.info.classes, dataset.info.task == "multi-label"
    position = {sample: place for place, sample in enumerate(split.ids)}
    predictions: dict[str, Predictions] = {}
    for folder, provenance in fitting:
        if provenance["dataset"]["split"] == split.name:
            predictions |= _predictions(folder, provenance, position, len(classes))
    told = {told for by_case in predictions.values() for case, told in by_case if case == "complete"}
    prompting = next((name for name in PROMPTINGS if name in told), None)
    if prompting is None:
        raise DataError(f"{fitting[0][0]}: no predictions of complete samples there; run mmrobust eval with the rate 0")

    lost = _lost(predictions, prompting, target_matrix(split.labels, len(classes)).astype(bool), several)
    chosen = {}
    for case, by_sample in sorted(lost.items()):
        order = sorted(by_sample, key=lambda place: (-len(by_sample[place]), -_harm(by_sample[place]), place))[:MOST]
        chosen[case] = tuple(
            _describe(sample, by_sample[place], classes, several)
            for place, sample in zip(order, split.read(order), strict=True)
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
    predictions: Mapping[str, Predictions], prompting: str, targets: npt.NDArray[np.bool_], several: bool
) -> dict[str, dict[int, list[_Loss]]]:
    """Case → position of a sample → who gets it right when complete, and wrong in the case."""
    lost: dict[str, dict[int, list[_Loss]]] = {}
    for checkpoint, by_case in predictions.items():
        if ("complete", prompting) not in by_case:
            continue
        before, right = _judge(by_case["complete", prompting], targets, several)
        for (case, told), logits in by_case.items():
            if case == "complete" or told != prompting:
                continue
            after, still = _judge(logits, targets, several)
            known = np.isfinite(before) & np.isfinite(after)
            for place in np.flatnonzero(known & right & ~still):
                loss = _Loss(checkpoint, float(after[place] - before[place]), logits[place])
                lost.setdefault(case, {}).setdefault(int(place), []).append(loss)
    return lost


def _predictions(
    folder: Path, provenance: Mapping[str, Any], position: Mapping[str, int], classes: int
) -> dict[str, Predictions]:
    """The predictions of every checkpoint of a results folder."""
    names = {
        about["fingerprint"]: name
        for name, about in (provenance.get("checkpoints") or {}).items()
        if about.get("fingerprint")
    }
    shards = sorted((folder / _PREDICTIONS).glob("*.parquet"))
    if not shards:
        raise DataError(f"{folder}: holds no {_PREDICTIONS}/; --data needs the folder that mmrobust eval wrote")
    found: dict[str, Predictions] = {}
    for shard in shards:
        try:
            about = read_provenance(pq.read_schema(shard), shard, "predictions", PREDICTIONS_VERSION)
            if about.get("checkpoint") not in names or about.get("dataset") != provenance["dataset"]["fingerprint"]:
                continue
            table = pq.read_table(shard, columns=PREDICTIONS_SCHEMA.names)
        except (pa.ArrowException, OSError) as cause:
            raise DataError(f"{shard}: cannot be read as predictions; run mmrobust eval again") from cause
        own = found.setdefault(names[about["checkpoint"]], {})
        places = np.asarray([position.get(sample, -1) for sample in table["id"].to_pylist()])
        logits = table["logits"].combine_chunks().flatten().to_numpy().reshape(len(places), -1)
        case, prompting = (table[name].combine_chunks().dictionary_encode() for name in ("case", "prompting"))
        if logits.shape[1] != classes or (places < 0).any():
            raise DataError(f"{shard}: its predictions are of other samples or classes than the data set has")
        codes = case.indices.to_numpy() * len(prompting.dictionary) + prompting.indices.to_numpy()
        for code in np.unique(codes):
            key = (
                case.dictionary[int(code) // len(prompting.dictionary)].as_py(),
                prompting.dictionary[int(code) % len(prompting.dictionary)].as_py(),
            )
            unknown = np.full((len(position), classes), np.nan, dtype=np.float32)
            rows = codes == code
            own.setdefault(key, unknown)[places[rows]] = logits[rows]
    return found


def _judge(
    logits: npt.NDArray[np.float32], targets: npt.NDArray[np.bool_], several: bool
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """The loss of every sample [N], NaN where not predicted, and whether it is right [N], in every class."""
    z = logits.astype(np.float64)
    if several:
        loss = np.logaddexp(0.0, np.where(targets, -z, z)).sum(axis=1)
        return loss, ((z >= 0) == targets).all(axis=1)
    with np.errstate(invalid="ignore"):  # NaN is meant
        loss = np.logaddexp.reduce(z, axis=1) - (z * targets).sum(axis=1)
    return loss, targets[np.arange(len(z)), np.nan_to_num(z, nan=-np.inf).argmax(axis=1)]


def _harm(losses: Sequence[_Loss]) -> float:
    return sum(loss.harm for loss in losses) / len(losses)


def _describe(sample: Sample, losses: Sequence[_Loss], classes: Sequence[str], several: bool) -> WorstSample:
    failures = []
    for checkpoint, _, logits in sorted(losses, key=lambda loss: -loss.harm):
        if several:
            named, share = np.flatnonzero(logits >= 0), float("nan")
        else:
            named, share = np.asarray([logits.argmax()]), float(np.exp(logits.max() - np.logaddexp.reduce(logits)))
        failures.append(Failure(checkpoint, ", ".join(classes[int(i)] for i in named) or "none", share))
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
