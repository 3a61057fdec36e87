"""The regression gate as an assertion in a test suite.

::

    from mmrobust.testing import assert_robust

    def test_the_new_checkpoint_is_as_robust():
        assert_robust("runs/new", "baselines/main", "accuracy:-0.01", "accuracy@missing-text/1>=0.6")
"""

from __future__ import annotations

import warnings
from os import PathLike
from pathlib import Path
from typing import Any

from mmrobust.errors import MmrobustError
from mmrobust.gate.check import DEFAULT_ALPHA, check_files
from mmrobust.gate.outcome import INCONCLUSIVE, WARN, Verdict
from mmrobust.gate.rules import choose_rules, parse_rule, read_rules
from mmrobust.report.verdict import summary, table


class RobustnessWarning(UserWarning):
    """A check that passed, but says less than it seems to."""


def assert_robust(
    results: str | PathLike[str],
    baseline: str | PathLike[str],
    *rules: str,
    gates: str | PathLike[str] | None = None,
    alpha: float = DEFAULT_ALPHA,
    correction: str = "holm",
    stats: bool = True,
    inconclusive: str = WARN,
) -> Verdict:
    """Assert that results are no worse than their baseline, as ``mmrobust check`` would.

    Args:
        results: the results file to judge, or its folder.
        baseline: the results file to judge by, or its folder.
        rules: as on the command line; they override those of the file for the same cells.
        gates: a TOML file of rules.
        alpha: probability that a comparison of equals fails by chance.
        correction: of the p-values for the number of cells: ``holm`` or ``none``.
        stats: only significant drops fail; if ``False``, the limits alone decide.
        inconclusive: what a cell counts as whose data could not have shown a drop as large as its limit: ``warn`` (a
            :class:`RobustnessWarning`), ``fail`` or ``pass``.

    Returns:
        The verdict, in which nothing failed.

    Raises:
        AssertionError: there is a regression; the message is the table of the cells that did not pass.
        MmrobustError: the two cannot be read or compared, which is an error in the test, not a failure of the model.
    """
    __tracebackhide__ = True
    settings: dict[str, Any] = {"alpha": alpha, "correction": correction, "stats": stats, "inconclusive": inconclusive}
    try:
        chosen = choose_rules([] if gates is None else read_rules(Path(gates)), [parse_rule(rule) for rule in rules])
        verdict = check_files(Path(results), Path(baseline), chosen, **settings)
    except MmrobustError as error:  # its message says all; pages of the gate's own code would only hide it
        raise error.with_traceback(None) from None
    if verdict.failures:
        raise AssertionError(f"{results} is less robust than {baseline}\n\n{table(verdict)}")
    if verdict.failed:
        raise AssertionError(f"{results} was not shown to be as robust as {baseline}\n\n{table(verdict)}")
    for text in (*verdict.warnings, *[summary(verdict)] * (verdict.value == INCONCLUSIVE)):
        warnings.warn(f"{results} against {baseline}: {text}", RobustnessWarning, stacklevel=2)
    return verdict
