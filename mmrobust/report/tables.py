"""The one table behind every report format: checkpoints × scenarios × promptings by missing rates and figures."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from mmrobust.cases import PROMPTINGS
from mmrobust.errors import UsageError, unknown_name
from mmrobust.report.rows import UNKNOWN, Point, Row, Section, Table
from mmrobust.scoring.robustness import CURVE_KEYS, curves, summarise
from mmrobust.storage.results import RESULTS_KEYS, Results, read_results

if TYPE_CHECKING:
    from mmrobust.report.published import Published
    from mmrobust.report.samples import Worst

_SHORT = 8
"""Characters of a fingerprint that tell data sets of one name apart."""


@dataclass(frozen=True)
class Report:
    """What every format is made from."""

    tables: tuple[Table, ...]
    """One for each data set, split and metric."""
    results: pd.DataFrame
    """The rows behind the tables, and those of the other metrics where none was named; columns as RESULTS_SCHEMA."""
    checkpoints: dict[str, dict[str, Any]]
    """Name → what the provenance says of it (method, head, backbone, fingerprint …)."""
    provenances: tuple[dict[str, Any], ...]
    """One for each results table that went in."""
    groups: Mapping[tuple[str, ...], pd.DataFrame]
    """(data set, fingerprint, split, metric) → its rows: those behind ``tables`` first."""
    sections: tuple[Section, ...] = ()
    """Further tables, below the others."""
    published: Published | None = None
    """A paper's figures to stand beside these."""
    samples: Worst | None = None
    """The samples that a missing input does the most harm to."""

    def facts(self, checkpoint: str) -> dict[str, str]:
        """What a reader wants to know of a checkpoint, in words; a dash where the provenance does not say."""
        about = self.checkpoints[checkpoint]
        training, settings = about.get("training") or {}, about.get("settings") or {}
        trained_on = UNKNOWN
        if training.get("missing_rate") is not None:
            rate = training["missing_rate"]
            trained_on = f"{training.get('scenario')}, η {rate:g}" if rate else "complete data"
        return {
            "method": _with_settings(settings.get("method") or about.get("method")),
            "head": _with_settings(settings.get("head") or about.get("head")),
            "backbone": str(about.get("backbone") or UNKNOWN),
            "trained on": trained_on,
            "fill": str(about.get("fill") or UNKNOWN),
            "fingerprint": str(about.get("fingerprint") or UNKNOWN),
        }

    def with_published(self, name: str) -> Report:
        """This report with a paper's figures beside it; raises ``UsageError`` where there is none of that name."""
        from mmrobust.report.published import beside

        return dataclasses.replace(self, published=beside(name, self.every_table))

    def with_samples(self, samples: Worst) -> Report:
        """This report with the worst samples of its data set."""
        return dataclasses.replace(self, samples=samples)

    @functools.cached_property
    def every_table(self) -> tuple[Table, ...]:
        """``tables``, and then those of the other metrics where none was named."""
        shown = len(self.tables)
        rest = list(self.groups.items())[shown:]
        return (*self.tables, *(_table(frame, metric) for (_, _, _, metric), frame in rest))


def _with_settings(part: Any) -> str:
    """A method or head with its settings: ``mmp (length 16, level input)``; of older results only the name is known."""
    if not isinstance(part, Mapping):
        return str(part or UNKNOWN)
    settings = ", ".join(f"{key} {value}" for key, value in part.items() if key != "name")
    return f"{part.get('name')} ({settings})" if settings else str(part.get("name"))


def build(results: Sequence[Results], *, metric: str | None = None, promptings: Sequence[str] | None = None) -> Report:
    """The report on one or several results, whose checkpoints have different names (see :func:`read`).

    Args:
        results: what to report on.
        metric: the metric of the tables; where ``None``, the headline metric of each data set, or the first that there
            is of results that were scored without it.
        promptings: which to show; all that are there where ``None``.

    Raises:
        UsageError: results that do not hold the metric or a prompting, or not the one under the other.
    """
    _refuse_unknown(results, "metric", () if metric is None else [metric])
    _refuse_unknown(results, "prompting", promptings or ())
    shown: dict[tuple[str, ...], list[pd.DataFrame]] = {}
    others: dict[tuple[str, ...], list[pd.DataFrame]] = {}
    kept: list[pd.DataFrame] = []
    datasets = _dataset_names(results)
    for result in results:
        frame, headline = result.frame, metric or result.headline_metric
        if promptings is not None:
            frame = frame[frame["prompting"].isin(list(promptings))]
        if metric is not None:
            frame = frame[frame["metric"] == metric]
        dataset = result.provenance.get("dataset") or {}
        if named := datasets.get(_identity(dataset)):
            frame = frame.assign(dataset=named)
        kept.append(frame)
        key = (*_identity(dataset), str(dataset.get("split")))
        there = frame["metric"].unique()
        headline = headline if headline in there or not len(there) else str(there[0])
        for name, rows in frame.groupby("metric", sort=False, observed=True):
            groups = shown if name == headline else others
            groups.setdefault((*key, str(name)), []).append(rows)
    if not shown:
        raise UsageError(f"the results hold nothing of {metric} under {' and '.join(promptings or ())} prompting")
    frames = {key: pd.concat(rows, ignore_index=True) for key, rows in (shown | others).items()}
    return Report(
        tables=tuple(_table(frames[key], key[-1]) for key in shown),
        results=pd.concat(kept, ignore_index=True),
        checkpoints={name: facts for _, p in results for name, facts in p.get("checkpoints", {}).items()},
        provenances=tuple(provenance for _, provenance in results),
        groups=frames,
    )


def _identity(dataset: Mapping[str, Any]) -> tuple[str, str]:
    return str(dataset.get("name")), str(dataset.get("fingerprint"))


def _dataset_names(results: Sequence[Results]) -> dict[tuple[str, str], str]:
    """(Name, fingerprint) of the data sets that share their name with another → what to call each."""
    known = dict.fromkeys(_identity(result.provenance.get("dataset") or {}) for result in results)
    names = [name for name, _ in known]
    return {(name, of): f"{name} ({of[:_SHORT]})" for name, of in known if names.count(name) > 1}


def distinct(paths: Sequence[Path]) -> list[Path]:
    """``paths`` without those that are named twice."""
    return list({path.resolve(): path for path in paths}.values())


def read(paths: Sequence[Path]) -> list[Results]:
    """The results in ``paths``, checkpoints of the same name told apart by the path that they come from.

    Args:
        paths: each once: see :func:`distinct`.

    Raises:
        DataError: one cannot be read.
    """
    loaded = [read_results(path) for path in paths]
    names = [set(frame["checkpoint"].unique()) for frame, _ in loaded]
    twice = {name for i, own in enumerate(names) for name in own if any(name in other for other in names[:i])}
    if not twice:
        return loaded
    return [
        _rename(results, {name: f"{name} ({place})" for name in twice})
        for results, place in zip(loaded, _shortest_places(paths), strict=True)
    ]


def _shortest_places(paths: Sequence[Path]) -> list[str]:
    """The paths, without what they all begin and end with: ``runs/a/results.parquet`` of two runs is ``a``."""
    parts = [list(path.resolve().parts) for path in paths]
    for end in (0, -1):
        while all(len(p) > 1 for p in parts) and len({p[end] for p in parts}) == 1:
            for part in parts:
                part.pop(end)
    return ["/".join(part) for part in parts]


def _rename(results: Results, names: dict[str, str]) -> Results:
    frame, provenance = results
    checkpoints = {names.get(name, name): facts for name, facts in provenance.get("checkpoints", {}).items()}
    renamed = frame.assign(checkpoint=frame["checkpoint"].replace(names))
    return Results(renamed, {**provenance, "checkpoints": checkpoints})


def _refuse_unknown(results: Sequence[Results], column: str, names: Sequence[str]) -> None:
    """Raise for the first of ``names`` that no row has in ``column``."""
    known = list(dict.fromkeys(value for frame, _ in results for value in frame[column].unique()))
    for name in names:
        if name not in known:
            raise unknown_name(f"{column} of these results", name, known)


def _table(frame: pd.DataFrame, metric: str) -> Table:
    """The table of a frame that holds one metric on one split."""
    # Few names on many rows: as categories they are grouped in a fraction of the time.
    frame = frame.astype(dict.fromkeys(CURVE_KEYS, "category")).drop_duplicates(list(RESULTS_KEYS))
    means = curves(frame)
    points: dict[tuple[str, str, str], dict[float, Point]] = {}
    columns = ("checkpoint", "scenario", "prompting", "missing_rate", "value", "ci_low", "ci_high", "spread")
    for checkpoint, scenario, prompting, rate, *point in zip(*(means[name].tolist() for name in columns), strict=True):
        points.setdefault((checkpoint, scenario, prompting), {})[rate] = Point(*point)
    order = {name: i for i, name in enumerate(frame["checkpoint"].unique())}
    figures = [name for name in Row.__dataclass_fields__ if name != "points"]
    rows = [
        Row(
            points=points[row["checkpoint"], row["scenario"], row["prompting"]], **{name: row[name] for name in figures}
        )
        for row in summarise(frame, means).to_dict("records")
    ]
    return Table(
        dataset=str(frame["dataset"].iloc[0]),
        split=str(frame["split"].iloc[0]),
        metric=metric,
        n=int(frame["n"].max()),
        n_naturally_missing=int(frame["n_naturally_missing"].max()),
        seeds=int(frame["seed"].nunique()),
        rates=tuple(sorted(frame["missing_rate"].unique().tolist())),
        # missing-both after the scenarios that it is made of
        rows=tuple(
            sorted(
                rows,
                key=lambda row: (
                    row.scenario.endswith("-both"),
                    row.scenario,
                    PROMPTINGS.index(row.prompting) if row.prompting in PROMPTINGS else len(PROMPTINGS),
                    order[row.checkpoint],
                ),
            )
        ),
    )
