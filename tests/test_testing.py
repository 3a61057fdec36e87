"""The gate inside a test suite."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

from mmrobust.errors import DataError
from mmrobust.testing import RobustnessWarning, assert_robust


@pytest.fixture(scope="module")
def runs(tmp_path_factory, evaluate_into):
    folder = tmp_path_factory.mktemp("runs")
    evaluate_into(folder / "main")
    evaluate_into(folder / "same", seed=1)
    evaluate_into(folder / "worse", lost={"missing-text": 2.5})
    return folder


def test_what_is_as_robust_passes(runs):
    rules = "accuracy:-0.14", "accuracy>=0.1"
    assert assert_robust(runs / "same", runs / "main", *rules).passed
    assert assert_robust(str(runs / "same"), str(runs / "main"), *rules).passed


def test_what_the_samples_could_not_show_is_a_warning_or_a_failure(runs):
    with pytest.warns(RobustnessWarning, match="INCONCLUSIVE: 17 of 18 cells compared could not have shown a drop"):
        assert not assert_robust(runs / "same", runs / "main").passed
    with pytest.raises(AssertionError, match="same was not shown to be as robust as"):
        assert_robust(runs / "same", runs / "main", inconclusive="fail")
    with pytest.warns(RobustnessWarning, match="17 inconclusive cells counted as passed"):
        assert assert_robust(runs / "same", runs / "main", inconclusive="pass").passed


def test_a_regression_is_an_assertion_that_names_its_cells(runs):
    with pytest.raises(AssertionError, match=r"(?s)worse is less robust than .*accuracy@missing-text/1 .*FAIL"):
        assert_robust(runs / "worse", runs / "main")


def test_rules_of_a_file(runs, tmp_path):
    (tmp_path / "gates.toml").write_text('fail = ["accuracy:-0.5"]')
    assert assert_robust(runs / "worse", runs / "main", gates=tmp_path / "gates.toml").passed
    with pytest.raises(AssertionError):
        assert_robust(runs / "worse", runs / "main", "accuracy:-1%", gates=tmp_path / "gates.toml")


def test_what_cannot_be_judged_is_an_error_and_no_failure(runs):
    with pytest.raises(DataError, match="nowhere: no such file or folder"):
        assert_robust(runs / "nowhere", runs / "main")


def test_it_needs_no_torch(runs):
    code = (
        "import sys; from mmrobust.testing import assert_robust; "
        f"assert_robust({str(runs / 'same')!r}, {str(runs / 'main')!r}, 'accuracy:-0.2'); "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_example_of_the_module_is_python():
    import mmrobust.testing

    example = textwrap.dedent(mmrobust.testing.__doc__.partition("::\n")[2])
    names = {}
    exec(compile(example, "the example", "exec"), names)
    assert callable(names["test_the_new_checkpoint_is_as_robust"])
