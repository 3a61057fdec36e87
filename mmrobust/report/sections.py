"""What a report says beyond its main table, as plain tables that every format can draw.

Across checkpoints: standings, what knowing the case is worth, effective robustness, train rate × test rate. And, of the
predictions: which classes break first, and reliability under missingness.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from mmrobust.report.rows import UNKNOWN, Section, Table, percent
from mmrobust.report.tables import Report, distinct
from mmrobust.results import Results
from mmrobust.scoring.across import effective_robustness, prompting_gap, standings, train_test_rates
from mmrobust.scoring.by_class import BREAKS, broken_first, class_curves
from mmrobust.scoring.calibration import BINS, reliability
from mmrobust.scoring.predictions import StoredPredictions, predictions_behind
from mmrobust.scoring.robustness import CURVE_KEYS, curves

FIRST_TO_BREAK = 3
"""How many classes of each scenario and prompting are shown."""


def with_sections(report: Report, *, baseline: str | None = None) -> Report:
    """``report`` with what its results say across checkpoints; a section that has nothing to say is left out.

    Args:
        report: the tables, and the results behind them.
        baseline: the checkpoint to measure effective robustness by; without one there is none.

    Raises:
        UsageError: no checkpoint of that name.
    """
    found: list[Section] = []
    for table in report.tables:
        frame = _over_seeds(rows_of(report, table))
        made = [_standings(frame, table), _prompting(frame, table), _rates(frame, table, report)]
        if baseline is not None:
            made.append(_effective(frame, table, baseline))
        found += [replace(section, dataset=table.dataset) for section in made if section is not None]
    return replace(report, sections=(*report.sections, *found))


def with_predictions(report: Report, stored: Mapping[str, StoredPredictions]) -> Report:
    """``report`` with what the predictions behind it say: by class, and reliability.

    Args:
        report: the report.
        stored: name of a checkpoint → its predictions, as :func:`read_behind` gives them.
    """
    found = []
    for table in report.tables:
        names = [name for name in dict.fromkeys(rows_of(report, table)["checkpoint"]) if name in stored]
        classes = next(p["dataset"]["classes"] for p in report.provenances if set(names) & set(p["checkpoints"]))
        by_class = _named({name: class_curves(stored[name], tuple(classes)) for name in names})
        made = [_classes(by_class, table), _reliability(_named({n: reliability(stored[n]) for n in names}), table)]
        found += [replace(section, dataset=table.dataset) for section in made]
    return replace(report, sections=(*report.sections, *found))


def read_behind(paths: Sequence[Path], results: Sequence[Results]) -> dict[str, StoredPredictions]:
    """The predictions of every checkpoint of the results, as :func:`mmrobust.report.tables.read` gives them.

    Raises:
        DataError: some results have none.
    """
    return {
        name: predictions_behind(path, of, name)
        for path, of in zip(distinct(paths), results, strict=True)
        for name in dict.fromkeys(of.frame["checkpoint"])
    }


def rows_of(report: Report, table: Table) -> pd.DataFrame:
    """The rows of results that one table of a report is made from."""
    frame = report.results
    return frame[(frame["dataset"] == table.dataset) & (frame["split"] == table.split) & (frame.metric == table.metric)]


def _over_seeds(results: pd.DataFrame) -> pd.DataFrame:
    """``results`` with one row, the mean over mask seeds, where there is one for each seed.

    The figures across checkpoints are all of these means, so they are taken once.
    """
    made = results[["checkpoint", "method", "head"]].drop_duplicates("checkpoint")
    few = dict.fromkeys(CURVE_KEYS, "category")  # few names on many rows are grouped faster so
    means = curves(results.astype(few)).drop(columns="seeds").astype(dict.fromkeys(CURVE_KEYS, "str"))
    return means.assign(seed=0).merge(made, on="checkpoint", how="left")


def _standings(frame: pd.DataFrame, table: Table) -> Section | None:
    figures = standings(frame)
    if figures.empty:
        return None
    rows = [
        (r["checkpoint"], f"{r['mean_rank']:.2f}", percent(r["wins"]), str(r["clear_wins"]), str(r["clear_losses"]))
        for r in figures.to_dict("records")
    ]
    return Section(
        "standings",
        f"Standings: {table.metric}",
        f"Ranked in each of {int(figures['cells'].max())} cells (scenario, prompting, missing rate) on the mean over "
        "mask seeds. Wins: % of the comparisons with a rival in a cell. Clear: the 95 % intervals do not overlap.",
        ("checkpoint", "mean rank", "wins", "clear wins", "clear losses"),
        1,
        tuple(rows),
        figures,
    )


def _prompting(frame: pd.DataFrame, table: Table) -> Section | None:
    gap = prompting_gap(frame)
    named = gap.groupby("checkpoint")["gap"].transform(lambda g: bool((g.abs() > 1e-12).any())).astype(bool)
    if gap.empty or not named.any():
        return None
    same = sorted(set(gap["checkpoint"]) - set(gap.loc[named, "checkpoint"]))
    note = "Points that situation prompting is above concat, by missing rate η."
    note += f" No difference at all: {', '.join(same)}." if same else ""
    columns, rows = by_rate(gap[named], ["scenario", "checkpoint"], "gap", table.rates, signed=True)
    return Section("prompting", f"What knowing the case is worth: {table.metric}", note, columns, 2, rows, gap)


def _effective(frame: pd.DataFrame, table: Table, baseline: str) -> Section | None:
    figures = effective_robustness(frame, baseline)
    if figures.empty:
        return None
    columns, rows = by_rate(figures, ["scenario", "prompting", "checkpoint"], "effective", table.rates[1:], signed=True)
    note = (
        f"Points above what '{baseline}' would have at each missing rate η with the checkpoint's complete value "
        "(a line of slope 1 on the logit scale): robustness beyond being better in all cases alike."
    )
    title = f"Effective robustness against {baseline}: {table.metric}"
    return Section("effective", title, note, columns, 3, rows, figures)


def _rates(frame: pd.DataFrame, table: Table, report: Report) -> Section | None:
    figures = train_test_rates(frame, report.checkpoints)
    if figures.empty:
        return None
    trained = [
        f"{r['method']} + {r['head']}, {r['train_scenario']} {r['train_rate']:g}" for r in figures.to_dict("records")
    ]
    named = figures.assign(trained=trained)
    columns, rows = by_rate(named, ["scenario", "prompting", "trained"], "value", table.rates)
    note = "Rows: scenario and missing rate of the training; columns: missing rate η of the test. Values in %."
    return Section("rates", f"Train rate × test rate: {table.metric}", note, columns, 3, rows, figures)


def _classes(figures: pd.DataFrame, table: Table) -> Section:
    keys = ["scenario", "prompting", "checkpoint"]
    broken = [broken_first(own).assign(checkpoint=name) for name, own in figures.groupby("checkpoint", sort=False)]
    ordered = pd.concat(broken, ignore_index=True)
    rows = []
    for key, own in ordered.groupby(keys, sort=True):
        first = own.head(FIRST_TO_BREAK).to_dict("records")
        rows.append((*map(str, key), *(_broken(r) for r in first), *[UNKNOWN] * (FIRST_TO_BREAK - len(first))))
    note = (
        f"A class breaks at the lowest missing rate at which its F1 lies more than {100 * BREAKS:g} points below "
        "that at the lowest rate; beside it, the points lost up to the highest. Means over mask seeds."
    )
    columns = (*keys, "first", "second", "third")
    return Section("classes", f"Classes that break first: {table.dataset}", note, columns, 3, tuple(rows), ordered)


def _broken(row: Mapping[Any, Any]) -> str:
    at = "" if math.isnan(row["breaks_at"]) else f" at {row['breaks_at']:g}"
    return f"{row['class']}{at} ({-100 * row['lost']:+.1f})"


def _reliability(figures: pd.DataFrame, table: Table) -> Section:
    columns, rows = by_rate(figures, ["scenario", "prompting", "checkpoint"], "ece", table.rates)
    note = (
        f"Expected calibration error in points, {BINS} bins, by missing rate η, mean over mask seeds: how far "
        "confidence and being right lie apart. 0 is a model that knows what it does not know."
    )
    return Section("reliability", f"Reliability: {table.dataset}", note, columns, 3, rows, figures)


def by_rate(
    frame: pd.DataFrame, labels: Sequence[str], value: str, rates: Sequence[float], *, signed: bool = False
) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Columns and rows of a table of one value in %, a column for each missing rate, a row for each of the labels."""
    wide = frame.pivot_table(index=list(labels), columns="missing_rate", values=value, sort=True, dropna=True)
    wide = wide.reindex(columns=list(rates))
    rows = []
    for key, line in zip(wide.index, wide.to_numpy().tolist(), strict=True):
        said = [percent(share) for share in line]
        if signed:
            said = [f"{100 * share:+.1f}" if not math.isnan(share) else UNKNOWN for share in line]
        rows.append((*(key if isinstance(key, tuple) else (key,)), *said))
    return (*labels, *(f"{rate:g}" for rate in rates)), tuple(rows)


def _named(frames: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    return pd.concat([frame.assign(checkpoint=name) for name, frame in frames.items()], ignore_index=True)
