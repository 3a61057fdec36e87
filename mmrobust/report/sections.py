"""What a report says beyond its main table, as plain tables that every format can draw.

Across checkpoints: standings, what knowing the case is worth, effective robustness, train rate × test rate, what the
trainings cost. And, of the predictions: how sure the standings are, which classes break first, and reliability under
missingness.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mmrobust.errors import DataError, UsageError
from mmrobust.report import efficiency
from mmrobust.report.rows import UNKNOWN, Section, Table, percent
from mmrobust.report.tables import Report
from mmrobust.runtime.progress import Progress, no_progress
from mmrobust.scoring.across import SAME, effective_robustness, prompting_gap, standings, train_test_rates
from mmrobust.scoring.by_class import BREAKS, broken_first, class_curves
from mmrobust.scoring.calibration import BINS, reliability
from mmrobust.scoring.joint import joint_standings
from mmrobust.scoring.predictions import Predictions
from mmrobust.scoring.robustness import CURVE_KEYS, curves
from mmrobust.scoring.store import cells_of, predictions_behind
from mmrobust.storage.results import Results

FIRST_TO_BREAK = 3
"""How many classes of each scenario and prompting are shown."""


def with_sections(
    report: Report,
    *,
    baseline: str | None = None,
    stored: Mapping[str, Predictions] | None = None,
    progress: Progress = no_progress,
) -> Report:
    """``report`` with all that it says beyond its curves; a section that has nothing to say is left out.

    Args:
        report: the tables, and the results behind them.
        baseline: the checkpoint to measure effective robustness by; without one there is none.
        stored: name of each checkpoint → its predictions, as :func:`read_behind` gives them: for the intervals of the
            standings, the classes that break first, and reliability.
        progress: shows how far the resamples of the standings are.

    Raises:
        UsageError: no checkpoint of that name.
    """
    found: list[Section] = []
    for table in report.tables:
        rows = rows_of(report, table)
        frame = _over_seeds(rows)
        own = _shown(stored, rows) if stored else {}
        made = [_standings(frame, table, own, progress), _prompting(frame, table), _rates(frame, table, report)]
        if baseline is not None:
            made.append(_effective(frame, table, baseline))
        if own:
            classes = next(p["dataset"]["classes"] for p in report.provenances if set(own) & set(p["checkpoints"]))
            by_class = _named({name: class_curves(said, tuple(classes)) for name, said in own.items()})
            made.append(_classes(by_class, table))
            made.append(_reliability(_named({name: reliability(said) for name, said in own.items()}), table))
        found += [
            replace(section, dataset=table.dataset, split=table.split, metric=table.metric)
            for section in made
            if section is not None
        ]
    return replace(report, sections=(*report.sections, *found))


def with_costs(report: Report) -> Report:
    """``report`` with what the trainings of the checkpoints of each data set cost, as shares of full fine-tuning.

    Raises:
        UsageError: none of its checkpoints says what its training cost.
    """
    tables: dict[tuple[str, str], Table] = {}
    for table in report.tables:
        tables.setdefault((table.dataset, table.split), table)  # not again for another metric
    made = [section for table in tables.values() if (section := _costs(report, table))]
    if not made:
        raise UsageError(
            "--efficiency: none of these checkpoints says what its training cost; train again to measure it"
        )
    return replace(report, sections=(*report.sections, *made))


def read_behind(paths: Sequence[Path], results: Sequence[Results]) -> dict[str, Predictions]:
    """The predictions of every checkpoint of the results, as :func:`mmrobust.report.tables.read` gives them.

    Args:
        paths: where the ``results`` come from, one path for each.
        results: as read from there.

    Raises:
        DataError: some results have none.
    """
    return {
        name: predictions_behind(path, of, name)
        for path, of in zip(paths, results, strict=True)
        for name in dict.fromkeys(of.frame["checkpoint"])
    }


def _shown(stored: Mapping[str, Predictions], rows: pd.DataFrame) -> dict[str, Predictions]:
    """The predictions of the checkpoints of some rows, behind no other cells than those of the rows."""
    by_name = rows.groupby("checkpoint", sort=False, observed=True)
    return {str(name): replace(stored[str(name)], cells=cells_of(own)) for name, own in by_name}


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


def _standings(
    frame: pd.DataFrame, table: Table, stored: Mapping[str, Predictions], progress: Progress
) -> Section | None:
    figures = standings(frame)
    if figures.empty:
        return None
    clear, unsure = "the 95 % intervals do not overlap.", " Intervals of the wins need the predictions: --details."
    sure = False
    if stored:
        try:
            figures, sure = _with_intervals(figures, table, stored, progress), True
            clear = "the 95 % interval of the paired difference lies beyond zero."
            unsure = " Interval: 95 %, over samples, in resamples that all checkpoints share."
        except DataError as cause:
            unsure = f" No intervals of the wins: {cause}."
    rows = []
    for r in figures.to_dict("records"):
        interval = [f"[{percent(r['wins_low'])}, {percent(r['wins_high'])}]"] if sure else []
        counts = str(r["clear_wins"]), str(r["clear_losses"])
        rows.append((r["checkpoint"], f"{r['mean_rank']:.2f}", percent(r["wins"]), *interval, *counts))
    return Section(
        "standings",
        f"Standings: {table.metric}",
        f"Ranked in each of {int(figures['cells'].max())} cells (scenario, prompting, missing rate) on the mean over "
        f"mask seeds. Wins: % of the comparisons with a rival in a cell. Clear: {clear}{unsure}",
        ("checkpoint", "mean rank", "wins", *(["interval"] if sure else []), "clear wins", "clear losses"),
        1,
        tuple(rows),
        figures,
        better=(-1, 1, *([0] if sure else []), 1, -1),
    )


def _with_intervals(
    figures: pd.DataFrame, table: Table, stored: Mapping[str, Predictions], progress: Progress
) -> pd.DataFrame:
    """The standings with the intervals that the predictions give them.

    Raises:
        DataError: the predictions cannot be paired, or do not give these standings.
    """
    joint = joint_standings(stored, table.metric, progress=progress).set_index("checkpoint").loc[figures["checkpoint"]]
    if (np.abs(joint["wins"].to_numpy() - figures["wins"].to_numpy()) > SAME).any():
        raise DataError("the predictions do not give the values of these results")
    found = joint[["wins_low", "wins_high", "clear_wins", "clear_losses"]].reset_index(drop=True)
    return figures.drop(columns=["clear_wins", "clear_losses"]).join(found)


def _prompting(frame: pd.DataFrame, table: Table) -> Section | None:
    gap = prompting_gap(frame)
    named = (
        gap.groupby("checkpoint", observed=True)["gap"].transform(lambda g: bool((g.abs() > 1e-12).any())).astype(bool)
    )
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
    return Section("effective", title, note, columns, 3, rows, figures, better=(1,) * (len(columns) - 3))


def _rates(frame: pd.DataFrame, table: Table, report: Report) -> Section | None:
    figures = train_test_rates(frame, report.checkpoints)
    if figures.empty:
        return None
    named = figures.assign(
        trained=figures["method"] + " + " + figures["head"],
        under=figures["train_scenario"] + " " + figures["train_rate"].map("{:g}".format),
    )
    columns, rows = by_rate(named, ["scenario", "prompting", "trained", "under"], "value", table.rates)
    note = "Rows: scenario and missing rate of the training; columns: missing rate η of the test. Values in %."
    title = f"Train rate × test rate: {table.metric}"
    return Section("rates", title, note, columns, 4, rows, figures, better=(1,) * (len(columns) - 4))


def _classes(figures: pd.DataFrame, table: Table) -> Section:
    keys = ["scenario", "prompting", "checkpoint"]
    broken = [
        broken_first(own).assign(checkpoint=name)
        for name, own in figures.groupby("checkpoint", sort=False, observed=True)
    ]
    ordered = pd.concat(broken, ignore_index=True)
    rows = []
    for key, own in ordered.groupby(keys, sort=True, observed=True):
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
    title = f"Reliability: {table.dataset}"
    return Section("reliability", title, note, columns, 3, rows, figures, better=(-1,) * (len(columns) - 3))


def _costs(report: Report, table: Table) -> Section | None:
    names = dict.fromkeys(row.checkpoint for row in table.rows)
    found = efficiency.costs({name: report.checkpoints[name] for name in names if name in report.checkpoints})
    if not found:
        return None
    head, *rows = efficiency.table(found)
    title, figures = "What the trainings cost", pd.DataFrame([asdict(cost) for cost in found])
    columns, about = ("checkpoint", *head[1:]), (table.dataset, table.split, table.metric)
    return Section("costs", title, efficiency.notes(found), columns, 1, tuple(map(tuple, rows)), figures, *about)


def by_rate(
    frame: pd.DataFrame, labels: Sequence[str], value: str, rates: Sequence[float], *, signed: bool = False
) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Columns and rows of a table of one value in %, a column for each missing rate, a row for each of the labels."""
    wide = frame.pivot_table(
        index=list(labels), columns="missing_rate", values=value, sort=True, dropna=True, observed=True
    )
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
