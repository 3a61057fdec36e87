"""The regression gate as an assertion in a test suite.

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
        results: the results file to judge, or its folder.
        baseline: the results file to judge by, or its folder.
        rules: as on the command line; they override those of the file for the same cells.
        gates: a TOML file of rules.
        alpha: probability that a comparison of equals fails by chance.
        correction: of the p-values for the number of cells: ``holm`` or ``none``.
        stats: read the predictions, so that only significant drops fail; if ``False``, the limits alone decide.

    Returns:
        The verdict, which passed.

    Raises:
        AssertionError: there is a regression; the message is the table of the failed cells.
        MmrobustError: the two cannot be read or compared, which is an error in the test, not a failure of the model.
    """
    __tracebackhide__ = True
    chosen = choose_rules([] if gates is None else read_rules(Path(gates)), [parse_rule(rule) for rule in rules])
    verdict = check_files(Path(results), Path(baseline), chosen, alpha=alpha, correction=correction, stats=stats)
    if not verdict.passed:
        raise AssertionError(f"{results} is less robust than {baseline}\n\n{table(verdict)}")
    return verdict
