"""Two checkpoints, sample by sample."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console
from scipy.stats import binomtest

from mmrobust.errors import DataError, NotComparableError, UsageError
from mmrobust.gate.compare import compare, compare_files
from mmrobust.report import comparison
from mmrobust.scenarios.grid import Grid
from mmrobust.scoring.paired import make_pair
from mmrobust.scoring.significance import delong, placements
from mmrobust.scoring.store import predictions_behind
from mmrobust.storage.results import read_results, write_results

SMALL = Grid(("missing-text",), (0.0, 0.5, 1.0), (0, 1), ("situation",))


@pytest.fixture(scope="module")
def two(tmp_path_factory, evaluate_into):
    """Two folders of results; the second is worse where the text is missing."""
    folder = tmp_path_factory.mktemp("two")
    made = {}
    for name, settings in (("a", {}), ("b", {"seed": 1, "lost": {"missing-text": 2.0}})):
        made[name] = evaluate_into(folder / name, name=name, grid=SMALL, **settings)
    return folder, made


def right(made, case):
    _, truth, logits = made
    return logits[case, "situation"].argmax(axis=1) == np.asarray(truth.labels)[:, 0]


def test_differences_and_flips_are_counted(two):
    folder, made = two
    found = compare_files(folder / "a", folder / "b")
    assert (found.first, found.second, found.metric, found.samples) == ("a", "b", "accuracy", 300)
    row = found.cells.set_index("missing_rate").loc[1.0]
    before, after = (right(made[name], "missing-text") for name in "ab")
    assert row["difference"] == pytest.approx(after.mean() - before.mean())
    assert (row["lost"], row["gained"]) == ((before & ~after).sum(), (after & ~before).sum())
    assert row["low"] < row["difference"] < row["high"] < 0
    ids = found.flips[(found.flips["case"] == "missing-text") & (found.flips["change"] == "lost")]["id"]
    assert set(ids) == {f"s{i:05d}" for i in np.flatnonzero(before & ~after)}
    assert set(found.flips["prompting"]) == {"situation"}  # nothing was evaluated under concat


def test_one_table_is_mcnemars_case_and_several_are_the_jackknifes(two):
    found = compare_files(two[0] / "a", two[0] / "b", correction="none").cells.set_index("missing_rate")
    assert found["test"].to_dict() == {0.0: "mcnemar", 0.5: "jackknife", 1.0: "mcnemar"}
    lost, gained = (int(found.loc[0.0, side]) for side in ("lost", "gained"))
    exact = binomtest(lost, lost + gained).pvalue
    assert found.loc[0.0, "p_value"] <= exact  # mid-p is the less timid one
    assert found.loc[0.0, "p_value"] == pytest.approx(exact, abs=0.15)


def test_p_values_are_corrected_over_cells(two):
    plain, corrected = (
        compare_files(two[0] / "a", two[0] / "b", correction=kind).cells["p_value"] for kind in ("none", "holm")
    )
    assert corrected.min() == pytest.approx(3 * plain.min())
    assert (corrected >= plain).all()


def test_auroc_is_delongs(tmp_path, evaluate_into):
    sides = [
        evaluate_into(tmp_path / name, name=name, task="binary", classes=2, grid=SMALL, seed=seed)
        for seed, name in enumerate("ab")
    ]
    found = compare_files(tmp_path / "a", tmp_path / "b", correction="none")
    assert set(found.cells["test"]) == {"delong"}
    positive = np.asarray(sides[0][1].labels)[:, 0] == 1
    scores = [np.diff(logits["missing-text", "situation"].astype(float))[:, 0] for _, _, logits in sides]
    expected = delong(*(placements(s, positive) for s in scores))[1]
    assert found.cells["p_value"].to_numpy()[-1] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("interval", ["percentile", "bca"])
def test_what_is_not_defined_is_neither_better_nor_worse(tmp_path, evaluate_into, interval):
    for seed, name in enumerate("ab"):
        evaluate_into(tmp_path / name, name=name, task="binary", classes=2, grid=SMALL, seed=seed)
    sides = [predictions_behind(tmp_path / name, read_results(tmp_path / name), name) for name in "ab"]
    alone = ((0,),) * len(sides[0].truth.ids)  # samples of one class have no ROC curve
    one_class = [replace(side, truth=replace(side.truth, labels=alone)) for side in sides]
    found = compare(make_pair(*one_class), "a", "b", "auroc", ["no", "yes"], interval=interval)
    assert found.cells["p_value"].isna().all() and found.different == 0
    assert [row["p_value"] for row in found.as_dict()["cells"]] == [None] * 3
    text = io.StringIO()
    comparison.show(found, Console(file=text, width=200))
    assert "<0.001" not in text.getvalue() and "nan" not in text.getvalue()
    assert "surely better in 0, surely worse in 0 of 3 cells" in text.getvalue()
    page = comparison.as_html(found)
    assert page.count('<tr class="">') == 3 and "nan" not in page


def test_names_are_printed_as_they_are(two):
    found = compare_files(two[0] / "a", two[0] / "b")
    found = replace(found, first="clip:x:1 :o:", cells=found.cells.assign(scenario="[red]:o:"))
    text = io.StringIO()
    comparison.show(found, Console(file=text, width=200, emoji=False))
    assert text.getvalue().count("[red]:o:") == 3
    assert "b against clip:x:1 :o:, accuracy" in text.getvalue()


def test_bca_and_percentile_intervals_are_near_each_other(two):
    percentile, bca = (compare_files(two[0] / "a", two[0] / "b", interval=kind).cells for kind in ("percentile", "bca"))
    assert bca["low"].to_numpy() == pytest.approx(percentile["low"].to_numpy(), abs=0.015)
    assert (bca["low"] != percentile["low"]).any()


def test_multi_label_flips_are_of_the_exact_set(tmp_path, evaluate_into):
    for seed, name in enumerate("ab"):
        evaluate_into(tmp_path / name, name=name, task="multi-label", grid=SMALL, seed=seed, n=100)
    found = compare_files(tmp_path / "a", tmp_path / "b")
    assert found.metric == "macro_f1"
    lost = found.flips[found.flips["change"] == "lost"]
    assert (lost["first"] == lost["label"]).all()
    assert (lost["second"] != lost["label"]).all()


def test_json_has_plain_values_alone(two):
    said = json.loads(comparison.as_json(compare_files(two[0] / "a", two[0] / "b")))
    assert len(said["cells"]) == 3
    assert said["different"] >= 1
    assert {"case", "prompting", "change", "id", "label", "first", "second"} == set(said["flips"][0])


def test_the_page_needs_nothing_else_and_takes_no_name_for_html(two):
    import dataclasses

    found = dataclasses.replace(compare_files(two[0] / "a", two[0] / "b"), first="<script>alert(1)</script>")
    page = comparison.as_html(found)
    assert "<script" not in page
    assert "http" not in page
    assert page.count("<tr class=") == 3
    assert found.flips["id"].iloc[0] in page


def test_the_command(cli, two, tmp_path):
    folder, _ = two
    code, out, err = cli("compare", folder / "a", folder / "b", "--html", tmp_path / "c.html")
    assert (code, err.strip()) == (0, f"wrote {tmp_path / 'c.html'}")
    assert "b against a, accuracy, 300 samples: surely better in 0, surely worse in" in out
    assert "missing-text situation: " in out
    assert (tmp_path / "c.html").read_text().startswith("<!doctype html>")
    assert json.loads(cli("compare", folder / "a", folder / "b", "--json").out)["second"] == "b"


def test_two_checkpoints_of_one_file(cli, two, tmp_path):
    import pandas as pd

    (first, _, _), (second, _, _) = two[1]["a"], two[1]["b"]
    both = pd.concat([first.frame, second.frame])
    about = {**first.provenance["checkpoints"], **second.provenance["checkpoints"]}
    write_results(tmp_path / "results.parquet", both, {**first.provenance, "checkpoints": about})
    (tmp_path / "predictions").mkdir()
    for name in "ab":
        for shard in (two[0] / name / "predictions").iterdir():
            (tmp_path / "predictions" / shard.name).write_bytes(shard.read_bytes())
    found = compare_files(tmp_path, tmp_path, ["b", "a"])
    assert (found.first, found.second) == ("b", "a")
    other_way = compare_files(two[0] / "a", two[0] / "b").cells["difference"]
    assert found.cells["difference"].to_numpy() == pytest.approx(-other_way.to_numpy())
    with pytest.raises(UsageError, match="holds a, b; say which to compare with --checkpoints NAME,NAME"):
        compare_files(tmp_path, tmp_path)
    with pytest.raises(UsageError, match=r"unknown checkpoint of .* 'c': Known: a, b"):
        compare_files(tmp_path, tmp_path, ["a", "c"])
    with pytest.raises(UsageError, match="--checkpoints a: name two"):
        compare_files(tmp_path, tmp_path, ["a"])
    code, out, _ = cli("compare", tmp_path, "--checkpoints", "b,a")
    assert code == 0 and "a against b" in out
    code, _, err = cli("compare", tmp_path)
    assert code == 2 and f"name B as well, or with --checkpoints two checkpoints of {tmp_path}" in err


def test_what_cannot_be_compared_is_refused(two, tmp_path, evaluate_into):
    folder, _ = two
    with pytest.raises(UsageError, match="unknown interval 'bac': did you mean 'bca'"):
        compare_files(folder / "a", folder / "b", interval="bac")
    with pytest.raises(UsageError, match="unknown metric of a single-label task 'acc': did you mean 'accuracy'"):
        compare_files(folder / "a", folder / "b", metric="acc")
    evaluate_into(tmp_path)
    results = read_results(tmp_path)
    results.provenance["checkpoints"]["mmp"]["fill"] = "zeros"
    write_results(tmp_path / "results.parquet", *results)
    with pytest.raises(NotComparableError, match="the fill of 'mmp' differs: candidate zeros, baseline ones"):
        compare_files(folder / "a", tmp_path)
    for shard in (tmp_path / "predictions").iterdir():
        shard.unlink()
    with pytest.raises(DataError, match="holds no predictions of 'mmp'"):
        compare_files(tmp_path, tmp_path)


def test_what_is_the_same_under_both_promptings_is_shown_once(tmp_path, evaluate_into):
    grid = Grid(("missing-text",), (0.0, 1.0), (0,))
    for name, settings in (("a", {}), ("b", {"seed": 1, "lost": {"missing-text": 2.0}})):
        evaluate_into(tmp_path / name, name=name, grid=grid, depends=False, **settings)
    found = compare_files(tmp_path / "a", tmp_path / "b")
    console = Console(file=io.StringIO(), width=200)
    comparison.show(found, console)
    text = console.file.getvalue()
    assert (
        len(found.cells) == 4 and text.count("both promptings") == 2 + found.flips.groupby(["case", "change"]).ngroups
    )
    assert "situation" not in text and "concat" not in text and " of 2 cells" in text
    comparison.show(compare_files(tmp_path / "a", tmp_path / "a"), console)
    assert console.file.getvalue().count(" same ") == 2
    assert comparison.as_html(found).count("both promptings") == 2 + found.flips["case"].nunique()
