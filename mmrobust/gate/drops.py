"""Which drops are more than chance: the test of each difference, and the smallest drop that it would have found."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from mmrobust.gate.evidence import Columns, corrected
from mmrobust.gate.figures import figure_of, in_shares, worst_of
from mmrobust.gate.outcome import INCONCLUSIVE, PASS, Cell, Outcome
from mmrobust.gate.rules import FLOOR
from mmrobust.scoring import Bools, Floats
from mmrobust.scoring.significance import detectable, mcnemar, p_values, rules_out, upper_ends
from mmrobust.storage.tasks import RANGES, SHARE

BY_DECISIONS = ("macro_f1", "worst_class")
"""Metrics of a cell that are worse for each sample that is no longer right."""


@dataclass(frozen=True)
class Shown:
    """What the predictions show about the difference in a cell under a rule on the drop."""

    error: float
    """Standard; NaN if the metric is not defined without some samples."""
    degrees: float
    """Of freedom."""
    size: float
    """Number of samples that stands for the error where there is none."""
    few: int | None
    """Samples of the smallest class, where they are too few for the error to hold."""
    identical: bool
    """Whether both sides have the same logits, to the last bit."""
    column: Hashable
    """What identifies the prediction columns."""
    flips: tuple[float, float] | None
    """Samples lost and gained, where these alone decide: the accuracy under one missing table, and what else counts
    decisions where its own test does not hold."""


def show_drops(
    columns: Columns, compared: dict[str, pd.DataFrame], behind: dict[str, str], outcomes: Sequence[Outcome]
) -> dict[Cell, Shown]:
    """What the predictions of a checkpoint show about each of its ``outcomes``; ``behind``: figure → its metric."""
    shown = {}
    rows = {
        metric: {(r["scenario"], r["missing_rate"], r["prompting"]): r for r in frame.to_dict("records")}
        for metric, frame in compared.items()
    }
    for outcome in outcomes:
        row = rows[outcome.metric][outcome.scenario, outcome.missing_rate, outcome.prompting]
        figure = figure_of(outcome.metric)
        at = [key for key in columns.decided if key[2] == outcome.prompting]
        if figure is None or not figure.of_scenarios:
            at = [key for key in at if key[0] == outcome.scenario]
        own = [key for key in at if outcome.missing_rate in (None, key[1])]
        few = None if math.isnan(row["few"]) else int(row["few"])
        flips = None
        if outcome.metric == "accuracy" or (few is not None and outcome.metric in BY_DECISIONS):
            lost, gained, one_table = columns.flips[own[0]]
            flips = (lost, gained) if one_table else None
        shown[outcome.cell] = Shown(
            error=row["error"],
            degrees=row["degrees"],
            size=row["size"],
            few=few,
            # What is put in relation to the complete value is identical only if this is, too.
            identical=columns.identical.issuperset(at if figure else own),
            column=columns.of(outcome.metric, behind[outcome.metric], own[0]),
            flips=flips,
        )
    return shown


def judge_drops(
    outcomes: Sequence[Outcome], shown: dict[Cell, Shown], alpha: float, correction: str, inconclusive: str
) -> tuple[list[Outcome], int]:
    """The outcomes with their p-values and intervals, and the number of tests.

    A drop that is not significant does not fail, nor does one where too few samples stand behind the test, unless the
    samples lost and gained show it exactly. Where it does not fail and is not ruled out, though one as large as its
    limit could not have been found, or the samples are too few, the outcome is inconclusive.
    """
    tested = [place for place, o in enumerate(outcomes) if o.kind != FLOOR and o.cell in shown]
    evidence = [shown[outcomes[place].cell] for place in tested]
    sign = np.asarray([outcomes[place].sign for place in tested])
    difference = sign * np.asarray([outcomes[place].difference for place in tested])
    error, degrees, size = np.asarray([(of.error, of.degrees, of.size) for of in evidence]).reshape(-1, 3).T
    flipped = np.asarray([of.flips is not None for of in evidence], dtype=np.bool_)
    p = drop_p_values(difference, evidence)
    degrees = np.where(flipped, np.inf, degrees)
    adjusted, tests = corrected(p, [of.column for of in evidence], correction)
    # The level at which each cell is tested, so that its interval and its corrected p-value agree.
    level = alpha * np.divide(p, adjusted, out=np.full(len(p), 1 / max(tests, 1)), where=adjusted > 0)
    at_most = sign * upper_ends(difference, _error_of(p, difference, error, flipped), degrees, level)
    found = detectable(error, degrees, size, alpha / tests if correction == "holm" and tests else alpha)
    allowed = np.asarray([outcomes[place].allowed for place in tested])
    ruled_out = rules_out(difference, error, degrees, size, allowed, alpha)
    judged = list(outcomes)
    for number, (place, of) in enumerate(zip(tested, evidence, strict=True)):
        outcome = replace(judged[place], few=of.few)
        holds = of.few is None or of.flips is not None
        if math.isnan(p[number]):  # without some samples the metric is not defined: nothing can be said about chance
            outcome = replace(outcome, verdict=outcome.verdict if holds else PASS, detectable=largest_drop(outcome))
        else:
            outcome = replace(
                outcome,
                verdict=outcome.verdict if holds and adjusted[number] <= alpha else PASS,
                p_value=float(min(adjusted[number], 1.0)),
                at_most=float(_within(at_most[number], outcome)),
                ruled_out=bool(ruled_out[number]),
                # The same logits are the same model there: nothing has changed that more samples would show.
                detectable=0.0 if of.identical else float(min(found[number], largest_drop(outcome))),
            )
        if outcome.unsure and inconclusive != PASS:
            outcome = replace(outcome, verdict=INCONCLUSIVE)
        judged[place] = outcome
    return judged, tests


def largest_drop(outcome: Outcome) -> float:
    """The largest drop there could be."""
    least, most = SHARE if in_shares(outcome.metric) else RANGES.get(outcome.metric.rpartition(".")[2], SHARE)
    return most - least


def hides_any(outcome: Outcome) -> bool:
    """Whether not even the loss of all that the baseline has would be found."""
    return (outcome.detectable or -math.inf) >= abs(outcome.baseline - worst_of(outcome.metric))


def _within(at_most: float, outcome: Outcome) -> float:
    """The end of an interval, where the candidate's value would lie beyond the range of its metric, at that range."""
    low, high = RANGES.get(outcome.metric, (-math.inf, math.inf))
    return min(max(at_most, low - outcome.baseline), high - outcome.baseline)


def drop_p_values(difference: Floats, evidence: Sequence[Shown]) -> Floats:
    """One-sided p-values [K] of differences [K], small where the candidate is worse, from what predictions show.

    McNemar's test where the samples lost and gained alone decide, else Student's.
    """
    error, degrees = np.asarray([(of.error, of.degrees) for of in evidence]).reshape(-1, 2).T
    p = p_values(difference, error, degrees, two_sided=False)
    flipped = [number for number, of in enumerate(evidence) if of.flips is not None]
    if flipped:
        lost, gained = np.transpose([evidence[number].flips or (0.0, 0.0) for number in flipped])
        p[flipped] = mcnemar(lost, gained, two_sided=False)
    return p


def _error_of(p: Floats, difference: Floats, error: Floats, flipped: Bools) -> Floats:
    """The standard errors of the intervals: where ``flipped``, those of a normal test with these p-values, to agree."""
    from scipy.special import ndtri

    z = np.where(flipped & (difference != 0), ndtri(np.clip(p, 1e-300, 1 - 1e-16)), np.nan)
    return np.where(np.isnan(z) | (z == 0), error, np.abs(difference / np.where(z == 0, np.nan, z)))
