"""The gate: a planted regression is caught and named, and what cannot be compared is never a pass."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from mmrobust.cases import missing_cases
from mmrobust.errors import DataError, NotComparableError, UsageError
from mmrobust.gate.check import LIMIT_ALONE, check, check_files
from mmrobust.gate.rules import parse_rule
from mmrobust.scenarios.grid import Grid
from mmrobust.scoring.join import ScoringSettings, score
from mmrobust.scoring.predictions import Predictions
from mmrobust.scoring.truth import SplitTruth
from mmrobust.storage.results import Results
from mmrobust.testing import assert_robust

MODALITIES = ("image", "text")
GRID = Grid(("missing-image", "missing-text"), (0.0, 0.7, 1.0), (0, 1, 2), ("situation",))


def evaluated(name="mmp", wrong=20, grid=GRID):
    """Results of a model that is right on all of 100 samples, but for ``wrong`` of them where the image is missing."""
    labels = np.arange(100) % 2
    truth = SplitTruth(
        tuple(f"s{i}" for i in range(100)), tuple((int(c),) for c in labels), MODALITIES, 2, "single-label"
    )
    right = np.eye(2, dtype=np.float32)[labels]
    logits = {(case.name, "situation"): right.copy() for case in missing_cases(MODALITIES)}
    logits["missing-image", "situation"][:wrong] *= -1
    about = {"method": "mmp", "head": "linear", "backbone": "tiny-vilt"}
    dataset = {"name": "digits", "fingerprint": "0123", "split": "test", "task": "single-label"}
    provenance = {
        "dataset": {**dataset, "headline_metric": "accuracy", "classes": ["even", "odd"]},
        "checkpoints": {name: {"fill": "ones", **about}},
    }
    frame = score(Predictions(truth, logits), truth.draw_grid(grid), ScoringSettings(resamples=0))
    return Results(frame.assign(checkpoint=name, dataset="digits", split="test", **about), provenance)


def judged(verdict):
    return {(o.metric, o.scenario, o.missing_rate): o for o in verdict.outcomes}


def rules(*texts):
    return [parse_rule(text) for text in texts]


def test_the_same_results_pass():
    verdict = check(evaluated(), evaluated())
    assert verdict.passed
    assert len(verdict.outcomes) == 6
    assert {o.rule for o in verdict.outcomes} == {"accuracy:-0.01"}
    assert {o.difference for o in verdict.outcomes} == {0.0}
    assert LIMIT_ALONE in verdict.warnings


def test_a_planted_regression_is_caught_and_named_worst_first():
    verdict = check(evaluated(wrong=23), evaluated(wrong=20))
    worst = verdict.outcomes[0]
    assert not verdict.passed
    assert (worst.scenario, worst.missing_rate, worst.difference) == ("missing-image", 1.0, pytest.approx(-0.03))
    assert {o.scenario for o in verdict.failures} == {"missing-image"}
    assert [o.passed for o in verdict.outcomes] == sorted(o.passed for o in verdict.outcomes)


def test_three_points_at_one_rate_are_caught_at_that_rate():
    frame, provenance = evaluated()
    planted = frame.assign(
        value=frame.value - 0.03 * ((frame.missing_rate == 0.7) & (frame.scenario == "missing-text"))
    )
    (failure,) = check(Results(planted, provenance), evaluated()).failures
    assert (failure.metric, failure.scenario, failure.missing_rate) == ("accuracy", "missing-text", 0.7)


def test_what_is_compared_is_the_mean_over_mask_seeds():
    frame, provenance = evaluated()
    shifts = frame.seed.map({0: -0.05, 1: 0.02, 2: 0.02})  # one seed alone is beyond the limit, the mean is not
    assert check(Results(frame.assign(value=frame.value + shifts), provenance), evaluated()).passed


def test_a_drop_of_exactly_the_limit_passes():
    assert check(evaluated(wrong=21), evaluated(wrong=20), rules("accuracy:-0.01")).passed
    assert not check(evaluated(wrong=21), evaluated(wrong=20), rules("accuracy:-0.009")).passed


def test_a_relative_limit_is_a_share_of_the_baseline():
    outcome = judged(check(evaluated(wrong=24), evaluated(wrong=20), rules("accuracy:-5%")))
    assert outcome["accuracy", "missing-image", 1.0].limit == pytest.approx(0.8 * 0.95)
    assert outcome["accuracy", "missing-image", 1.0].passed
    assert not check(evaluated(wrong=25), evaluated(wrong=20), rules("accuracy:-5%")).passed


def test_a_floor_does_not_look_at_the_baseline():
    assert check(evaluated(wrong=20), evaluated(wrong=0), rules("accuracy@missing-image>=0.8")).passed
    verdict = check(evaluated(wrong=20), evaluated(wrong=20), rules("accuracy@missing-image>=0.81"))
    assert [(o.missing_rate, o.rule) for o in verdict.failures] == [(1.0, "accuracy@missing-image>=0.81")]


def test_the_most_specific_rule_decides_and_is_named():
    given = rules("accuracy:-0.01", "accuracy@missing-image:-0.02", "accuracy@missing-image/1:-0.05")
    outcomes = judged(check(evaluated(wrong=24), evaluated(wrong=20), given))
    assert outcomes["accuracy", "missing-image", 1.0].rule == "accuracy@missing-image/1:-0.05"
    assert outcomes["accuracy", "missing-image", 1.0].passed
    assert outcomes["accuracy", "missing-image", 0.7].rule == "accuracy@missing-image:-0.02"
    assert outcomes["accuracy", "missing-text", 1.0].rule == "accuracy:-0.01"


def test_a_specific_floor_does_not_lift_the_limit_on_the_drop():
    verdict = check(evaluated(wrong=24), evaluated(wrong=20), rules("accuracy:-0.01", "accuracy@missing-image/1>=0.5"))
    at_one = [o for o in verdict.outcomes if (o.scenario, o.missing_rate) == ("missing-image", 1.0)]
    assert {o.rule: o.passed for o in at_one} == {"accuracy:-0.01": False, "accuracy@missing-image/1>=0.5": True}


def test_cells_under_no_rule_are_counted():
    verdict = check(evaluated(), evaluated(), rules("accuracy@missing-image/1:-0.01"))
    assert len(verdict.outcomes) == 1
    # 6 cells × 2 metrics − 1
    assert "11 cells of the baseline are under no rule: 5 of accuracy, 6 of macro_f1" in verdict.notes


def test_a_rule_for_no_cell_is_refused():
    with pytest.raises(UsageError, match=r"rule 'acuracy:-0\.01' applies to no cell .* did you mean 'accuracy'"):
        check(evaluated(), evaluated(), rules("acuracy:-0.01"))
    with pytest.raises(UsageError, match="unknown scenario 'missing-imag': did you mean 'missing-image'"):
        check(evaluated(), evaluated(), rules("accuracy@missing-imag:-0.01"))
    with pytest.raises(UsageError, match=r"applies to no cell of the baseline, whose missing rates are 0, 0.7, 1"):
        check(evaluated(), evaluated(), rules("accuracy:-0.01", "accuracy@missing-image/0.75:-0.01"))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("fingerprint", "ffff", "the data differs"),
        ("split", "validation", "the split differs: candidate validation, baseline test"),
        ("task", "binary", "the task differs"),
        ("headline_metric", "macro_f1", "the headline metric differs"),
        ("classes", ["odd", "even"], "the classes differ:"),
        ("fingerprint", None, "the candidate does not record which data it was made on"),
    ],
)
def test_results_on_other_data_are_not_comparable(key, value, message):
    candidate = copy.deepcopy(evaluated())
    candidate.provenance["dataset"][key] = value
    with pytest.raises(NotComparableError, match=message):
        check(candidate, evaluated())


def test_another_fill_is_not_comparable():
    candidate = copy.deepcopy(evaluated())
    candidate.provenance["checkpoints"]["mmp"]["fill"] = "zeros"
    with pytest.raises(NotComparableError, match="the fill of 'mmp' differs: candidate zeros, baseline ones"):
        check(candidate, evaluated())


def changed(column, value, where=None):
    frame, provenance = evaluated()
    chosen = (frame.missing_rate == 1.0) & (frame.seed == 1) if where is None else where(frame)
    return Results(frame.assign(**{column: frame[column].where(~chosen, value)}), provenance)


def test_another_number_of_samples_is_not_comparable():
    with pytest.raises(NotComparableError, match=r"candidate 99, baseline 100.*: --limit 100$"):
        check(changed("n", 99), evaluated())
    with pytest.raises(NotComparableError, match="another number of affected samples: candidate 50, baseline 100"):
        check(changed("n_affected", 50), evaluated())


def test_missing_cells_are_not_comparable():
    fewer = Grid(GRID.scenarios, (0.0, 0.7), GRID.seeds, GRID.promptings)
    message = (
        "the candidate does not have accuracy of 'mmp' at missing-image/1, seed 0, situation, which the baseline has"
    )
    remedy = (
        r" \(5 more like it\); evaluate it with the baseline's grid: --scenario missing-image,missing-text "
        "--missing-rate 0,0.7,1 --seeds 3 --prompting situation"
    )
    with pytest.raises(NotComparableError, match=message + remedy):
        check(evaluated(grid=fewer), evaluated())
    with pytest.raises(NotComparableError, match="seed 2"):
        check(evaluated(grid=Grid(GRID.scenarios, GRID.rates, (0, 1), GRID.promptings)), evaluated())
    assert check(evaluated(), evaluated(grid=fewer)).passed  # a candidate may have more


def test_a_value_that_is_not_defined_is_not_comparable():
    with pytest.raises(NotComparableError, match="the candidate has no value in accuracy of 'mmp' at missing-image/1"):
        check(changed("value", np.nan), evaluated())
    with pytest.raises(NotComparableError, match="the baseline has no value"):
        check(evaluated(), changed("value", np.nan))


def test_a_cell_that_occurs_twice_is_not_comparable():
    import pandas as pd

    frame, provenance = evaluated()
    with pytest.raises(NotComparableError, match="a cell occurs twice"):
        check(Results(pd.concat([frame, frame]), provenance), evaluated())


def together(*results):
    import pandas as pd

    checkpoints = {name: about for _, p in results for name, about in p["checkpoints"].items()}
    frame = pd.concat([frame for frame, _ in results], ignore_index=True)
    return Results(frame, {**results[0].provenance, "checkpoints": checkpoints})


def test_one_checkpoint_on_each_side_is_compared_whatever_its_name():
    verdict = check(evaluated("new"), evaluated("old"))
    assert {o.checkpoint for o in verdict.outcomes} == {"new"}


def test_several_checkpoints_are_compared_by_name():
    both = together(evaluated("a"), evaluated("b", wrong=10))
    assert check(both, both).passed
    worse = together(evaluated("a"), evaluated("b", wrong=20))
    assert {o.checkpoint for o in check(worse, both).failures} == {"b"}
    assert "not in the baseline, not compared: b" in check(both, evaluated("a")).notes
    with pytest.raises(NotComparableError, match="checkpoint 'b' of the baseline is not in the candidate, which has a"):
        check(evaluated("a"), both)


def test_nothing_compared_is_never_a_pass():
    frame, provenance = evaluated()
    without = Results(frame[frame.metric != "accuracy"], provenance)
    with pytest.raises(UsageError, match="applies to no cell of the baseline"):
        check(without, without)


def test_the_verdict_as_plain_values():
    import json

    said = json.loads(json.dumps(check(evaluated(wrong=23), evaluated()).as_dict()))
    assert (said["passed"], said["compared"]) == (False, 6)
    assert said["outcomes"][0]["difference"] == pytest.approx(-0.03)
    assert said["outcomes"][0]["rule"] == "accuracy:-0.01"


def test_other_noise_is_not_comparable():
    ours, theirs = evaluated(), evaluated()
    ours.provenance["noise"] = {"profile": "released", "seed": 0}
    assert check(ours, theirs).passed
    theirs.provenance["noise"] = {"profile": "default", "seed": 0}
    with pytest.raises(NotComparableError, match="the noise differs: candidate released, seed 0, baseline default"):
        check(ours, theirs)


def test_errors_in_a_test_suite_show_their_message_and_no_code_of_the_gate(tmp_path):
    with pytest.raises(DataError, match="nowhere: no such file") as raised:
        assert_robust(tmp_path / "nowhere", tmp_path)
    inside = raised.traceback[1:]
    assert [entry.name for entry in inside] == ["assert_robust"]
    assert inside[0].locals["__tracebackhide__"]


@pytest.mark.parametrize("name", ["results.parquet", "predictions"])
def test_a_pointer_of_git_lfs_is_called_one(tmp_path, evaluate_into, name):
    evaluate_into(tmp_path / "run")
    file = tmp_path / "run" / name
    file = next(file.iterdir()) if file.is_dir() else file
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 12345\n")
    with pytest.raises(DataError, match=r"is a Git LFS pointer, not the .* itself; fetch it with: git lfs pull"):
        check_files(tmp_path / "run", tmp_path / "run")
