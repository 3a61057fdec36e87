"""What is printed is printed as it is, and what another program reads holds nothing else."""

from __future__ import annotations

import json

import pytest

from mmrobust.cli import console
from mmrobust.cli.options import listed, listed_paths
from mmrobust.errors import UsageError


def test_no_name_becomes_a_picture(cli, tmp_path, evaluate_into):
    evaluate_into(tmp_path / "run")
    code, out, _ = cli("baseline", "save", tmp_path / "run", tmp_path / "clip:x:1 :o:")
    assert (code, out) == (0, f"{tmp_path / 'clip:x:1 :o:'}\n")
    code, _, err = cli("report", tmp_path / "no :o:")
    assert code == 2 and f"{tmp_path / 'no :o:'}: no such file" in err
    console.remark("wrote clip:x:1 :o:")


def test_json_is_printed_as_it_is(cli, digits, capsys):
    assert json.loads(cli("data", "info", digits.folder, "--json").out)["modalities"]
    assert json.loads(cli("data", "verify", digits.folder, "--json").out)["samples"] == 180
    console.print_json('{"name": "[bold]:o:"}')
    assert capsys.readouterr().out == '{"name": "[bold]:o:"}\n'


def test_files_are_written_whole_and_named(tmp_path, capsys):
    console.write(tmp_path / "new" / "a.txt", "ü")
    assert (tmp_path / "new" / "a.txt").read_text(encoding="utf-8") == "ü"
    assert capsys.readouterr().err.split() == ["wrote", str(tmp_path / "new" / "a.txt")]
    console.write(tmp_path / "b.txt", "", silent=True)
    assert capsys.readouterr().err == "" and (tmp_path / "b.txt").is_file()


def test_lists_are_comma_separated_and_repeated():
    assert listed(None, "--x") is listed([], "--x") is None
    assert listed(["a, b", "c,"], "--x") == ("a", "b", "c")
    for empty in ([""], [","], ["a", " "]):
        with pytest.raises(UsageError, match=r"^--x: its value is empty; give a value, or leave the flag out$"):
            listed(empty, "--x")


def test_lists_of_paths_hold_each_once_and_know_names_with_a_comma(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c,d").touch()
    assert list(map(str, listed_paths(["a,b", "./a", "c,d"], "--x"))) == ["a", "b", "c,d"]
    assert listed_paths(None, "--x") == ()


def test_a_study_takes_its_data_as_a_list(cli, digits, tmp_path):
    flags = ("--data", f"{digits.folder},{tmp_path / 'nowhere'}", "--out", tmp_path / "out", "--dry-run")
    code, _, err = cli("study", "run", "dpl-vs-linear", *flags)
    assert code == 2 and f"{tmp_path / 'nowhere'}: no such folder" in err


def test_ctrl_c_is_told_wherever_it_comes(cli, digits, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("mmrobust.data.dataset.Dataset.__init__", interrupt)
    code, out, err = cli("data", "info", digits.folder)
    assert (code, out) == (130, "") and "interrupted; run the same command again" in err
