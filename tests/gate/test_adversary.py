"""Ways to make a worse model pass. Each is refused (exit code 2), or fails, or is told in every format."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmrobust.cases import SITUATION
from mmrobust.scenarios.grid import Grid
from mmrobust.storage.results import read_results, write_results

BOTH = Grid(("missing-image", "missing-text"), (0.0, 0.5, 1.0), (0, 1), ("situation", "concat"))
ONE = Grid(BOTH.scenarios, BOTH.rates, BOTH.seeds, ("situation",))
FORMATS = ("table", "md", "json", "junit", "github")


@pytest.fixture(scope="module")
def made(tmp_path_factory, evaluate_into):
    """A baseline ``main``, and a candidate ``worse`` that loses 40 points of accuracy without its text."""
    folder = tmp_path_factory.mktemp("made")
    evaluate_into(folder / "main", grid=BOTH)
    evaluate_into(folder / "worse", grid=BOTH, lost={"missing-text": 2.5, "missing-image": 0.3})
    return folder


@pytest.fixture
def runs(made, tmp_path, monkeypatch):
    """A working folder with copies of both that a test may spoil."""
    for name in ("main", "worse"):
        shutil.copytree(made / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def edit_table(folder, change):
    """Change the frame and the provenance of a results table."""
    frame, provenance = read_results(folder)
    changed = change(frame, provenance)
    frame = frame if changed is None else changed
    write_results(folder / "results.parquet", frame, provenance)


def edit_predictions(folder, change):
    """Change the columns of every shard of predictions; ``change`` gets and returns a table."""
    for path in sorted((folder / "predictions").iterdir()):
        table = pq.read_table(path)
        pq.write_table(change(table).replace_schema_metadata(table.schema.metadata), path)


def logits_of(table, change):
    """The table of a shard with other logits."""
    values = np.asarray(table["logits"].to_pylist(), dtype=np.float32)
    column = pa.array(change(values).astype(np.float32).tolist(), pa.list_(pa.float32()))
    return table.set_column(table.schema.get_field_index("logits"), "logits", column)


def refused(cli, message, *arguments):
    """Whether a command ends in one line with ``message`` and exit code 2."""
    code, out, err = cli(*arguments)
    assert (code, out) == (2, ""), out
    assert len(err.splitlines()) == 1
    assert message in err, err


def told(cli, message, *arguments, code=0):
    """Whether ``check`` says ``message`` in every format."""
    for name in FORMATS:
        found = cli("check", *arguments, "--format", name)
        assert found.code == code, found
        said = found.out
        if name == "json":
            said = " ".join(json.loads(found.out)["warnings"])
        plain = said.replace("\\", "").replace("%25", "%").replace("&gt;", ">").replace("`", "")
        assert message in plain, (name, said)


def test_the_regression_is_there(cli, runs):
    assert cli("check", "worse", "--baseline", "main").code == 1


def raise_values(frame, provenance):
    return frame.assign(value=np.minimum(frame["value"] + 0.2, 1.0))


CONTRADICTION = "predictions of 'mmp' do not give the accuracy that its results have"


@pytest.mark.parametrize("rule", ["accuracy:-0.01", "accuracy>=0.3", "accuracy:-5%"])
def test_values_of_the_candidate_are_raised(cli, runs, rule):
    edit_table(runs / "worse", raise_values)
    refused(cli, f"the candidate's {CONTRADICTION}", "check", "worse", "--baseline", "main", "--fail", rule)


def test_values_of_the_baseline_are_lowered(cli, runs):
    edit_table(runs / "main", lambda frame, _: frame.assign(value=frame["value"] - 0.3))
    refused(cli, f"the baseline's {CONTRADICTION}", "check", "worse", "--baseline", "main")


def test_one_cell_is_raised(cli, runs):
    def change(frame, _):
        row = frame[(frame.metric == "accuracy") & (frame.missing_rate == 1.0)].index[0]
        return frame.assign(value=frame["value"].where(frame.index != row, 0.9))

    edit_table(runs / "worse", change)
    refused(cli, CONTRADICTION, "check", "worse", "--baseline", "main")


@pytest.mark.parametrize("more", [["--no-stats"], ["--informational"], ["--correction", "none"], ["--alpha", "0.001"]])
def test_no_flag_lets_a_raised_table_through(cli, runs, more):
    edit_table(runs / "worse", raise_values)
    refused(cli, CONTRADICTION, "check", "worse", "--baseline", "main", *more)


def test_a_raised_table_is_compared_by_nobody(cli, runs):
    edit_table(runs / "worse", raise_values)
    refused(cli, CONTRADICTION, "compare", "main", "worse")


def test_a_raised_table_is_no_baseline(cli, runs):
    edit_table(runs / "worse", raise_values)
    refused(cli, CONTRADICTION, "baseline", "save", "worse", "kept")
    assert not (runs / "kept").exists()


def test_one_side_is_held_against_its_predictions_where_the_other_has_none(cli, runs):
    shutil.rmtree(runs / "main" / "predictions")
    edit_table(runs / "worse", raise_values)
    refused(cli, f"the candidate's {CONTRADICTION}", "check", "worse", "--baseline", "main")


@pytest.mark.parametrize(
    "arguments",
    [
        ["check", "worse", "--baseline", "main", "--fail", "accuracy>=0.99"],
        ["check", "main", "--baseline", "worse"],
        ["report", "worse"],
        ["compare", "main", "worse"],
        ["baseline", "save", "worse", "kept"],
        ["score", "worse"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_value_outside_its_metric_s_range_is_read_by_no_command(cli, runs, arguments):
    edit_table(runs / "worse", lambda frame, _: frame.assign(value=7.5))
    refused(cli, "accuracy has a value of 7.5, but lies between 0 and 1", *arguments)


@pytest.mark.parametrize("side", ["worse", "main"])
def test_a_value_is_not_defined(cli, runs, side):
    edit_table(runs / side, lambda frame, _: frame.assign(value=frame["value"].where(frame.missing_rate < 1.0)))
    refused(cli, "has no value in accuracy of 'mmp'", "check", "worse", "--baseline", "main")
    refused(cli, "is not defined, so nothing can be judged by it", "baseline", "save", side, "kept")


@pytest.mark.parametrize("column", ["n", "n_affected"])
def test_counts_are_altered_on_both_sides(cli, runs, column):
    for side in ("main", "worse"):
        edit_table(runs / side, lambda frame, _: frame.assign(**{column: frame[column] // 2}))
    code, out, err = cli("check", "worse", "--baseline", "main")
    assert (code, out) == (2, "")
    assert "do not give the" in err


def test_cells_in_which_it_is_worse_are_left_out_of_the_candidate(cli, runs):
    edit_table(runs / "worse", lambda frame, _: frame[frame.scenario != "missing-text"])
    refused(
        cli, "the candidate does not have accuracy of 'mmp' at missing-text", "check", "worse", "--baseline", "main"
    )


def test_cells_in_which_it_is_worse_are_left_out_of_the_baseline(cli, runs):
    edit_table(runs / "main", lambda frame, _: frame[(frame.scenario != "missing-text") | (frame.missing_rate == 0)])
    rule = "--fail", "accuracy@missing-image:-0.3"
    told(cli, "cells of the candidate are not in the baseline", "worse", "--baseline", "main", *rule)


def test_a_mask_seed_is_left_out(cli, runs):
    edit_table(runs / "worse", lambda frame, _: frame[frame.seed != 1])
    refused(cli, "the candidate does not have", "check", "worse", "--baseline", "main")


def set_in(*path, to):
    def change(_, provenance):
        *above, last = path
        for key in above:
            provenance = provenance[key]
        provenance[last] = to

    return change


@pytest.mark.parametrize(
    ("path", "to", "message"),
    [
        (("dataset", "headline_metric"), "macro_f1", "the headline metric differs"),
        (("dataset", "fingerprint"), "ffff", "the data differs"),
        (("dataset", "fingerprint"), "", "does not record which data it was made on"),
        (("dataset", "split"), "train", "the split differs"),
        (("dataset", "classes"), ["c3", "c2", "c1", "c0"], "the classes differ"),
        (("dataset", "task"), "binary", "the task differs"),
        (("checkpoints", "mmp", "fill"), "zeros", "the fill of 'mmp' differs"),
        (("checkpoints", "mmp", "fingerprint"), "other", "no checkpoint of the results made these predictions"),
        (("checkpoints", "mmp", "dtype"), "bfloat16", "no checkpoint of the results made these predictions"),
        (("checkpoints", "mmp", "depends_on_prompting"), False, "has predictions under concat"),
        (("scoring",), {"f1_absent": "skip"}, "the treatment of absent classes differs"),
        (("scoring",), {"threshold": 0.1}, "the threshold differs"),
    ],
    ids=str,
)
def test_metadata_are_altered(cli, runs, path, to, message):
    edit_table(runs / "worse", set_in(*path, to=to))
    refused(cli, message, "check", "worse", "--baseline", "main", "--fail", "accuracy>=0.01")


@pytest.mark.parametrize("side", ["worse", "main"])
def test_labels_are_altered_to_fit_the_predictions(cli, runs, side):
    def change(table):
        labels = pa.array([[int(np.argmax(logits))] for logits in table["logits"].to_pylist()], pa.list_(pa.int64()))
        return table.set_column(table.schema.get_field_index("label"), "label", labels)

    edit_predictions(runs / side, change)
    code, out, err = cli("check", "worse", "--baseline", "main")
    assert (code, out) == (2, "")
    assert "do not give the accuracy" in err


def test_labels_and_table_are_altered_together(cli, runs):
    def change(table):
        labels = [[3 - label for label in labels] for labels in table["label"].to_pylist()]
        table = logits_of(table, lambda values: values[:, ::-1])
        column = pa.array(labels, pa.list_(pa.int64()))
        return table.set_column(table.schema.get_field_index("label"), "label", column)

    edit_predictions(runs / "main", change)  # right and wrong as before, so the table still fits
    refused(cli, "their labels differ", "check", "worse", "--baseline", "main")
    refused(cli, "their labels differ", "compare", "main", "worse")


def test_samples_are_renamed(cli, runs):
    def change(table):
        ids = pa.array([f"x{name}" for name in table["id"].to_pylist()])
        return table.set_column(table.schema.get_field_index("id"), "id", ids)

    edit_predictions(runs / "worse", change)
    code, _, err = cli("check", "worse", "--baseline", "main")
    assert code == 2
    assert "do not give" in err or "other samples" in err


def test_logits_are_altered_and_the_table_is_not(cli, runs):
    edit_predictions(runs / "worse", lambda table: logits_of(table, lambda values: values * 0.0 + [3, 2, 1, 0]))
    refused(cli, CONTRADICTION, "check", "worse", "--baseline", "main")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_logits_are_not_finite(cli, runs, value):
    edit_predictions(runs / "worse", lambda table: logits_of(table, lambda values: values * value))
    code, out, err = cli("check", "worse", "--baseline", "main", "--fail", "accuracy>=0.01")
    assert (code, out) == (2, "")
    assert "no prediction of sample" in err or "not finite" in err


def test_half_of_the_predictions_are_removed(cli, runs):
    sorted((runs / "worse" / "predictions").iterdir())[0].unlink()
    refused(cli, "of the 300 samples", "check", "worse", "--baseline", "main")


def test_a_shard_is_damaged(cli, runs):
    shard = sorted((runs / "worse" / "predictions").iterdir())[0]
    shard.write_bytes(shard.read_bytes()[:-100])
    code, out, err = cli("check", "worse", "--baseline", "main")
    assert (code, out, len(err.splitlines())) == (2, "", 1)


def test_the_predictions_are_another_checkpoint_s(cli, runs, evaluate_into):
    evaluate_into(runs / "other", grid=BOTH, seed=5)
    shutil.rmtree(runs / "worse" / "predictions")
    shutil.copytree(runs / "other" / "predictions", runs / "worse" / "predictions")
    edit_table(runs / "worse", raise_values)
    refused(cli, "no checkpoint of the results made these predictions", "check", "worse", "--baseline", "main")


@pytest.mark.parametrize("side", ["worse", "main"])
def test_the_predictions_are_removed(cli, runs, side):
    shutil.rmtree(runs / side / "predictions")
    told(cli, "'mmp' is judged by the limit alone", "worse", "--baseline", "main", code=1)


def test_the_table_is_raised_and_its_predictions_are_removed(cli, runs):
    edit_table(runs / "worse", lambda frame, _: frame.assign(value=1.0))
    shutil.rmtree(runs / "worse" / "predictions")
    told(cli, "limit alone: no paired interval", "worse", "--baseline", "main")


@pytest.mark.parametrize(
    ("variable", "value", "code", "message"),
    [
        ("ALPHA", "0.0001", 1, "--alpha was set by the environment: MMROBUST_CHECK_ALPHA=0.0001"),
        ("FAIL", "accuracy:-1", 0, "--fail was set by the environment: MMROBUST_CHECK_FAIL=accuracy:-1"),
        ("INFORMATIONAL", "1", 0, "--informational was set by the environment"),
        ("NO_STATS", "1", 1, "--no-stats was set by the environment"),
        ("CORRECTION", "none", 1, "--correction was set by the environment"),
        ("INCONCLUSIVE", "pass", 1, "--inconclusive was set by the environment"),
        ("RULES", "gates.toml", 0, "--rules was set by the environment: MMROBUST_CHECK_RULES=gates.toml"),
    ],
)
def test_what_comes_from_the_environment_is_told(cli, runs, monkeypatch, variable, value, code, message):
    (runs / "gates.toml").write_text('fail = ["accuracy:-0.9"]')
    monkeypatch.setenv(f"MMROBUST_CHECK_{variable}", value)
    told(cli, message, "worse", "--baseline", "main", code=code)


def test_the_baseline_comes_from_the_environment(cli, runs, monkeypatch):
    monkeypatch.setenv("MMROBUST_CHECK_BASELINE", "worse")
    told(cli, "--baseline was set by the environment: MMROBUST_CHECK_BASELINE=worse", "worse")


@pytest.mark.parametrize("alpha", ["1e-300", "0.00001", "0.9", "nan", "0", "-1"])
def test_an_alpha_at_which_nothing_fails_is_refused(cli, runs, alpha):
    refused(cli, f"alpha {float(alpha):g} is not between", "check", "worse", "--baseline", "main", "--alpha", alpha)


@pytest.mark.parametrize(
    ("arguments", "message", "code"),
    [
        (["--fail", "accuracy:-1"], "rule accuracy:-1 cannot fail in 12 cells", 0),
        (["--fail", "accuracy>=0"], "rule accuracy>=0 cannot fail in 12 cells", 0),
        (["--fail", "accuracy>=0.1"], "no rule limits a drop", 0),
        (["--fail", "accuracy:-100%"], "rule accuracy:-100% cannot fail", 0),
        (["--informational"], "--informational: a failure exits with 0", 0),
        (["--no-stats"], "limit alone: no paired interval (--no-stats)", 1),
    ],
    ids=str,
)
def test_flags_that_disarm_it_are_told(cli, runs, arguments, message, code):
    told(cli, message, "worse", "--baseline", "main", *arguments, code=code)


def test_inconclusive_cells_that_count_as_passed_are_told(cli, runs, evaluate_into):
    evaluate_into(runs / "again", grid=BOTH, seed=1)
    told(cli, "12 inconclusive cells counted as passed", "again", "--baseline", "main", "--inconclusive", "pass")


def test_cells_without_a_rule_are_counted(cli, runs):
    found = cli("check", "worse", "--baseline", "main", "--fail", "accuracy@missing-image:-0.3")
    assert "18 cells of the baseline are under no rule" in found.out


@pytest.mark.parametrize("text", ["", "fail = []", 'fail = ["acc:-0.01"]', 'fail = ["accuracy:-0.01", "accuracy:-1"]'])
def test_rules_files_without_an_effective_rule_are_refused(cli, runs, text):
    (runs / "gates.toml").write_text(text)
    code, out, err = cli("check", "worse", "--baseline", "main", "--rules", "gates.toml")
    assert (code, out, len(err.splitlines())) == (2, "", 1)


def test_the_same_folder_on_both_sides(cli, runs):
    told(cli, "candidate and baseline are the same file", "worse", "--baseline", "worse")


def test_a_link_to_the_candidate_as_the_baseline(cli, runs):
    (runs / "link").symlink_to(runs / "worse")
    told(cli, "candidate and baseline are the same file", "worse", "--baseline", "link")


def test_a_copy_of_the_candidate_as_the_baseline(cli, runs):
    shutil.copytree(runs / "worse", runs / "copy")
    told(cli, "'mmp' has identical predictions on both sides", "worse", "--baseline", "copy")


def test_few_samples_show_nothing(cli, tmp_path, evaluate_into):
    """What ``eval --limit 10`` on both sides makes."""
    evaluate_into(tmp_path / "main", grid=BOTH, n=10)
    evaluate_into(tmp_path / "worse", grid=BOTH, n=10, seed=1)
    arguments = "check", tmp_path / "worse", "--baseline", tmp_path / "main"
    code, out, _ = cli(*arguments, "--json")
    verdict = json.loads(out)
    assert (code, verdict["verdict"], verdict["passed"]) == (0, "inconclusive", False)
    assert {outcome["verdict"] for outcome in verdict["outcomes"]} == {"inconclusive"}
    assert min(outcome["detectable"] for outcome in verdict["outcomes"]) > 0.5
    assert verdict["largest_detectable"] == 1.0
    assert cli(*arguments, "--inconclusive", "fail").code == 1
    assert "::warning" in cli(*arguments, "--format", "github").out


def test_a_drop_that_few_samples_show_exactly_fails(cli, tmp_path, evaluate_into):
    """However few there are of a class: what is lost is lost. No flag is stricter for being called ``pass``."""
    evaluate_into(tmp_path / "main", grid=BOTH, n=60, skill=9.0)
    evaluate_into(tmp_path / "worse", grid=BOTH, n=60, skill=-9.0)
    evaluate_into(tmp_path / "unsure", grid=BOTH, n=60, skill=0.5)
    for metric in ("macro_f1", "worst_class"):
        against = "--baseline", tmp_path / "main", "--fail", f"{metric}:-0.1"
        code, out, _ = cli("check", tmp_path / "worse", *against, "--json")
        verdict = json.loads(out)
        assert (code, verdict["verdict"]) == (1, "fail")
        failed = [outcome for outcome in verdict["outcomes"] if outcome["verdict"] == "fail"]
        assert failed and all(outcome["few"] < 15 and outcome["p_value"] < 0.05 for outcome in failed)
        for candidate in ("worse", "unsure"):
            found = {
                way: json.loads(cli("check", tmp_path / candidate, *against, "--json", "--inconclusive", way).out)
                for way in ("pass", "warn")
            }
            assert found["pass"]["failed"] == found["warn"]["failed"]


def test_one_sample_shows_nothing(cli, tmp_path, evaluate_into):
    """Neither that anything could be found, nor differences that no two values can have."""
    evaluate_into(tmp_path / "main", grid=BOTH, n=1, skill=-9.0)
    evaluate_into(tmp_path / "new", grid=BOTH, n=1, skill=9.0)
    judged = cli("check", tmp_path / "new", "--baseline", tmp_path / "main").out
    assert "+100.0  ≤ +100.0  1.000      1.0        none" in judged  # one sample's interval would reach to +364.0
    assert re.search(r"in (\d+) of \1 cells no drop could be found: the samples are too few", judged)
    assert "rest on too few samples for the test to hold" in judged
    judged = cli("check", tmp_path / "new", "--baseline", tmp_path / "main", "--format", "github").out
    assert "only one sample stands behind it" in judged
    compared = cli("compare", tmp_path / "main", tmp_path / "new").out
    assert "[+0.6, +100.0]" in compared and ", 1 sample: surely better in 0" in compared
    assert re.search(r"In (\d+) of \1 cells, these samples are too few to show any difference", compared)
    reported = cli("report", tmp_path / "new").out
    assert " · 1 sample · " in reported and "not reliable: only 1 sample" in reported
    for said in (judged, compared, reported):
        assert not re.search(r"-0\.0\b|±0\.0|1 samples| 0\.0 points", said)


def test_the_same_predictions_leave_nothing_to_find(cli, tmp_path, evaluate_into):
    evaluate_into(tmp_path / "main", grid=BOTH)
    shutil.copytree(tmp_path / "main", tmp_path / "same")
    judged = cli("check", tmp_path / "same", "--baseline", tmp_path / "main").out
    assert "     1.0        same  accuracy:-0.01" in judged and "would be found" not in judged
    assert "would show" not in cli("compare", tmp_path / "main", tmp_path / "same").out


def lose(samples):
    """Make the first ``samples`` that are right without their text wrong."""

    def change(truth, logits):
        labels = np.asarray(truth.labels)[:, 0]
        for (case, _), values in logits.items():
            right = values.argmax(axis=1) == labels
            if case == "missing-text":
                values[np.flatnonzero(right)[:samples]] *= -1

    return change


def copied(samples, noise=0.0):
    """The same, in a model to which its case makes no difference: concat's predictions are situation's."""

    def change(truth, logits):
        lose(samples)(truth, logits)
        random = np.random.default_rng(3)
        for case, prompting in list(logits):
            if prompting != SITUATION:
                own = logits[case, SITUATION]
                logits[case, prompting] = own + noise * random.normal(size=own.shape).astype(np.float32)

    return change


WIDE = tuple(round(0.1 * step, 1) for step in range(11))


@pytest.mark.parametrize(
    ("promptings", "settings"),
    [
        (("situation",), {"depends": False, "change": copied}),
        (("situation", "concat"), {"depends": False, "change": copied}),
        (("situation", "concat"), {"depends": True, "change": copied}),
        (("situation", "concat"), {"depends": True, "change": lambda lost: copied(lost, noise=1e-6)}),
    ],
    ids=["situation", "copies", "stored copies", "copies with noise"],
)
def test_copies_of_a_column_do_not_hide_a_regression(cli, tmp_path, evaluate_into, promptings, settings):
    """9 of 341 samples made wrong: one real regression."""
    grid = Grid(("missing-image", "missing-text", "missing-both"), WIDE, (0,), promptings)
    for name, lost in (("main", 0), ("worse", 9)):
        evaluate_into(tmp_path / name, n=341, grid=grid, depends=settings["depends"], change=settings["change"](lost))
    code, out, _ = cli("check", tmp_path / "worse", "--baseline", tmp_path / "main", "--json")
    verdict = json.loads(out)
    assert code == 1
    failed = {(o["scenario"], o["missing_rate"]) for o in verdict["outcomes"] if o["verdict"] == "fail"}
    assert ("missing-text", 1.0) in failed
    assert any("Holm over 31 distinct columns" in note for note in verdict["notes"])


def test_a_model_that_says_one_class_is_told(cli, tmp_path, evaluate_into):
    def constant(_, logits):
        for values in logits.values():
            values[:] = [1, 0, 0, 0]

    for name in ("main", "worse"):
        evaluate_into(tmp_path / name, grid=BOTH, change=constant)
    told(cli, "predicts the same for every sample", tmp_path / "worse", "--baseline", tmp_path / "main")
    told(cli, "never predicted by either side", tmp_path / "worse", "--baseline", tmp_path / "main")


def test_samples_of_one_class_are_told(cli, tmp_path, evaluate_into):
    for name in ("main", "worse"):
        evaluate_into(tmp_path / name, grid=BOTH, classes=1)
    told(cli, "all samples are of one class, 'c0'", tmp_path / "worse", "--baseline", tmp_path / "main")


def test_values_of_zero_on_both_sides_are_told(cli, tmp_path, evaluate_into):
    def wrong(truth, logits):
        for values in logits.values():
            values[:] = 0
            values[np.arange(len(values)), (np.asarray(truth.labels)[:, 0] + 1) % 4] = 1

    for name in ("main", "worse"):
        evaluate_into(tmp_path / name, grid=BOTH, change=wrong)
    message = "rule accuracy:-0.01 cannot fail in 12 cells"
    told(cli, message, tmp_path / "worse", "--baseline", tmp_path / "main")
