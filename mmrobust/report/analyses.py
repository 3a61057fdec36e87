"""The further tables of a report, each a :class:`~mmrobust.report.section.Section` that every format can print.

From the results: standings, what knowing the case is worth, effective robustness, train rate × test rate, and what the
trainings cost. From the predictions as well: intervals of the standings, which classes break first, and reliability.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mmrobust.cases import PROMPTINGS
from mmrobust.errors import DataError, UsageError
from mmrobust.report.costs import cost_notes, cost_rows, training_costs
from mmrobust.report.curve_table import CurveTable
from mmrobust.report.numbers import UNKNOWN, interval, percent, points
from mmrobust.report.report import Report
from mmrobust.report.section import Section
from mmrobust.runtime.progress import Progress, no_progress
from mmrobust.scoring.by_class import BREAKS, class_curves, earliest_breaking
from mmrobust.scoring.calibration import BINS, reliability
from mmrobust.scoring.predictions import Predictions
from mmrobust.scoring.robustness import CURVE_KEYS, curves, effective_robustness, prompting_gap, train_test_rates
from mmrobust.scoring.standings import SAME, joint_standings, standings
from mmrobust.scoring.store import cells_of, predictions_behind
from mmrobust.scoring.worth import modality_worth
from mmrobust.storage.results import Results
from mmrobust.storage.tasks import REGRESSION

FIRST_TO_BREAK = 3
"""How many classes of each scenario and prompting are shown."""
_KEYS = ("scenario", "prompting", "checkpoint")


def with_sections(
    report: Report,
    *,
    baseline: str | None = None,
    stored: Mapping[str, Predictions] | None = None,
    progress: Progress = no_progress,
) -> Report:
    """Add every further table but the costs to ``report``; a table that would be empty is left out.

    Effective robustness is measured against the checkpoint ``baseline``, if one is named. ``stored`` are the
    predictions of each checkpoint, from :func:`read_behind`, without which there are no intervals of the standings, no
    classes that break first, and no reliability. ``progress`` is that of resampling the standings.

    Raises:
        UsageError: ``baseline`` is not a checkpoint of the report.
    """
    found: list[Section] = []
    stored, frame = stored or {}, report.results
    for table in report.tables:
        rows = frame[(frame.dataset == table.dataset) & (frame.split == table.split) & (frame.metric == table.metric)]
        means = _means_over_seeds(rows)
        by_name = rows.groupby("checkpoint", sort=False, observed=True) if stored else ()
        own = {str(name): replace(stored[str(name)], cells=cells_of(of_one)) for name, of_one in by_name}
        made = [
            _standings(means, table, own, progress),
            _prompting(means, table),
            _rates(means, table, report),
            _effective(means, table, baseline) if baseline is not None else None,
            _dependence(table, report),
        ]
        numbers = any(of.truth.task == REGRESSION for of in own.values())
        if own and not numbers:  # numbers are of no class, and have no confidence
            classes = next(p["dataset"]["classes"] for p in report.provenances if set(own) & set(p["checkpoints"]))
            made.append(_classes(_stacked({name: class_curves(of, tuple(classes)) for name, of in own.items()}), table))
        if own:
            shown = [prompting for prompting in PROMPTINGS if (rows.prompting == prompting).any()]
            worth = {name: modality_worth(of, table.metric, shown) for name, of in own.items()}
            made.append(_worth(_stacked(worth), table))
        if own and not numbers:
            made.append(_reliability(_stacked({name: reliability(of) for name, of in own.items()}), table))
        found += [_placed(section, table) for section in made if section is not None]
    return replace(report, sections=(*report.sections, *found))


def with_costs(report: Report) -> Report:
    """Add to ``report``, for each data set, what the trainings cost, as shares of full fine-tuning.

    Raises:
        UsageError: no checkpoint records what its training cost.
    """
    one_per_split: dict[tuple[str, str], CurveTable] = {}
    for table in report.tables:
        one_per_split.setdefault((table.dataset, table.split), table)
    made = [_placed(section, table) for table in one_per_split.values() if (section := _costs(report, table))]
    if not made:
        raise UsageError(
            "--efficiency: none of these checkpoints records what its training cost; train again to measure it"
        )
    return replace(report, sections=(*report.sections, *made))


def read_behind(results: Mapping[Path, Results]) -> dict[str, Predictions]:
    """Read the predictions of every checkpoint of the results that :func:`~mmrobust.report.report.read_distinct` gives.

    Raises:
        DataError: a checkpoint has no predictions beside its results.
    """
    return {
        name: predictions_behind(path, of, name)
        for path, of in results.items()
        for name in dict.fromkeys(of.frame["checkpoint"])
    }


def _placed(section: Section, table: CurveTable) -> Section:
    return replace(section, dataset=table.dataset, split=table.split, metric=table.metric)


def _means_over_seeds(results: pd.DataFrame) -> pd.DataFrame:
    """``results`` with one row, the mean over mask seeds, in place of one row per seed.

    All figures across checkpoints are of these means, so they are computed once.
    """
    made = results[["checkpoint", "method", "head"]].drop_duplicates("checkpoint")
    few = dict.fromkeys(CURVE_KEYS, "category")  # few names on many rows are grouped faster so
    means = curves(results.astype(few)).drop(columns="seeds").astype(dict.fromkeys(CURVE_KEYS, "str"))
    return means.assign(seed=0).merge(made, on="checkpoint", how="left")


def _standings(
    means: pd.DataFrame, table: CurveTable, stored: Mapping[str, Predictions], progress: Progress
) -> Section | None:
    figures = standings(means)
    if figures.empty:
        return None
    unsure = " Intervals of the wins need the predictions: --details."
    with_interval = False
    if stored:
        try:
            figures, with_interval = _with_intervals(figures, table, stored, progress), True
            unsure = " Interval: 95 %, over samples, in resamples that all checkpoints share."
        except DataError as cause:
            unsure = f" No intervals of the wins: {cause}."
    cells = int(figures["cells"].max())
    if others := means.drop_duplicates(["scenario", "prompting", "missing_rate"]).shape[0] - cells:
        unsure = f" The {others} cells that not every checkpoint has are left out.{unsure}"
    rows = []
    for r in figures.to_dict("records"):
        ends = [interval(r["wins_low"], r["wins_high"])] if with_interval else []
        counts = str(r["clear_wins"]), str(r["clear_losses"])
        rows.append((r["checkpoint"], f"{r['mean_rank']:.2f}", percent(r["wins"]), *ends, *counts))
    return Section(
        "standings",
        f"Standings: {table.metric}",
        f"Ranked in each of {cells} cells (scenario, prompting, missing rate) on the mean over "
        f"mask seeds. Wins: % of the comparisons with a rival in a cell. Clear: the 95 % intervals do not overlap; "
        f"`mmrobust compare` tests two against each other.{unsure}",
        ("checkpoint", "mean rank", "wins", *["interval"] * with_interval, "clear wins", "clear losses"),
        1,
        tuple(rows),
        figures,
        better=(-1, 1, *[0] * with_interval, 1, -1),
    )


def _with_intervals(
    figures: pd.DataFrame, table: CurveTable, stored: Mapping[str, Predictions], progress: Progress
) -> pd.DataFrame:
    """The standings with intervals of the wins, from the predictions."""
    joint = joint_standings(stored, table.metric, progress=progress).set_index("checkpoint").loc[figures["checkpoint"]]
    if (np.abs(joint["wins"].to_numpy() - figures["wins"].to_numpy()) > SAME).any():
        raise DataError("the predictions do not give the values of these results")
    return figures.join(joint[["wins_low", "wins_high"]].reset_index(drop=True))


def _prompting(means: pd.DataFrame, table: CurveTable) -> Section | None:
    gap = prompting_gap(means)
    some = set(gap.loc[gap["gap"].abs() > 1e-12, "checkpoint"])
    if not some:
        return None
    same, differs = sorted(set(gap["checkpoint"]) - some), gap["checkpoint"].isin(some)
    note = "Points that situation prompting is above concat, by missing rate η."
    if not table.scale.is_share:
        note = "How much better situation prompting is than concat, in the unit of the metric, by missing rate η."
    note += f" No difference at all: {', '.join(same)}." if same else ""
    columns, rows = _by_rate(gap[differs], ("scenario", "checkpoint"), "gap", table.rates, table.scale.difference)
    return Section("prompting", f"What knowing the case is worth: {table.metric}", note, columns, 2, rows, gap)


def _effective(means: pd.DataFrame, table: CurveTable, baseline: str) -> Section | None:
    figures = effective_robustness(means, baseline)
    if figures.empty:
        return None
    columns, rows = _by_rate(figures, _KEYS, "effective", table.rates[1:], points)
    note = (
        f"Points above what '{baseline}' would have at each missing rate η with the checkpoint's complete value "
        "(a line of slope 1 on the logit scale): robustness beyond being better in all cases alike."
    )
    title = f"Effective robustness against {baseline}: {table.metric}"
    return Section("effective", title, note, columns, 3, rows, figures, better=(1,) * (len(columns) - 3))


def _rates(means: pd.DataFrame, table: CurveTable, report: Report) -> Section | None:
    figures = train_test_rates(means, report.checkpoints)
    if figures.empty:
        return None
    named = figures.assign(
        trained=figures["method"] + " + " + figures["head"],
        under=figures["train_scenario"] + " " + figures["train_rate"].map("{:g}".format),
    )
    labels, scale = ("scenario", "prompting", "trained", "under"), table.scale
    columns, rows = _by_rate(named, labels, "value", table.rates, scale.value)
    note = (
        f"Rows: scenario and missing rate of the training; columns: missing rate η of the test. Values {scale.values}."
    )
    title = f"Train rate × test rate: {table.metric}"
    return Section("rates", title, note, columns, 4, rows, figures, better=(scale.sign,) * (len(columns) - 4))


def _classes(figures: pd.DataFrame, table: CurveTable) -> Section:
    by_checkpoint = figures.groupby("checkpoint", sort=False, observed=True)
    ordered = _stacked({str(name): earliest_breaking(own) for name, own in by_checkpoint})
    rows = []
    for key, own in ordered.groupby(list(_KEYS), sort=True, observed=True):
        first = own.head(FIRST_TO_BREAK).to_dict("records")
        rows.append((*map(str, key), *(_broken(r) for r in first), *[UNKNOWN] * (FIRST_TO_BREAK - len(first))))
    note = (
        f"A class breaks at the lowest missing rate at which its F1 lies more than {100 * BREAKS:g} points below "
        f"that at the lowest rate; in brackets the points lost up to the highest; {UNKNOWN}: no more break. "
        "Means over mask seeds."
    )
    columns = (*_KEYS, "first", "second", "third")
    return Section("classes", f"Classes that break first: {table.dataset}", note, columns, 3, tuple(rows), ordered)


def _worth(figures: pd.DataFrame, table: CurveTable) -> Section | None:
    """What each modality is worth: drop, Shapley value and equity."""
    if figures.empty or "modality" not in figures:
        return None
    order = {modality: place for place, modality in enumerate(dict.fromkeys(figures["modality"]))}
    figures = figures.assign(place=figures["modality"].map(order))
    figures = figures.sort_values(["prompting", "place"], kind="stable", ignore_index=True).drop(columns="place")
    rows, number = [], table.scale.difference
    for row in figures.to_dict("records"):
        cells = []
        for name in ("drop", "shapley"):
            ends = interval(row[f"{name}_low"], row[f"{name}_high"], number)
            cells += [number(row[name]), UNKNOWN if math.isnan(row[name]) else ends]
        cells += [percent(row["share"]), UNKNOWN if math.isnan(row["equity"]) else f"{row['equity']:.2f}"]
        rows.append((row["prompting"], row["modality"], row["checkpoint"], *cells))
    scale = table.scale
    drop = "complete, minus without the modality" if scale.sign > 0 else "the rise without the modality"
    units = "in points" if scale.is_share else "in the unit of the metric, more is more worth,"
    note = (
        f"Over samples that lack nothing by nature, {units} with 95 % intervals. Drop: {drop}. "
        "Shapley value: what it adds, mean over the orders in which modalities can join; no input scores as "
        "the best constant. Share: of the sum. Equity: 1 if all are worth the same, 0 if one is worth everything."
    )
    if figures["shapley"].isna().any():
        note += " Shapley values need every combination at missing rate 1: --scenario missing-A+missing-B."
    columns = ("prompting", "modality", "checkpoint", "drop", "interval", "Shapley", "its interval", "share", "equity")
    shown = len(columns) if figures["shapley"].notna().any() else columns.index("Shapley")
    title, rows = f"What each modality is worth: {table.metric}", [row[:shown] for row in rows]
    return Section("worth", title, note, columns[:shown], 3, tuple(rows), figures, better=(0,) * (shown - 3))


def _broken(row: Mapping[Any, Any]) -> str:
    if math.isnan(row["breaks_at"]):
        return UNKNOWN
    return f"{row['class']} at {row['breaks_at']:g} ({percent(row['lost'])})"


def _reliability(figures: pd.DataFrame, table: CurveTable) -> Section:
    columns, rows = _by_rate(figures, _KEYS, "ece", table.rates)
    note = (
        f"Expected calibration error in points, {BINS} bins, by missing rate η, mean over mask seeds: how far "
        "confidence and being right lie apart. 0 is a model that knows what it does not know."
    )
    title = f"Reliability: {table.dataset}"
    return Section("reliability", title, note, columns, 3, rows, figures, better=(-1,) * (len(columns) - 3))


def _dependence(table: CurveTable, report: Report) -> Section | None:
    """The share of each class that is affected, where missing depends on labels or groups."""
    own = [p for p in report.provenances if set(table.checkpoints) & set(p["checkpoints"]) and p.get("affected_shares")]
    found = [
        {"scenario": scenario, "class": name, "missing_rate": float(rate), "affected": share}
        for provenance in own
        for scenario, rates in provenance["affected_shares"].items()
        for rate, shares in rates.items()
        for name, share in shares.items()
    ]
    if not found:
        return None
    figures = pd.DataFrame(found).drop_duplicates(["scenario", "class", "missing_rate"])
    columns, rows = _by_rate(figures, ("scenario", "class"), "affected", table.rates)
    note = (
        "Missing not at random: of the samples of each class, the share that the scenario affects, in %, by missing "
        "rate η, mean over mask seeds."
    )
    title = f"Missing by class: {table.dataset}"
    return Section("dependence", title, note, columns, 2, rows, figures, better=(0,) * (len(columns) - 2))


def _costs(report: Report, table: CurveTable) -> Section | None:
    found = training_costs({name: report.checkpoints[name] for name in table.checkpoints if name in report.checkpoints})
    if not found:
        return None
    own = next(p["dataset"] for p in report.provenances if found[0].name in p["checkpoints"])
    headline = own.get("headline_metric") or ""
    (_, *columns), *rows = cost_rows(found, headline)
    title, figures = "What the trainings cost", pd.DataFrame([asdict(cost) for cost in found])
    return Section(
        "costs", title, cost_notes(found, headline), ("checkpoint", *columns), 1, tuple(map(tuple, rows)), figures
    )


def _by_rate(
    frame: pd.DataFrame,
    labels: Sequence[str],
    value: str,
    rates: Sequence[float],
    number: Callable[[float], str] = percent,
) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Columns and rows of a table of one value: a row for each combination of ``labels``, a column for each rate."""
    wide = frame.pivot_table(
        index=list(labels), columns="missing_rate", values=value, sort=True, dropna=True, observed=True
    ).reindex(columns=list(rates))
    rows = tuple((*key, *map(number, line)) for key, line in zip(wide.index, wide.to_numpy().tolist(), strict=True))
    return (*labels, *(f"{rate:g}" for rate in rates)), rows


def _stacked(frames: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The frames below one another, the name of each in the column ``checkpoint``."""
    return pd.concat([frame.assign(checkpoint=name) for name, frame in frames.items()], ignore_index=True)
