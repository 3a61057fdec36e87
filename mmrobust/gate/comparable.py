"""Whether two results can be compared at all, and the cells in which they can.

Other data, another split, other classes, another fill or noise, metrics that count otherwise, cells that are lacking:
each is refused, with the reason. What means nothing must not look like a comparison.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from mmrobust.errors import NotComparableError
from mmrobust.scoring.metrics import metric_settings
from mmrobust.storage.results import CELL_KEYS, Results

MEAN_KEYS = tuple(key for key in CELL_KEYS if key != "seed")
"""What identifies a mean over mask seeds."""
_SAME_DATA = {
    "fingerprint": "the data differs",
    "split": "the split differs",
    "task": "the task differs",
    "headline_metric": "the headline metric differs",
    "classes": "the classes differ",
}


def comparable_checkpoints(candidate: Results, baseline: Results) -> dict[str, str]:
    """Name in the baseline → name in the candidate, of the checkpoints to compare.

    One checkpoint on each side is compared whatever its name, several are compared by name.

    Raises:
        NotComparableError: other data, split, task, classes, headline metric, fill, noise or metric settings, or a
            checkpoint of the baseline that the candidate does not have.
    """
    pairs = _pairs(candidate, baseline)
    for theirs, ours in pairs.items():
        refuse_other_measurement(candidate, ours, baseline, theirs)
    return pairs


def refuse_other_measurement(candidate: Results, ours: str, baseline: Results, theirs: str) -> None:
    """Raise where two checkpoints were not measured in the same way.

    Raises:
        NotComparableError: other data, split, task, classes, headline metric, fill, noise or metric settings.
    """
    _same_data(candidate.provenance, baseline.provenance)
    _same_definitions(candidate.provenance, baseline.provenance)
    _same_noise(candidate.provenance, baseline.provenance)
    _same_fill(candidate.provenance, ours, baseline.provenance, theirs)


def _same_data(candidate: dict[str, Any], baseline: dict[str, Any]) -> None:
    ours, theirs = candidate.get("dataset") or {}, baseline.get("dataset") or {}
    for side, about in (("candidate", ours), ("baseline", theirs)):
        if not about.get("fingerprint"):
            raise NotComparableError(f"the {side} does not say which data it was made on (no fingerprint)")
    for key, what in _SAME_DATA.items():
        if ours.get(key) != theirs.get(key):
            names = f" ({ours.get('name')} and {theirs.get('name')})" if key == "fingerprint" else ""
            raise NotComparableError(
                f"{what}{names}: candidate {_short(ours.get(key))}, baseline {_short(theirs.get(key))}; "
                "evaluate both on the same data"
            )


def _same_definitions(candidate: dict[str, Any], baseline: dict[str, Any]) -> None:
    """Raise where the metrics were told to count differently."""
    ours, theirs = metric_settings(candidate), metric_settings(baseline)
    for what, name in (("threshold", "the threshold"), ("f1_absent", "what a class counts that is absent")):
        said = [getattr(settings, what) for settings in (ours, theirs)]
        if said[0] != said[1]:
            raise NotComparableError(
                f"{name} differs: candidate {said[0]}, baseline {said[1]}; score both in the same way"
            )


def _pairs(candidate: Results, baseline: Results) -> dict[str, str]:
    """Name in the baseline → name in the candidate."""
    ours, theirs = (list(dict.fromkeys(results.frame["checkpoint"])) for results in (candidate, baseline))
    if len(ours) == len(theirs) == 1:
        return {theirs[0]: ours[0]}
    if absent := [name for name in theirs if name not in ours]:
        raise NotComparableError(
            f"checkpoint '{absent[0]}' of the baseline is not in the candidate, which has {', '.join(ours)}; "
            "several checkpoints are compared by name"
        )
    return {name: name for name in theirs}


def _same_fill(candidate: dict[str, Any], ours: str, baseline: dict[str, Any], theirs: str) -> None:
    """Raise where a missing input was filled differently: the two then did not see the same samples."""
    fills = [
        (provenance.get("checkpoints", {}).get(name) or {}).get("fill")
        for provenance, name in ((candidate, ours), (baseline, theirs))
    ]
    if fills[0] != fills[1]:
        raise NotComparableError(f"the fill of '{ours}' differs: candidate {fills[0]}, baseline {fills[1]}")


def _same_noise(candidate: dict[str, Any], baseline: dict[str, Any]) -> None:
    """Raise where noisy inputs were degraded differently; results without noisy scenarios say nothing of noise."""
    ours, theirs = candidate.get("noise"), baseline.get("noise")
    if ours and theirs and ours != theirs:
        said = [f"{noise['profile']}, seed {noise['seed']}" for noise in (ours, theirs)]
        raise NotComparableError(f"the noise differs: candidate {said[0]}, baseline {said[1]}")


def seed_means(before: pd.DataFrame, after: pd.DataFrame) -> pd.DataFrame:
    """Every cell of the baseline with the means over mask seeds of both sides.

    Args:
        before: rows of the baseline, its checkpoints under the candidate's names.
        after: rows of the candidate.

    Returns:
        One row per checkpoint and ``MEAN_KEYS``: ``baseline``, ``candidate``, ``seeds``.

    Raises:
        NotComparableError: a cell that the candidate does not have, that occurs twice, that is over other samples, or
            that has no value.
    """
    keys = ["checkpoint", *CELL_KEYS]
    columns = [*keys, "n", "n_affected", "value"]
    if before.duplicated(keys).any() or after.duplicated(keys).any():
        raise NotComparableError("a cell occurs twice: results of several data sets or splits are in one table")
    both = before[columns].merge(after[columns], on=keys, how="left", suffixes=("_baseline", "_candidate"))
    _refuse(both, both["n_candidate"].isna(), "the candidate does not have {cell}, which the baseline has")
    for column, what in (("n", "samples"), ("n_affected", "affected samples")):
        differs = both[f"{column}_candidate"] != both[f"{column}_baseline"]
        message = f"{{cell}} is over another number of {what}: candidate {{{column}_candidate:.0f}}, "
        _refuse(both, differs, message + f"baseline {{{column}_baseline:.0f}}")
    for side in ("candidate", "baseline"):
        _refuse(both, both[f"value_{side}"].isna(), f"the {side} has no value in {{cell}}: the metric is not defined")
    grouped = both.groupby(["checkpoint", *MEAN_KEYS], sort=True, observed=True)
    means = grouped[["value_baseline", "value_candidate"]].mean()
    return means.set_axis(["baseline", "candidate"], axis=1).assign(seeds=grouped["seed"].nunique()).reset_index()


def _refuse(cells: pd.DataFrame, wrong: pd.Series[bool], message: str) -> None:
    """Raise where some of the ``cells`` are ``wrong``, naming the first."""
    if wrong.any():
        first: Any = cells[wrong].iloc[0]
        cell = f"{first['metric']} of '{first['checkpoint']}' at {first['scenario']}/{first['missing_rate']:g}, "
        cell += f"seed {first['seed']}, {first['prompting']}"
        more = f" ({int(wrong.sum()) - 1} more like it)" if wrong.sum() > 1 else ""
        raise NotComparableError(message.format(cell=cell, **first) + more)


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:39]}…"
