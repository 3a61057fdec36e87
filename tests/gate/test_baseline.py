"""A baseline is kept whole or not at all, with what the paired interval needs."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from mmrobust.errors import DataError, UsageError
from mmrobust.gate.baseline import save_baseline
from mmrobust.gate.check import check_files
from mmrobust.scenarios.grid import Grid
from mmrobust.scenarios.missing_tables import keep_table, kept_file, read_missing_table
from mmrobust.storage.provenance import METADATA_KEY
from mmrobust.storage.results import read_results, write_results


def dirty(folder):
    frame, provenance = read_results(folder)
    write_results(
        folder / "results.parquet", frame, {**provenance, "git": {"commit": "abcdef0123456789", "dirty": True}}
    )


def test_it_holds_the_results_and_their_predictions(tmp_path, evaluate_into):
    evaluate_into(tmp_path / "run")
    evaluate_into(tmp_path / "other", seed=1)
    stray = next((tmp_path / "other" / "predictions").iterdir())
    (tmp_path / "run" / "predictions" / stray.name).write_bytes(stray.read_bytes())
    assert save_baseline(tmp_path / "run", tmp_path / "kept" / "main") == ()
    kept = {file.name for file in (tmp_path / "kept" / "main" / "predictions").iterdir()}
    assert kept == {file.name for file in (tmp_path / "run" / "predictions").iterdir()} - {stray.name}
    verdict = check_files(tmp_path / "run", tmp_path / "kept" / "main")
    assert all(outcome.p_value is not None for outcome in verdict.outcomes)


def test_a_dirty_tree_is_refused_unless_it_is_allowed(cli, tmp_path, evaluate_into):
    evaluate_into(tmp_path / "run")
    dirty(tmp_path / "run")
    code, out, err = cli("baseline", "save", tmp_path / "run", tmp_path / "main")
    assert (code, out) == (2, "")
    assert "was made from a dirty tree (commit abcdef012345 and uncommitted changes)" in err
    assert "or pass --allow-dirty" in err
    assert not (tmp_path / "main").exists()
    code, out, _ = cli("baseline", "save", tmp_path / "run", tmp_path / "main", "--allow-dirty")
    assert (code, out.strip()) == (0, str(tmp_path / "main"))
    assert (tmp_path / "main" / "results.parquet").is_file()


MODEL = """
import numpy as np
from mmrobust import Model

model = Model(name="it", version="1", modalities=("image", "text"), classes={classes}, task="single-label",
              predict=lambda samples, case: np.tile(np.arange(10.0) * {factor}, (len(samples), 1)))
"""


@pytest.fixture
def repository(tmp_path, monkeypatch, digits):
    """A repository with nothing in a commit, and the working folder: a function that writes the model's file."""
    monkeypatch.chdir(tmp_path)
    for name in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{name}_NAME", "A")
        monkeypatch.setenv(f"GIT_{name}_EMAIL", "a@example.org")
    git("init", "-q")
    (tmp_path / ".gitignore").write_text("results\n__pycache__\n")
    return lambda factor: (tmp_path / "model.py").write_text(MODEL.format(classes=digits.info.classes, factor=factor))


def git(*arguments):
    subprocess.run(["git", *arguments], check=True, capture_output=True)


def test_predictions_of_edited_code_stay_dirty_after_a_checkout(cli, repository, digits):
    repository(1)
    git("add", ".")
    git("commit", "-qm", "it")
    evaluate = "eval", "model.py:model", "--data", digits.folder, "--missing-rate", 1, "--seeds", 1, "--out", "results"
    repository(2)
    assert cli(*evaluate).code == 0
    git("checkout", "-q", ".")
    assert cli(*evaluate).code == 0
    assert not read_results(Path("results")).provenance["git"]["dirty"]
    refused = cli("baseline", "save", "results", "main")
    assert refused.code == 2 and "results/predictions/" in refused.err
    assert "uncommitted changes: model.py), so it cannot be reproduced; commit and evaluate again with " in refused.err
    assert "--overwrite always" in refused.err
    assert cli(*evaluate, "--overwrite", "always").code == 0
    kept = cli("baseline", "save", "results", "main")
    assert kept.code == 0 and "git ignores" not in kept.err
    Path(".git/info/exclude").write_text("predictions\n")
    kept = cli("baseline", "save", "results", "main", "--replace")
    assert kept.code == 0 and "git ignores main/predictions: commit with `git add --force`" in kept.err


def test_a_repository_without_a_commit_is_dirty(cli, repository, digits):
    repository(1)
    for name in "abc":
        Path(name).touch()
    evaluate = "eval", "model.py:model", "--data", digits.folder, "--missing-rate", 1, "--seeds", 1, "--out", "results"
    assert cli(*evaluate).code == 0
    refused = cli("baseline", "save", "results", "main")
    assert (refused.code, refused.out) == (2, "")
    assert "from a dirty tree (no commit yet: .gitignore, a, b)" in refused.err


def test_shards_that_do_not_say_which_tree_made_them_are_taken(tmp_path, evaluate_into):
    evaluate_into(tmp_path / "run")
    for shard in (tmp_path / "run" / "predictions").iterdir():
        table = pq.read_table(shard)
        about = json.loads(table.schema.metadata[METADATA_KEY])
        assert about.pop("git") == {"commit": "abc", "dirty": False}
        pq.write_table(table.replace_schema_metadata({METADATA_KEY: json.dumps(about)}), shard)
    assert save_baseline(tmp_path / "run", tmp_path / "main") == ()


def test_nothing_is_overwritten_unless_it_is_to_be(tmp_path, evaluate_into):
    evaluate_into(tmp_path / "old")
    evaluate_into(tmp_path / "new", seed=1)
    save_baseline(tmp_path / "old", tmp_path / "main")
    with pytest.raises(UsageError, match="main: already holds a baseline; replace it with --replace"):
        save_baseline(tmp_path / "new", tmp_path / "main")
    save_baseline(tmp_path / "new", tmp_path / "main", replace=True)
    assert read_results(tmp_path / "main").provenance["checkpoints"]["mmp"]["fingerprint"] == "of-mmp-1"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["main", "new", "old"]


def test_what_is_no_baseline_is_never_replaced(tmp_path, evaluate_into):
    evaluate_into(tmp_path / "run")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("…")
    with pytest.raises(UsageError, match="already contains files"):
        save_baseline(tmp_path / "run", tmp_path / "thesis", replace=True)


def test_a_failed_replacement_leaves_the_old_one(tmp_path, evaluate_into, monkeypatch):
    evaluate_into(tmp_path / "old")
    evaluate_into(tmp_path / "new", seed=1)
    save_baseline(tmp_path / "old", tmp_path / "main")

    def full(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr("shutil.copyfile", full)
    with pytest.raises(OSError, match="no space left"):
        save_baseline(tmp_path / "new", tmp_path / "main", replace=True)
    assert read_results(tmp_path / "main").provenance["checkpoints"]["mmp"]["fingerprint"] == "of-mmp-0"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["main", "new", "old"]


def test_the_old_one_is_there_until_the_new_one_is_whole(tmp_path, evaluate_into, monkeypatch):
    evaluate_into(tmp_path / "old")
    evaluate_into(tmp_path / "new", seed=1)
    save_baseline(tmp_path / "old", tmp_path / "main")
    copy, there = shutil.copyfile, []

    def watched(*files):
        there.append(read_results(tmp_path / "main").provenance["checkpoints"]["mmp"]["fingerprint"])
        return copy(*files)

    monkeypatch.setattr("shutil.copyfile", watched)
    save_baseline(tmp_path / "new", tmp_path / "main", replace=True)
    assert there == ["of-mmp-0"] * 3  # the results and two shards
    assert read_results(tmp_path / "main").provenance["checkpoints"]["mmp"]["fingerprint"] == "of-mmp-1"


def test_results_within_the_old_one_are_not_lost(tmp_path, evaluate_into):
    evaluate_into(tmp_path / "main")
    evaluate_into(tmp_path / "main" / "next", seed=1)
    with pytest.raises(UsageError, match="the results themselves are there"):
        save_baseline(tmp_path / "main" / "next", tmp_path / "main", replace=True)
    assert (tmp_path / "main" / "next" / "results.parquet").is_file()


@pytest.fixture
def given_table(tmp_path, evaluate_into):
    """A run under a given missing table, and the table's name."""
    ids = [f"s{i:05d}" for i in range(300)]
    lines = [f"{name},{'missing-text' if place % 2 else 'complete'}" for place, name in enumerate(ids)]
    (tmp_path / "half.csv").write_text("\n".join(["id,case", *lines]))
    table = read_missing_table(tmp_path / "half.csv", ids, ("image", "text"))
    evaluate_into(tmp_path / "run", grid=Grid((), (0.5,), (0,), ("situation",), (table,)))
    keep_table(tmp_path / "run", table, ids)
    return table.name


def test_a_given_table_is_kept_with_the_predictions_behind_it(tmp_path, given_table):
    assert save_baseline(tmp_path / "run", tmp_path / "main") == ()
    verdict = check_files(tmp_path / "run", tmp_path / "main")
    assert {outcome.scenario for outcome in verdict.outcomes} == {given_table}
    assert all(outcome.p_value is not None for outcome in verdict.outcomes), verdict.notes


def test_predictions_whose_given_table_lacks_are_refused(tmp_path, given_table):
    kept_file(tmp_path / "run", given_table).unlink()
    with pytest.raises(DataError, match=f"holds no missing table '{given_table}'"):
        save_baseline(tmp_path / "run", tmp_path / "main")
    for shard in (tmp_path / "run" / "predictions").iterdir():
        shard.unlink()
    assert f"no missing table '{given_table}': the limits alone will decide" in save_baseline(
        tmp_path / "run", tmp_path / "main"
    )


def test_a_table_s_name_leads_to_no_other_folder(tmp_path):
    assert kept_file(tmp_path, "table:../../x@12").parent == tmp_path / "missing-tables"


def test_what_is_lacking_is_noted(tmp_path, evaluate_into):
    evaluate_into(tmp_path / "run")
    for shard in (tmp_path / "run" / "predictions").iterdir():
        shard.unlink()
    assert save_baseline(tmp_path / "run", tmp_path / "main") == (
        "no predictions of 'mmp': the limits alone will decide",
    )


@pytest.mark.parametrize(("name", "message"), [("main.parquet", "a baseline is a folder"), ("run", "are there")])
def test_other_places_are_refused(tmp_path, evaluate_into, name, message):
    evaluate_into(tmp_path / "run")
    with pytest.raises(UsageError, match=message):
        save_baseline(tmp_path / "run" / "results.parquet", tmp_path / name)
