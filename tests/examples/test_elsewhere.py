"""Models that know nothing of mmrobust: the example in plain Python, and one in awk, from the plan to the gate."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmrobust.data import Dataset
from mmrobust.data.prepare.digits import NUMBER_WORDS
from mmrobust.storage.results import read_results

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "elsewhere"


def test_the_example_gates_a_change(tmp_path: Path) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "MMROBUST_DATA_PREPARE_LIMIT": "120"}
    done = subprocess.run(
        ["bash", EXAMPLE / "run.sh"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stderr  # the verdict
    assert "FAIL: " in done.stdout and "accuracy@missing-text/1" in done.stdout
    good, hasty = (read_results(tmp_path / "results" / name).frame for name in ("main", "hasty"))
    means = [
        frame[(frame["metric"] == "accuracy") & (frame["missing_rate"] == 1)].groupby("scenario")["value"].mean()
        for frame in (good, hasty)
    ]
    assert means[0]["missing-audio"] == means[1]["missing-audio"] > 0.8  # it reads as before
    assert means[0]["missing-text"] > 0.5 > means[1]["missing-text"]  # and hears less
    assert means[0]["noisy-audio:gaussian@3"] > means[0]["missing-audio"]


def test_the_model_imports_nothing_of_ours(tmp_path: Path) -> None:
    isolated = [sys.executable, "-I", "-S", EXAMPLE / "model.py", "--help"]  # the standard library alone
    done = subprocess.run(isolated, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "standard library" in done.stdout


AWK = r"""
BEGIN {
    FS = OFS = ","
    count = split("zero one two three four five six seven eight nine", words, " ")
    split("null eins zwei drei vier fünf sechs sieben acht neun", more, " ")
}
FNR == 1 {
    printf "id,case"
    for (digit = 0; digit < count; digit++) printf ",%d", digit
    print ""
    next
}
{
    text = ""
    if ($4 != "") getline text < (plan "/" $4)
    close(plan "/" $4)
    printf "%s,%s", $1, $2
    for (digit = 1; digit <= count; digit++)
        printf ",%d", index(text, words[digit]) || index(text, more[digit])
    print ""
}
"""
"""Reads the text of each row of the plan, and gives 1 to each digit whose English or German word is in it."""


@pytest.mark.skipif(shutil.which("awk") is None, reason="there is no awk")
def test_a_model_in_awk(cli: Callable[..., Any], digits: Dataset, tmp_path: Path) -> None:
    about = ("--data", digits.folder, "--modalities", "image,text")
    assert cli("plan", *about, "--inputs", "--out", tmp_path / "plan").code == 0
    with (tmp_path / "it.csv").open("w") as file:
        command = ["awk", "-v", f"plan={tmp_path / 'plan'}", AWK, tmp_path / "plan" / "plan.csv"]
        subprocess.run(command, stdout=file, check=True)
    command = ("import", "predictions", tmp_path / "it.csv", *about, "--name", "awk", "--out", tmp_path / "out")
    code, _, err = cli(*command)
    assert (code, err) == (0, "")

    # How often it is right can be told from the texts: without a text, or with none of its words, it says 0.
    split = digits.split("test")
    samples = split.read(range(len(split)))

    def says(text: str) -> int:
        return next((n for n in range(10) if NUMBER_WORDS["en"][n] in text or NUMBER_WORDS["de"][n] in text), 0)

    right = {
        "complete": sum(says(sample.text or "") == sample.label[0] for sample in samples) / len(samples),
        "missing-text": sum(sample.label[0] == 0 for sample in samples) / len(samples),
    }
    frame = read_results(tmp_path / "out").frame.query("metric == 'accuracy' and scenario == 'missing-text'")
    assert frame[frame["missing_rate"] == 0]["value"].unique().tolist() == [right["complete"]]
    assert frame[frame["missing_rate"] == 1]["value"].unique().tolist() == [right["missing-text"]]
    for floor, verdict in ((right["complete"] - 0.01, 0), (right["complete"] + 0.01, 1)):
        rule = ("--fail", f"accuracy@missing-text/0>={floor:.4f}")
        assert cli("check", tmp_path / "out", "--baseline", tmp_path / "out", *rule).code == verdict
