"""An audit in the terminal: a row per check, and a line that says it all."""

from __future__ import annotations

import io

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mmrobust.audit.base import FAILED, PASSED
from mmrobust.audit.run import Audit

_STYLES = {PASSED: "green", FAILED: "bold red"}


def show(audit: Audit, console: Console) -> None:
    """Print ``audit``. Without a terminal each row is one line, however wide, so that grep finds it."""
    title = f"{audit.checkpoint}: {audit.method} + {audit.head} on {audit.backbone}"
    title += f"; {audit.dataset} · {audit.split} · {audit.samples} samples · {audit.seconds:.0f} s"
    if console.is_terminal:
        console.print(title, markup=False)
        console.print(_rows(audit))
    else:
        text = io.StringIO()
        Console(file=text, width=10_000, color_system=None, emoji=False).print(_rows(audit))
        console.file.write("\n".join([title, *(line.rstrip() for line in text.getvalue().splitlines())]) + "\n")
    for check, _ in audit.failures:
        console.print(f"{check.name}: {check.asks} {check.why}", markup=False)
    console.print(audit.summary, style="bold green" if audit.passed else "bold red", markup=False)


def _rows(audit: Audit) -> Table:
    rows = Table(box=None, padding=(0, 1), pad_edge=False, header_style="dim")
    for name in ("check", "verdict", "limit", "found"):
        rows.add_column(name, no_wrap=name != "found", overflow="fold")
    for check, finding in audit.findings:
        style = _STYLES.get(finding.status, "dim")
        limit = "" if finding.limit is None else f"{'≥' if finding.at_least else '≤'} {finding.limit:.2g}"
        rows.add_row(check.name, f"[{style}]{finding.status}[/]", limit, escape(finding.said))
    return rows
