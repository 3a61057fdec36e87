"""The gate with predictions: it catches what is there, and lets pass what chance does."""

from __future__ import annotations

import functools
import re

import numpy as np
import pytest
from scipy.special import ndtri
from scipy.stats import binom

from mmrobust.cases import missing_cases
from mmrobust.errors import DataError, NotComparableError, UsageError
from mmrobust.gate.check import check, check_files
from mmrobust.gate.rules import parse_rule
from mmrobust.scenarios.draws import ScenarioDraw
from mmrobust.scenarios.grid import Grid
from mmrobust.scenarios.scenario import Scenario
from mmrobust.scoring.join import ScoringSettings, score
from mmrobust.scoring.predictions import Predictions
from mmrobust.scoring.truth import SplitTruth
from mmrobust.storage.results import Results, read_results, write_results

MODALITIES = ("image", "text")
GRID = Grid(("missing-image", "missing-text"), (0.0, 0.5, 1.0), (0, 1), ("situation",))


@functools.cache
def truth_of(samples):
    labels = np.random.default_rng(0).integers(0, 2, samples)
    return SplitTruth(
        tuple(f"s{i}" for i in range(samples)), tuple((int(c),) for c in labels), MODALITIES, 2, "single-label"
    )


def evaluated(right, samples, grid=GRID):
    """Results and predictions of a model that is right where ``right`` says: case → [N]."""
    truth = truth_of(samples)
    sign = np.where(np.asarray(truth.labels)[:, 0] == 1, 1.0, -1.0)
    logits = {}
    for case, hits in right.items():
        scores = (sign * np.where(hits, 1.0, -1.0)).astype(np.float32)
        logits[case, "situation"] = np.stack([-scores, scores], axis=1)
    about = {"method": "mmp", "head": "linear", "backbone": "tiny-vilt"}
    dataset = {"name": "d", "fingerprint": "0", "split": "test", "task": "single-label", "headline_metric": "accuracy"}
    provenance = {"dataset": {**dataset, "classes": ["a", "b"]}, "checkpoints": {"mmp": {"fill": "ones"}}}
    frame = score(Predictions(truth, logits), truth.draw_grid(grid), ScoringSettings(resamples=0), metrics=["accuracy"])
    results = Results(frame.assign(checkpoint="mmp", dataset="d", split="test", **about), provenance)
    return results, Predictions(truth, logits, tuple(grid.cells()))


@functools.cache
def template(samples, grid):
    """Results of a grid to put values into, and for each of their rows who is in which of the cases [rows, N]."""
    cases = [case.name for case in missing_cases(MODALITIES)]
    results, _ = evaluated(dict.fromkeys(cases, np.ones(samples, dtype=bool)), samples, grid)
    tables = []
    for row in results.frame.itertuples():
        draw = ScenarioDraw(truth_of(samples).ids, Scenario.parse(row.scenario, MODALITIES), row.seed)
        tables.append([cases.index(name) for name in draw.table(row.missing_rate)])
    return results, np.asarray(tables)


def evaluated_fast(right, samples, grid):
    """The same as :func:`evaluated`, for many models: nothing but the predictions and the values differs."""
    results, tables = template(samples, grid)
    values = np.stack(list(right.values()))[tables, np.arange(samples)].mean(axis=1)
    sign = np.where(np.asarray(truth_of(samples).labels)[:, 0] == 1, 1.0, -1.0)
    scores = {case: (sign * np.where(hits, 1.0, -1.0)).astype(np.float32) for case, hits in right.items()}
    logits = {(case, "situation"): np.stack([-score, score], axis=1) for case, score in scores.items()}
    stored = Predictions(truth_of(samples), logits, tuple(grid.cells()))
    return Results(results.frame.assign(value=values), results.provenance), stored


def judged(before, after, *rules, **settings):
    (baseline, theirs), (candidate, ours) = before, after
    given = [parse_rule(rule) for rule in rules]
    return check(candidate, baseline, given, readers=(lambda _: theirs, lambda _: ours), **settings)


def model(random, samples, hardness, churn=0.1, level=0.8):
    """Where a model is right: easy samples mostly, with its own errors on top, in every case."""
    return {case.name: (hardness < level) ^ (random.random(samples) < churn) for case in missing_cases(MODALITIES)}


@pytest.mark.parametrize("samples", [300, 2000])
def test_three_points_at_one_rate_are_caught_and_the_cell_named(samples):
    random = np.random.default_rng(1)
    before = model(random, samples, random.random(samples))
    draws = [ScenarioDraw(truth_of(samples).ids, Scenario.parse("missing-text", MODALITIES), seed) for seed in (0, 1)]
    at_half = set(np.concatenate([draw.affected(0.5) for draw in draws]).tolist())
    hit = [i for i in range(samples) if i not in at_half and before["missing-text"][i]][: round(0.03 * samples)]
    assert len(hit) == round(0.03 * samples)  # samples whose text is missing at the rate 1 alone
    after = {case: hits.copy() for case, hits in before.items()}
    after["missing-text"][hit] = False
    verdict = judged(evaluated(before, samples), evaluated(after, samples))
    (failure,) = verdict.failures
    assert (failure.scenario, failure.missing_rate) == ("missing-text", 1.0)
    assert failure.difference == pytest.approx(-0.03)
    assert failure.at_most < 0
    assert failure.p_value < 0.05


def test_the_same_model_with_another_seed_passes():
    random = np.random.default_rng(2)
    hardness = random.random(1000)
    before = evaluated(model(random, 1000, hardness), 1000)
    for _ in range(5):
        assert not judged(before, evaluated(model(random, 1000, hardness), 1000)).failures


def test_200_null_comparisons_raise_false_alarms_at_no_more_than_the_nominal_rate():
    """Equally good models with errors of their own, under the rule that stands by default, and without any limit."""
    random, alarms, without_limit = np.random.default_rng(3), 0, 0
    grid = Grid(GRID.scenarios, (0.0, 0.6, 0.7, 0.8, 0.9, 1.0), (0,), ("situation",))
    for _ in range(200):
        hardness = random.random(200)
        before, after = (evaluated_fast(model(random, 200, hardness), 200, grid) for _ in range(2))
        verdict = judged(before, after, "accuracy:-0")
        assert all(outcome.p_value is not None for outcome in verdict.outcomes)  # the predictions give these values
        without_limit += bool(verdict.failures)
        alarms += any(outcome.difference < -0.01 for outcome in verdict.failures)
    assert alarms <= 0.05 * 200
    assert binom.sf(without_limit - 1, 200, 0.05) > 0.01  # no sign of a rate above the nominal one
    assert without_limit > 0


def test_a_drop_that_chance_would_do_passes_and_is_told():
    random = np.random.default_rng(4)
    hardness = random.random(100)
    before = model(random, 100, hardness)
    after = {case: hits.copy() for case, hits in before.items()}
    after["missing-text"][np.flatnonzero(before["missing-text"])[:5]] = False
    after["missing-text"][np.flatnonzero(~before["missing-text"])[:3]] = True
    sides = evaluated(before, 100), evaluated(after, 100)
    verdict = judged(*sides)
    assert (verdict.value, verdict.failed) == ("inconclusive", False)
    assert any(outcome.below_limit for outcome in verdict.outcomes)
    assert any("below the limit, by no more than chance would do" in note for note in verdict.notes)
    assert not check(sides[1][0], sides[0][0]).passed  # the limit alone


def test_correction_and_alpha_decide_how_sure_is_sure():
    random = np.random.default_rng(5)
    before = model(random, 200, random.random(200))
    after = {case: hits.copy() for case, hits in before.items()}
    after["missing-text"][np.flatnonzero(before["missing-text"])[:4]] = False
    sides = evaluated(before, 200), evaluated(after, 200)
    assert not judged(*sides).failures
    assert {o.scenario for o in judged(*sides, correction="none").failures} == {"missing-text"}
    assert judged(*sides, alpha=0.3).failures
    with pytest.raises(UsageError, match="unknown correction 'hol': did you mean 'holm'"):
        judged(*sides, correction="hol")
    with pytest.raises(UsageError, match=r"alpha 1\.5 is not between 0\.0001 and 0\.5"):
        judged(*sides, alpha=1.5)


def test_the_interval_and_the_corrected_p_value_say_the_same():
    random = np.random.default_rng(6)
    hardness = random.random(300)
    before, after = model(random, 300, hardness), model(random, 300, hardness, level=0.76)
    verdict = judged(evaluated(before, 300), evaluated(after, 300), "accuracy:-0")
    assert {outcome.verdict for outcome in verdict.outcomes} == {"fail", "inconclusive"}
    for outcome in verdict.outcomes:
        assert (outcome.at_most < 0) == (outcome.p_value < 0.05)


def test_a_floor_is_a_limit_alone():
    random = np.random.default_rng(7)
    side = evaluated(model(random, 300, random.random(300)), 300)
    verdict = judged(side, side, "accuracy:-0.01", "accuracy>=0.99")
    assert {o.kind for o in verdict.failures} == {"floor"}
    assert all(o.p_value is None for o in verdict.failures)


def test_the_smallest_drop_that_the_data_could_show_is_told():
    random = np.random.default_rng(8)
    hardness = random.random(300)
    verdict = judged(*(evaluated(model(random, 300, hardness), 300) for _ in range(2)))
    assert any(note.startswith("smallest true drop that would be found in a cell, corrected") for note in verdict.notes)
    z = ndtri(1 - 0.05 / 5) + ndtri(0.8)  # five distinct columns: at the rate 0 both scenarios are the same
    largest = max(outcome.detectable for outcome in verdict.outcomes)
    assert largest == pytest.approx(z * np.sqrt((0.18 + largest) / 300), rel=0.15)  # 18 % disagree
    assert verdict.largest_detectable == max(outcome.detectable for outcome in verdict.inconclusive)
    for outcome in verdict.outcomes:
        assert outcome.verdict == ("pass" if outcome.ruled_out else "inconclusive")


def test_a_clearly_better_candidate_passes_where_a_drop_could_not_have_been_found():
    random = np.random.default_rng(9)
    hardness = random.random(300)
    before, after = model(random, 300, hardness, level=0.6), model(random, 300, hardness, level=0.9)
    verdict = judged(evaluated(before, 300), evaluated(after, 300))
    assert verdict.passed
    assert all(o.ruled_out and o.detectable > o.allowed for o in verdict.outcomes)
    assert judged(evaluated(after, 300), evaluated(before, 300)).failures


def test_without_predictions_the_limit_alone_decides_and_the_reason_is_told(tmp_path, evaluate_into):
    for name in ("before", "after"):
        evaluate_into(tmp_path / name)
    for shard in (tmp_path / "before" / "predictions").iterdir():
        shard.unlink()
    verdict = check_files(tmp_path / "after", tmp_path / "before")
    assert "limit alone: no paired interval" in verdict.warnings
    (reason,) = (note for note in verdict.warnings if note.startswith("'mmp' is judged by the limit alone"))
    assert "before/predictions: holds no predictions of 'mmp'" in reason


def test_predictions_that_do_not_give_the_results_are_not_trusted(tmp_path, evaluate_into):
    for name in ("before", "after"):
        evaluate_into(tmp_path / name)
    frame, provenance = read_results(tmp_path / "after")
    planted = frame.assign(value=frame["value"] - 0.03 * (frame["missing_rate"] == 1.0))
    write_results(tmp_path / "after" / "results.parquet", planted, provenance)
    with pytest.raises(
        DataError, match="the candidate's predictions of 'mmp' do not give the accuracy that its results"
    ):
        check_files(tmp_path / "after", tmp_path / "before")


def test_a_real_pair_is_decided_by_its_predictions(tmp_path, evaluate_into):
    evaluate_into(tmp_path / "before")
    evaluate_into(tmp_path / "after", lost={"missing-text": 2.5, "missing-image": 0.3})
    verdict = check_files(tmp_path / "after", tmp_path / "before")
    assert {o.scenario for o in verdict.failures} == {"missing-text", "missing-both"}
    assert check_files(tmp_path / "before", tmp_path / "before").passed
    assert not check_files(tmp_path / "after", tmp_path / "before", stats=False).passed


@pytest.mark.parametrize(
    ("scoring", "message"),
    [
        ({"threshold": 0.4}, "the threshold differs: candidate 0.4, baseline 0.5"),
        ({"f1_absent": "skip"}, "the treatment of absent classes differs: candidate skip, baseline zero"),
    ],
)
def test_metrics_that_count_otherwise_are_not_comparable(tmp_path, evaluate_into, scoring, message):
    evaluate_into(tmp_path)
    baseline, candidate = read_results(tmp_path), read_results(tmp_path)
    candidate.provenance["scoring"] = scoring
    with pytest.raises(NotComparableError, match=re.escape(message)):
        check(candidate, baseline)
