"""The report behind every format: read results, build the report of them, and look up what it says."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from mmrobust.errors import UsageError, unknown_name
from mmrobust.report.curve_table import CurveTable, make_curve_table
from mmrobust.report.numbers import UNKNOWN
from mmrobust.report.published import Published, beside
from mmrobust.report.section import Section
from mmrobust.runtime.printable import printable
from mmrobust.scoring.metrics import MetricSettings, metric_settings, refuse_other_settings
from mmrobust.storage.files import is_there
from mmrobust.storage.results import RESULTS_FILE, Results, read_results

if TYPE_CHECKING:
    from mmrobust.report.worst_samples import WorstSamples

_SHORT = 8
"""Leading characters of a fingerprint, enough to tell data sets of one name apart."""


@dataclass(frozen=True)
class Report:
    """What every format prints."""

    tables: tuple[CurveTable, ...]
    """One for each data set, split and metric."""
    results: pd.DataFrame
    """The rows behind the tables, and those of the other metrics unless one was chosen; columns as RESULTS_SCHEMA."""
    checkpoints: dict[str, dict[str, Any]]
    """Name → its description in the provenance (method, head, backbone, fingerprint …)."""
    provenances: tuple[dict[str, Any], ...]
    """One for each results table."""
    groups: Mapping[tuple[str, ...], pd.DataFrame]
    """(data set, fingerprint, split, metric) → its rows. The groups behind ``tables`` come first."""
    sections: tuple[Section, ...] = ()
    """Further tables, below the others."""
    published: Published | None = None
    """A paper's figures to print beside these."""
    samples: WorstSamples | None = None
    """The samples that a missing input harms most."""

    def facts(self, checkpoint: str) -> dict[str, str]:
        """Describe a checkpoint: method, head, backbone, training; a dash where the provenance does not say."""
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
        """This report with the figures of the paper ``name`` beside it; raises ``UsageError`` if there is no such."""
        return dataclasses.replace(self, published=beside(name, self.every_table, self.checkpoints, self.provenances))

    @functools.cached_property
    def every_table(self) -> tuple[CurveTable, ...]:
        """``tables``, followed by those of the other metrics unless one was chosen."""
        rest = list(self.groups.items())[len(self.tables) :]
        return (*self.tables, *(make_curve_table(frame, metric) for (*_, metric), frame in rest))


def _with_settings(component: Any) -> str:
    """A method or head with its settings: ``mmp (length 16, level input)``; older results give its name alone."""
    if not isinstance(component, Mapping):
        return str(component or UNKNOWN)
    settings = ", ".join(f"{key} {value}" for key, value in component.items() if key != "name")
    return f"{component.get('name')} ({settings})" if settings else str(component.get("name"))


def build_report(
    results: Iterable[Results], *, metric: str | None = None, promptings: Sequence[str] | None = None
) -> Report:
    """Build the report on one or several results, whose checkpoints have different names (see :func:`read_distinct`).

    Args:
        results: what to report on.
        metric: the metric of the tables. If ``None``, the headline metric of each data set, or, where results were
            scored without it, the first of their metrics.
        promptings: which to show; all if ``None``.

    Raises:
        NotComparableError: results on the same data were scored with other metric settings.
        UsageError: the results do not hold the metric or a prompting, or do not hold the metric under the promptings.
    """
    results = list(results)
    _refuse_other_settings(results)
    _refuse_unknown(results, "metric", () if metric is None else [metric])
    _refuse_unknown(results, "prompting", promptings or ())
    headline: dict[tuple[str, ...], list[pd.DataFrame]] = {}
    others: dict[tuple[str, ...], list[pd.DataFrame]] = {}
    frames, display_names = [], _display_names(results)
    for result in results:
        frame, chosen = result.frame, metric or result.headline_metric
        if promptings is not None:
            frame = frame[frame["prompting"].isin(list(promptings))]
        if metric is not None:
            frame = frame[frame["metric"] == metric]
        dataset = result.provenance.get("dataset") or {}
        if display_name := display_names.get(_identity(dataset)):
            frame = frame.assign(dataset=display_name)
        frames.append(frame)
        scored = frame["metric"].unique()
        chosen = chosen if chosen in scored or not len(scored) else str(scored[0])
        for name, rows in frame.groupby("metric", sort=False, observed=True):
            groups = headline if name == chosen else others
            groups.setdefault((*_identity(dataset), str(dataset.get("split")), str(name)), []).append(rows)
    if not headline:
        raise UsageError(f"the results have no {metric} under {' and '.join(promptings or ())} prompting")
    groups_of_rows = {key: pd.concat(rows, ignore_index=True) for key, rows in (headline | others).items()}
    return Report(
        tables=tuple(make_curve_table(groups_of_rows[key], key[-1]) for key in headline),
        results=pd.concat(frames, ignore_index=True),
        checkpoints={name: facts for _, p in results for name, facts in p.get("checkpoints", {}).items()},
        provenances=tuple(provenance for _, provenance in results),
        groups=groups_of_rows,
    )


def _identity(dataset: Mapping[str, Any]) -> tuple[str, str]:
    return str(dataset.get("name")), str(dataset.get("fingerprint"))


def _display_names(results: Sequence[Results]) -> dict[tuple[str, str], str]:
    """(name, fingerprint) → name to print, for the data sets that share their name with another."""
    known = dict.fromkeys(_identity(result.provenance.get("dataset") or {}) for result in results)
    names = [name for name, _ in known]
    return {(name, of): f"{name} ({of[:_SHORT]})" for name, of in known if names.count(name) > 1}


def _refuse_other_settings(results: Sequence[Results]) -> None:
    """Raise if values of one split are not of the same metric: side by side, they would be ranked."""
    seen: dict[tuple[str, ...], tuple[str, MetricSettings]] = {}
    for result in results:
        dataset, settings = result.provenance.get("dataset") or {}, metric_settings(result.provenance)
        name = str(result.frame["checkpoint"].iloc[0])
        first, other = seen.setdefault((*_identity(dataset), str(dataset.get("split"))), (name, settings))
        refuse_other_settings(settings, other, f"'{name}'", f"'{first}'")


def _refuse_unknown(results: Sequence[Results], column: str, names: Sequence[str]) -> None:
    """Raise for the first of ``names`` that no row has in ``column``."""
    known = list(dict.fromkeys(value for frame, _ in results for value in frame[column].unique()))
    for name in names:
        if name not in known:
            raise unknown_name(f"{column} of these results", name, known)


def read_distinct(paths: Sequence[Path]) -> dict[Path, Results]:
    """Read the results in ``paths``, each path once, and give checkpoints of the same name different names.

    A folder without results of its own, as that of a study, stands for all results in it. Checkpoints that share a
    name are distinguished by their path: ``mmp (old)`` and ``mmp (new)``.

    Raises:
        DataError: one cannot be read.
    """
    every = (file for path in paths for file in _results_in(path))
    distinct = list({path.resolve(): path for path in every}.values())
    loaded = [read_results(path) for path in distinct]
    names = [set(frame["checkpoint"].unique()) for frame, _ in loaded]
    shared = {name for i, own in enumerate(names) for name in own if any(name in other for other in names[:i])}
    if shared:
        places = _shortest_places(distinct)
        loaded = [_renamed(results, shared, place) for results, place in zip(loaded, places, strict=True)]
    return dict(zip(distinct, loaded, strict=True))


def _results_in(path: Path) -> Sequence[Path]:
    """``path``, or the folders of results in it if it is no such folder itself."""
    if not path.is_dir() or is_there(path / RESULTS_FILE):
        return [path]
    return sorted(file.parent for file in path.rglob(RESULTS_FILE)) or [path]


def _shortest_places(paths: Sequence[Path]) -> list[str]:
    """The paths without what they all begin and end with: ``runs/a/results.parquet`` of two runs is ``a``."""
    folders = [list(path.resolve().parts) for path in paths]
    for end in (0, -1):
        while all(len(names) > 1 for names in folders) and len({names[end] for names in folders}) == 1:
            for names in folders:
                names.pop(end)
    return [printable("/".join(names)) for names in folders]


def _renamed(results: Results, shared: Iterable[str], place: str) -> Results:
    """``results`` with their ``place`` after the names of checkpoints that are ``shared``."""
    (frame, provenance), names = results, {name: f"{name} ({place})" for name in shared}
    checkpoints = {names.get(name, name): facts for name, facts in provenance.get("checkpoints", {}).items()}
    renamed = frame.assign(checkpoint=frame["checkpoint"].replace(names))
    return Results(renamed, {**provenance, "checkpoints": checkpoints})
