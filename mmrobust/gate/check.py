"""The regression gate: whether a candidate is as good as its baseline.

What is compared is the mean over mask seeds in each (checkpoint, scenario, missing rate, prompting, metric). Mask seeds
repeat one measurement: a limit on every single seed would fail more often the more seeds there are, with nothing having
changed. Both sides must have the same seeds, so that both means are over the same missing tables.

In each cell the most specific rule on the drop decides (metric, then scenario, then missing rate), and so does the most
specific floor: a floor does not lift a limit on the drop. A cell without a rule is not judged.

A drop fails if it passes its limit *and* is significant: the one-sided interval of the paired difference (see
:mod:`mmrobust.scoring.paired`; for the accuracy under one missing table, McNemar's test), corrected for the number of
distinct prediction columns, lies below zero. For a floor
the limit alone always decides. A drop that did not fail is inconclusive where the data could not have shown one as
large as the limit.

The gate fails closed: predictions are held against the table wherever they are, and what contradicts it is an error.
Only if a side has no predictions at all does the limit alone decide, and the verdict says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from mmrobust.errors import DataError, NoPredictionsError, NotComparableError, UsageError, check_name, unknown_name
from mmrobust.gate.comparable import MEAN_KEYS, check_statistics, comparable_checkpoints, pair_cells
from mmrobust.gate.drops import Shown, hides_any, judge_drops, show_drops
from mmrobust.gate.evidence import PredictionReader, columns_of, read_pair
from mmrobust.gate.figures import FIGURES, figure_of, in_shares, metric_behind, worst_of
from mmrobust.gate.outcome import FAIL, INCONCLUSIVE_AS, PASS, WARN, Cell, Outcome, Verdict, worst_first
from mmrobust.gate.rules import DROP, DROP_PERCENT, FLOOR, Rule
from mmrobust.runtime.progress import Progress, no_progress
from mmrobust.scoring.paired import PAIR_KEYS, Pair, differences
from mmrobust.scoring.store import predictions_behind
from mmrobust.storage.results import RESULTS_FILE, Results, read_results
from mmrobust.storage.tasks import sign_of

DEFAULT_DROP = 0.01
"""What the headline metric may lose in any cell if no rules are given: of an error, as a share of the baseline's."""
DEFAULT_ALPHA = 0.05
LIMIT_ALONE = "limit alone: no paired interval"


def check(
    candidate: Results,
    baseline: Results,
    rules: Sequence[Rule] = (),
    *,
    readers: tuple[PredictionReader, PredictionReader] | None = None,
    stats: bool = True,
    alpha: float = DEFAULT_ALPHA,
    correction: str = "holm",
    inconclusive: str = WARN,
    progress: Progress = no_progress,
) -> Verdict:
    """Compare ``candidate`` with ``baseline``.

    Args:
        candidate: the results to judge.
        baseline: the results to judge by.
        rules: at most one for the same cells; without any, the headline metric may lose 0.01 anywhere, an error rise
            by 1 %.
        readers: give the predictions of a checkpoint of the baseline, and of the candidate; if ``None``, there are
            none, and the limits alone decide.
        stats: whether the predictions decide together with the limits; if ``False``, they are only held against the
            results.
        alpha: probability that a comparison of equals fails by chance: over all cells with ``holm``, else per cell.
        correction: of the p-values for the number of distinct prediction columns: ``holm`` or ``none``.
        inconclusive: what a cell counts as whose data could not have shown a drop as large as its limit: ``warn``,
            ``fail`` or ``pass``.
        progress: counts the cells whose predictions are held against the results.

    Raises:
        NotComparableError: data, split, task, metric, fill, noise or metric settings differ; cells, seeds or
            checkpoints of the baseline are missing in the candidate; the numbers of samples differ; a value is not
            defined; or a figure that a rule names needs predictions, and a side has none.
        DataError: predictions cannot be read, do not give the values of their results, or have other labels than those
            of the other side.
        UsageError: a rule covers no cell, ``alpha`` is out of range, or the correction is unknown.
    """
    check_statistics(alpha, correction)
    check_name("--inconclusive", inconclusive, INCONCLUSIVE_AS)
    names = comparable_checkpoints(candidate, baseline)
    before = baseline.frame.assign(checkpoint=baseline.frame["checkpoint"].map(names))
    after = candidate.frame[candidate.frame["checkpoint"].isin(list(names.values()))]
    headline = baseline.headline_metric
    usual = (DROP, DEFAULT_DROP) if sign_of(headline) > 0 else (DROP_PERCENT, 100 * DEFAULT_DROP)
    rules = [rule.of_headline(headline) for rule in rules or (Rule(headline, None, None, *usual),)]
    _refuse_unused(rules, before)

    known = sorted(before["metric"].unique())
    metrics = list(dict.fromkeys(metric_behind(rule.metric, headline, known) for rule in rules))
    means = pair_cells(before[before["metric"].isin(metrics)], after)
    outcomes: list[Outcome] = []
    shown: dict[Cell, Shown] = {}
    warnings: list[str] = []
    for theirs, ours in names.items():
        cells = means[means["checkpoint"] == ours]
        try:
            if readers is None:
                raise NoPredictionsError("they were not given")
            pair = read_pair(readers, (baseline, candidate), (theirs, ours), metrics, progress)
        except NoPredictionsError as none:
            outcomes += _judge(cells.to_dict("records"), rules)
            warnings += [f"'{ours}' is judged by the limit alone: {none}"] * (readers is not None)
            if unread := [rule for rule in rules if figure_of(rule.metric)]:
                raise NotComparableError(f"rule '{unread[0]}' needs the predictions of both sides: {none}") from none
            continue
        columns = columns_of(pair, ours, pair.baseline.dataset.get("classes") or ())
        warnings += columns.remarks
        compared = _compare(pair, ours, cells, rules, headline)
        del pair  # its logits would be in memory beside those of the next checkpoint
        own = _judge([row for frame in compared.values() for row in frame.to_dict("records")], rules)
        outcomes += own
        if stats:
            drops = [outcome for outcome in own if outcome.kind != FLOOR]
            shown |= show_drops(columns, compared, {m: metric_behind(m, headline, known) for m in compared}, drops)
    _refuse_uncovered(rules, outcomes)
    outcomes, tests = judge_drops(outcomes, shown, alpha, correction, inconclusive)
    notes = _basis(outcomes, alpha, correction, tests)
    warnings += [*_limits_alone(outcomes, stats), *_cannot_fail(outcomes)]
    if inconclusive == PASS and (unsure := sum(outcome.unsure and outcome.passed for outcome in outcomes)):
        warnings.append(f"{unsure} inconclusive cell{'s' * (unsure > 1)} counted as passed (--inconclusive pass)")
    unjudged = Counter(before.drop_duplicates(["checkpoint", *MEAN_KEYS])["metric"])
    unjudged.subtract(metric for *_, metric in {outcome.cell for outcome in outcomes} if metric in unjudged)
    if unjudged := +unjudged:
        listed = ", ".join(f"{count} of {metric}" for metric, count in sorted(unjudged.items()))
        notes.append(f"{unjudged.total()} cells of the baseline are under no rule: {listed}")
    new = (
        after[list(MEAN_KEYS)]
        .drop_duplicates()
        .merge(before[list(MEAN_KEYS)].drop_duplicates(), how="left", indicator=True)
    )
    if unknown := int((new["_merge"] == "left_only").sum()):
        warnings.append(f"{unknown} cells of the candidate are not in the baseline, and were not compared")
    if extra := sorted(set(candidate.frame["checkpoint"]) - set(names.values())):
        notes.append(f"not in the baseline, not compared: {', '.join(extra)}")
    return Verdict(tuple(sorted(outcomes, key=worst_first)), tuple(notes), tuple(warnings), inconclusive)


def check_files(
    candidate: Path,
    baseline: Path,
    rules: Sequence[Rule] = (),
    *,
    stats: bool = True,
    alpha: float = DEFAULT_ALPHA,
    correction: str = "holm",
    inconclusive: str = WARN,
    progress: Progress = no_progress,
) -> Verdict:
    """Run :func:`check` on the results in two files or folders, with the predictions behind them.

    All other arguments are those of :func:`check`.

    Raises:
        DataError: results are missing or cannot be read; or as for :func:`check`.
        NotComparableError, UsageError: as for :func:`check`.
    """
    after, before = read_results(candidate), read_results(baseline, "mmrobust baseline save RESULTS")
    readers = partial(predictions_behind, baseline, before), partial(predictions_behind, candidate, after)
    settings: dict[str, Any] = {"alpha": alpha, "correction": correction, "inconclusive": inconclusive}
    settings["progress"] = progress
    verdict = check(after, before, rules, readers=readers, stats=stats, **settings)
    files = [(path / RESULTS_FILE if path.is_dir() else path).resolve() for path in (candidate, baseline)]
    if files[0].samefile(files[1]):
        own = f"candidate and baseline are the same file, {files[0]}: nothing was compared with anything else"
        verdict = replace(verdict, warnings=(own, *verdict.warnings))
    return verdict


def _refuse_unused(rules: Iterable[Rule], cells: pd.DataFrame) -> None:
    """Raise if a rule covers no cell: a mistyped rule must not look like one that passed."""
    known = cells[["metric", "scenario", "missing_rate"]].drop_duplicates()
    for rule in rules:
        # A figure stands in no table: it applies wherever there are cells.
        own = known if figure_of(rule.metric) is None else known.assign(metric=rule.metric)
        if any(rule.covers(*cell) for cell in own.itertuples(index=False, name=None)):
            continue
        for kind, name, column in (("metric", rule.metric, "metric"), ("scenario", rule.scenario, "scenario")):
            there = [*sorted(own[column].unique()), *(FIGURES if column == "metric" else ())]
            if name is not None and name not in there:
                raise UsageError(f"rule '{rule}' applies to no cell of the baseline: {unknown_name(kind, name, there)}")
        rates = ", ".join(f"{rate:g}" for rate in sorted(known["missing_rate"].unique()))
        raise UsageError(f"rule '{rule}' applies to no cell of the baseline, whose missing rates are {rates}")


def _refuse_uncovered(rules: Iterable[Rule], outcomes: Sequence[Outcome]) -> None:
    """Raise if a figure that a rule names is defined in no cell."""
    for rule in rules:
        if not any(rule.covers(o.metric, o.scenario, o.missing_rate) for o in outcomes):
            raise UsageError(f"rule '{rule}' applies to no cell of the baseline: {rule.metric} is not defined there")


def _compare(
    pair: Pair, name: str, cells: pd.DataFrame, rules: Sequence[Rule], headline: str
) -> dict[str, pd.DataFrame]:
    """What the rules name, in every cell or curve of a checkpoint where it is defined.

    Returns:
        Metric or figure → one row per cell: the columns of an :class:`Outcome` as far as no rule decides them, and
        ``error``, ``degrees``, ``few``, ``size`` where a rule limits its drop.
    """
    compared = {}
    for metric in dict.fromkeys(rule.metric for rule in rules):
        of_rules = [rule for rule in rules if rule.metric == metric]
        figure = figure_of(metric)
        if figure is None:
            own = cells[cells["metric"] == metric]
            if any(rule.kind != FLOOR for rule in of_rules):
                found = differences(pair, metric)[[*PAIR_KEYS, "error", "degrees", "few", "size"]]
                own = own.merge(found, on=list(PAIR_KEYS), how="left", indicator="shown")
                if (lacking := own[own["shown"] == "left_only"]).size:
                    where = f"{lacking['scenario'].iloc[0]}/{lacking['missing_rate'].iloc[0]:g}"
                    raise DataError(f"there are no predictions of '{name}' for {metric} at {where}")
                own = own.drop(columns="shown")
            compared[metric] = own
            continue
        own = figure.compare(pair, metric.partition(".")[2] or (headline if figure.of_metric else metric))
        own = own[~(own["baseline"].isna() & own["candidate"].isna())]
        if (lacking := own[own["baseline"].isna() | own["candidate"].isna()]).size:
            raise NotComparableError(
                f"{metric} of '{name}' at {lacking['scenario'].iloc[0]} is defined on one side only"
            )
        if "missing_rate" not in own:
            own = own.assign(missing_rate=None)
        kept = [*PAIR_KEYS, "baseline", "candidate", "error", "degrees", "few", "size"]
        compared[metric] = own[kept].assign(checkpoint=name, metric=metric, seeds=cells["seeds"].max())
    return compared


_OF_OUTCOME = ("checkpoint", "scenario", "missing_rate", "prompting", "metric", "seeds", "baseline", "candidate")


def _judge(cells: Iterable[dict[Any, Any]], rules: Sequence[Rule]) -> list[Outcome]:
    """Judge cells by the limits of the deciding drop and of the deciding floor, each where there is one."""
    outcomes = []
    for cell in cells:
        covering = [r for r in rules if r.covers(cell["metric"], cell["scenario"], cell["missing_rate"])]
        kinds = ([r for r in covering if r.kind != FLOOR], [r for r in covering if r.kind == FLOOR])
        for rule in (max(kind, key=lambda rule: rule.specificity) for kind in kinds if kind):
            worse = -1 if rule.less_is_better else 1
            limit = {
                DROP: cell["baseline"] - worse * rule.limit,
                DROP_PERCENT: cell["baseline"] * (1 - worse * rule.limit / 100),
                FLOOR: rule.limit,
            }[rule.kind]
            of_cell = {name: cell[name] for name in _OF_OUTCOME}
            decided = {"rule": str(rule), "kind": rule.kind, "limit": limit, "less_is_better": rule.less_is_better}
            outcome = Outcome(**of_cell, **decided, verdict=PASS)
            outcomes.append(replace(outcome, verdict=FAIL) if outcome.below_limit else outcome)
    return outcomes


def _basis(outcomes: Sequence[Outcome], alpha: float, correction: str, tests: int) -> list[str]:
    """Notes on how the outcomes were decided."""
    tested = [outcome for outcome in outcomes if outcome.p_value is not None]
    if not tested:
        return []
    over = f"Holm over {tests} distinct columns of {len(tested)} cells" if correction == "holm" else "uncorrected"
    notes = [f"a drop fails below its limit and where its paired interval lies below zero (α {alpha:g}, {over})"]
    # Where both sides have the same logits (0), there is nothing to find; where even the loss of everything would hide,
    # nothing can be found.
    changed = [outcome for outcome in tested if outcome.detectable]
    shown = sorted(o.detectable for o in changed if o.detectable is not None and not hides_any(o))
    smallest = "smallest true drop that would be found in a cell, corrected, with 80 % power: "
    if shown and all(in_shares(outcome.metric) for outcome in tested):
        notes.append(f"{smallest}{100 * shown[len(shown) // 2]:.1f} points (median), {100 * shown[-1]:.1f} (largest)")
    elif shown and len({outcome.metric for outcome in tested}) == 1:  # in one unit
        notes.append(f"{smallest}{shown[len(shown) // 2]:.4g} (median), {shown[-1]:.4g} (largest)")
    if hidden := len(changed) - len(shown):
        notes.append(f"in {hidden} of {len(tested)} cells no drop could be found: the samples are too few")
    below = [outcome for outcome in tested if outcome.verdict != FAIL and outcome.below_limit]
    few = sum(outcome.few is not None for outcome in below)
    for count, why in (
        (len(below) - few, "by no more than chance would do"),
        (few, "with too few samples for the test to hold"),
    ):
        notes += [f"{count} cell{'s' * (count > 1)} below the limit, {why}"] * bool(count)
    return notes


def _limits_alone(outcomes: Sequence[Outcome], stats: bool) -> list[str]:
    """Why no statistics stand behind the verdict, where none do."""
    drops = [outcome for outcome in outcomes if outcome.kind != FLOOR]
    if not drops:
        return ["no rule limits a drop: the baseline's values decide nothing"]
    if any(outcome.detectable is not None for outcome in drops):
        return []
    return [LIMIT_ALONE if stats else f"{LIMIT_ALONE} (--no-stats)"]


def _cannot_fail(outcomes: Sequence[Outcome]) -> list[str]:
    """Rules that no candidate could break."""
    void = [outcome for outcome in outcomes if outcome.sign * (outcome.limit - worst_of(outcome.metric)) <= 0]
    cells = Counter(outcome.rule for outcome in void)
    return [
        f"rule {rule} cannot fail in {count} cell{'s' * (count > 1)}: no value there is worse than its limit"
        for rule, count in cells.items()
    ]
