"""Whether two results can be compared at all, and in which cells.

Different data, splits, classes, fills, noise or metric settings, and missing cells are each refused, with the reason: a
comparison that means nothing must not look like one that does.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from mmrobust.errors import NotComparableError, UsageError, unknown_name
from mmrobust.scoring.metrics import metric_settings, refuse_other_settings
from mmrobust.scoring.rescore import grid_flags
from mmrobust.scoring.significance import CORRECTIONS
from mmrobust.scoring.store import cells_of
from mmrobust.storage.results import CELL_KEYS, Results

MEAN_KEYS = tuple(key for key in CELL_KEYS if key != "seed")
"""What identifies a mean over mask seeds."""
ALPHAS = (1e-4, 0.5)
"""The least and the largest level of a test that is worth its name."""
_SAME_DATA = {
    "fingerprint": "the data differs",
    "split": "the split differs",
    "task": "the task differs",
    "headline_metric": "the headline metric differs",
    "classes": "the classes differ",
}


def check_statistics(alpha: float, correction: str) -> None:
    """Raise ``UsageError`` if ``alpha`` is outside :data:`ALPHAS` or the correction is unknown."""
    least, most = ALPHAS
    if not least <= alpha <= most:
        raise UsageError(
            f"alpha {alpha:g} is not between {least:g} and {most:g}: at a smaller one hardly any regression fails, at "
            "a larger one chance decides; 0.05 is usual"
        )
    if correction not in CORRECTIONS:
        raise unknown_name("correction", correction, CORRECTIONS)


def comparable_checkpoints(candidate: Results, baseline: Results) -> dict[str, str]:
    """The checkpoints to compare: name in the baseline → name in the candidate.

    If both sides have one checkpoint, these are compared whatever their names; else checkpoints are paired by name.

    Raises:
        NotComparableError: a checkpoint of the baseline is not in the candidate, or was not measured in the same way
            (see :func:`refuse_other_measurement`).
    """
    theirs, ours = (list(dict.fromkeys(results.frame["checkpoint"])) for results in (baseline, candidate))
    names = dict(zip(theirs, ours if len(ours) == len(theirs) == 1 else theirs, strict=True))
    if absent := [name for name in names.values() if name not in ours]:
        raise NotComparableError(
            f"checkpoint '{absent[0]}' of the baseline is not in the candidate, which has {', '.join(ours)}; "
            "several checkpoints are compared by name"
        )
    for name, own in names.items():
        refuse_other_measurement(candidate, own, baseline, name)
    return names


def refuse_other_measurement(candidate: Results, ours: str, baseline: Results, theirs: str) -> None:
    """Raise unless two checkpoints were measured in the same way.

    Raises:
        NotComparableError: data, split, task, classes, headline metric, fill, noise or metric settings differ.
    """
    after, before = candidate.provenance, baseline.provenance
    _same_data(after, before)
    refuse_other_settings(metric_settings(after), metric_settings(before), "candidate", "baseline")
    noises = [of["noise"] for of in (after, before) if of.get("noise")]  # results without noisy scenarios record none
    if len(noises) == 2 and noises[0] != noises[1]:
        raise _differs("the noise", *(f"{noise['profile']}, seed {noise['seed']}" for noise in noises))
    fills = [(of.get("checkpoints", {}).get(name) or {}).get("fill") for of, name in ((after, ours), (before, theirs))]
    # Two checkpoints with other fills did not see the same samples. A model of the user's own, or one that ran
    # elsewhere, names none: what it makes of a missing modality is its own affair, and part of what is compared.
    if None not in fills and fills[0] != fills[1]:
        raise _differs(f"the fill of '{ours}'", *fills)


def _same_data(candidate: dict[str, Any], baseline: dict[str, Any]) -> None:
    ours, theirs = candidate.get("dataset") or {}, baseline.get("dataset") or {}
    for side, about in (("candidate", ours), ("baseline", theirs)):
        if not about.get("fingerprint"):
            raise NotComparableError(f"the {side} does not record which data it was made on (no fingerprint)")
    for key, what in _SAME_DATA.items():
        if ours.get(key) != theirs.get(key):
            names = f" ({ours.get('name')} and {theirs.get('name')})" if key == "fingerprint" else ""
            raise NotComparableError(
                f"{what}{names}: candidate {_short(ours.get(key))}, baseline {_short(theirs.get(key))}; "
                "evaluate both on the same data"
            )


def _differs(name: str, candidate: object, baseline: object, advice: object = "") -> NotComparableError:
    return NotComparableError(f"{name} differs: candidate {candidate}, baseline {baseline}{advice}")


def pair_cells(before: pd.DataFrame, after: pd.DataFrame) -> pd.DataFrame:
    """Pair every cell of the baseline, its checkpoints named as in the candidate, with the candidate's.

    Returns:
        One row per checkpoint and ``MEAN_KEYS``: ``baseline`` and ``candidate`` (means over mask seeds), ``seeds``.

    Raises:
        NotComparableError: a cell is missing in the candidate, occurs twice, is over a different number of samples, or
            has no value.
    """
    keys = ["checkpoint", *CELL_KEYS]
    columns = [*keys, "n", "n_affected", "value"]
    if before.duplicated(keys).any() or after.duplicated(keys).any():
        raise NotComparableError("a cell occurs twice: results of several data sets or splits are in one table")
    both = before[columns].merge(after[columns], on=keys, how="left", suffixes=("_baseline", "_candidate"))
    remedy = f"; evaluate it with the baseline's grid: {' '.join(grid_flags(cells_of(before)))}"
    _refuse(both, both["n_candidate"].isna(), "the candidate does not have {cell}, which the baseline has", remedy)
    for column, what in (("n", "samples"), ("n_affected", "affected samples")):
        differs = both[f"{column}_candidate"] != both[f"{column}_baseline"]
        message = f"{{cell}} is over another number of {what}: candidate {{{column}_candidate:.0f}}, "
        remedy = f"; evaluate it on the same samples: --limit {both['n_baseline'].max():.0f}" if column == "n" else ""
        _refuse(both, differs, message + f"baseline {{{column}_baseline:.0f}}", remedy)
    for side in ("candidate", "baseline"):
        _refuse(both, both[f"value_{side}"].isna(), f"the {side} has no value in {{cell}}: the metric is not defined")
    grouped = both.groupby(["checkpoint", *MEAN_KEYS], sort=True, observed=True)
    means = grouped[["value_baseline", "value_candidate"]].mean()
    return means.set_axis(["baseline", "candidate"], axis=1).assign(seeds=grouped["seed"].nunique()).reset_index()


def _refuse(cells: pd.DataFrame, wrong: pd.Series[bool], message: str, remedy: str = "") -> None:
    """Raise if any of the ``cells`` is ``wrong``, naming the first, and what to do."""
    if wrong.any():
        first: Any = cells[wrong].iloc[0]
        cell = f"{first['metric']} of '{first['checkpoint']}' at {first['scenario']}/{first['missing_rate']:g}, "
        cell += f"seed {first['seed']}, {first['prompting']}"
        more = f" ({int(wrong.sum()) - 1} more like it)" if wrong.sum() > 1 else ""
        raise NotComparableError(message.format(cell=cell, **first) + more + remedy)


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:39]}…"
