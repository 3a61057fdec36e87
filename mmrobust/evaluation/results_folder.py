"""The results folder of an evaluation: locking it, and combining new results with those that it holds."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from mmrobust.data.selection import SelectedSamples
from mmrobust.degradations import Noise
from mmrobust.errors import Interrupted, UsageError
from mmrobust.evaluation.plan import WorkShare
from mmrobust.runtime.devices import device_errors
from mmrobust.scoring.dependence import merged_shares
from mmrobust.scoring.join import ScoringSettings
from mmrobust.storage.files import files_in, is_there, remove_partial, writing
from mmrobust.storage.locks import hold_part, hold_whole
from mmrobust.storage.partial import remove_abandoned
from mmrobust.storage.results import RESULTS_FILE, RESULTS_KEYS, Results, read_results
from mmrobust.storage.shards import PREDICTIONS_FOLDER


@contextmanager
def hold_folder(out: Path, device: str, share: WorkShare | None) -> Iterator[None]:
    """Lock ``out`` against other runs, or against runs of the same share of the work, while the block runs.

    If the block is stopped, the disk is full or the device fails, the error says that finished work is kept.

    Raises:
        UsageError: another run is using it.
        Interrupted: Ctrl-C.
        DataError: ``out`` cannot be written.
        DeviceError: the device has too little memory, or failed.
    """
    kept = f"predictions so far are kept in {out}; the same command continues"
    try:
        with (
            writing(out, "predictions so far are kept; the same command continues"),
            device_errors(device, "use a smaller --batch-size, or another --device", kept),
            hold_part(out, share.index, share.of) if share else hold_whole(out),
        ):
            for folder in (out, out / PREDICTIONS_FOLDER):  # other shares may be at work
                remove_partial(folder) if share is None else remove_abandoned(folder)
            yield
    except KeyboardInterrupt:
        raise Interrupted(f"evaluation stopped; {kept}") from None


def about_data(samples: SelectedSamples) -> dict[str, Any]:
    """The entry for the data in the provenance; results with different entries are not comparable."""
    info = samples.split.info
    return {
        "name": info.name,
        "fingerprint": info.fingerprint,
        "split": samples.split.name,
        "n": samples.size,
        "task": info.task,
        "headline_metric": info.headline_metric,
        "classes": list(info.classes),
    }


def prediction_identity(fingerprint: str, dtype: str, samples: SelectedSamples) -> dict[str, Any]:
    """Everything that determines a logit except case, prompting and noise.

    Args:
        fingerprint: of the model.
        dtype: the number format that the model computes in.
        samples: the data.
    """
    bad = {"bad_samples": samples.bad.describe()} if samples.bad.found else {}
    return {
        "checkpoint": fingerprint,
        "dataset": samples.split.info.fingerprint,
        "split": samples.split.name,
        "dtype": dtype,
        **bad,
    }


def refuse_results(out: Path) -> None:
    """Raise if ``out`` already holds results or predictions."""
    for path in (out / RESULTS_FILE, *files_in(out / PREDICTIONS_FOLDER, "*.parquet")[:1]):
        if is_there(path):
            raise UsageError(f"{path} exists, and `--overwrite never` keeps it; name another --out")


def earlier_results(
    out: Path, about: Mapping[str, Any], noise: Noise | None, scoring: ScoringSettings
) -> Results | None:
    """Read the results that ``out`` already holds; ``None`` if there are none.

    Raises:
        UsageError: they are of other data, under another noise, or scored with other settings.
    """
    if not is_there(out / RESULTS_FILE):
        return None
    earlier = read_results(out)
    if earlier.provenance["dataset"] != about:
        theirs, ours = (
            f"{data['name']} ({data['split']}, {data['n']} samples, {data['fingerprint'][:12]})"
            for data in (earlier.provenance["dataset"], about)
        )
        raise UsageError(f"{out}: holds results on {theirs}, these would be on {ours}; name another --out")
    old = earlier.provenance.get("noise")
    if noise is not None and old and old != dataclasses.asdict(noise):
        raise UsageError(
            f"{out}: holds results under noise profile {old['profile']}, seed {old['seed']}, these would be under "
            f"{noise.profile}, seed {noise.seed}; name another --out"
        )
    before = earlier.provenance.get("scoring") or dataclasses.asdict(ScoringSettings())
    for key, value in dataclasses.asdict(scoring).items():
        if before[key] != value:
            raise UsageError(
                f"{out}: holds results scored with {key.replace('_', '-')} {before[key]}, these would be with {value}; "
                "score them again (mmrobust score), or name another --out"
            )
    return earlier


def outdated(earlier: Results | None, checkpoints: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The names whose checkpoint has another fingerprint than in the earlier results."""
    before = earlier.provenance["checkpoints"] if earlier else {}
    return [name for name, now in checkpoints.items() if before.get(name, now).get("fingerprint") != now["fingerprint"]]


def unbacked(earlier: Results | None, new: pd.DataFrame, names: Sequence[str]) -> int:
    """How many earlier rows of the checkpoints ``names`` are in no new cell."""
    if earlier is None:
        return 0
    theirs = earlier.frame[earlier.frame["checkpoint"].isin(names)]
    return len(pd.concat([theirs, new]).drop_duplicates(list(RESULTS_KEYS))) - len(new)


def grown(earlier: Results | None, new: pd.DataFrame, without: Sequence[str]) -> bool:
    """Whether new rows lengthen the curve of a checkpoint that is not among ``without``, whose old rows stay."""
    if earlier is None:
        return False
    curve = ["checkpoint", "scenario", "prompting"]
    theirs = earlier.frame[~earlier.frame["checkpoint"].isin(without)]
    rates = pd.concat([theirs, new])[[*curve, "missing_rate"]].drop_duplicates().groupby(curve, observed=True).size()
    ours = new[[*curve, "missing_rate"]].drop_duplicates().groupby(curve, observed=True).size()
    return bool((rates.reindex(ours.index) > ours).any())


def merged(
    earlier: Results | None, new: pd.DataFrame, provenance: Mapping[str, Any], *, without: Sequence[str] = ()
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Rows and provenance of the earlier and the new results combined; new rows replace old ones with the same key.

    Earlier rows of the checkpoints ``without`` are dropped, as those of :func:`outdated` ones must be: one name would
    mean two models.
    """
    if earlier is None:
        return new, dict(provenance)
    rows: pd.DataFrame = pd.concat([earlier.frame[~earlier.frame["checkpoint"].isin(without)], new])
    rows = rows[~rows.duplicated(list(RESULTS_KEYS), keep="last")]
    noise = provenance["noise"] or earlier.provenance.get("noise")
    checkpoints = {**earlier.provenance["checkpoints"], **provenance["checkpoints"]}
    shares = merged_shares(*(one.get("affected_shares") or {} for one in (earlier.provenance, provenance)))
    return rows, {**provenance, "noise": noise, "checkpoints": checkpoints, **shares}
