"""The gate inside a test suite.

::

    from mmrobust.testing import assert_robust

    def test_the_new_checkpoint_is_as_robust():
        assert_robust("runs/new", "baselines/main", "accuracy:-0.01", "accuracy@missing-text/1>=0.6")
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from mmrobust.gate.check import DEFAULT_ALPHA, Verdict, check_files
from mmrobust.gate.rules import choose_rules, parse_rule, read_rules
from mmrobust.report.verdict import table


def assert_robust(
    results: str | PathLike[str],
    baseline: str | PathLike[str],
    *rules: str,
    gates: str | PathLike[str] | None = None,
    alpha: float = DEFAULT_ALPHA,
    correction: str = "holm",
    stats: bool = True,
) -> Verdict:
    """Assert that results are no worse than their baseline, as ``mmrobust check`` would.

    Args:
        results: a results file, or the folder that holds one.
        baseline: the same of the baseline.
        rules: as on the command line, before those of the file.
        gates: a TOML file of rules.
        alpha: how often a comparison of equals may fail by chance.
        correction: for asking in many cells: ``holm`` or ``none``.
        stats: whether paired intervals decide too; otherwise the limits alone.

    Returns:
        The verdict, which passed.

    Raises:
        AssertionError: a regression; its message is the table of the failed cells.
        MmrobustError: the two cannot be compared, or cannot be read: an error of the test, not a failure of the model.
    """
    __tracebackhide__ = True
    chosen = choose_rules([] if gates is None else read_rules(Path(gates)), [parse_rule(rule) for rule in rules])
    verdict = check_files(Path(results), Path(baseline), chosen, alpha=alpha, correction=correction, stats=stats)
    if not verdict.passed:
        raise AssertionError(f"{results} is less robust than {baseline}\n\n{table(verdict)}")
    return verdict
