"""``mmrobust demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from mmrobust.cli import console
from mmrobust.cli.options import flag

EXAMPLE = "Example: mmrobust demo --out mmrobust-demo"


def demo(
    out: Annotated[Path, flag("Folder for everything it makes; a second run continues there.")] = Path("mmrobust-demo"),
    limit: Annotated[int | None, flag("Use only the first N samples of each split.", min=1)] = None,
) -> None:
    """Run every step on the embedded data, in about two minutes: prompts, prototypes, your own model, the gate."""
    from mmrobust.report import terminal
    from mmrobust.report.verdict import show
    from mmrobust.studies.demo import BASELINE, run_demo

    outcome = run_demo(out, limit=limit, progress=console.progress_bar, say=console.remark)
    terminal.show(outcome.report, console.out())
    for candidate, verdict in outcome.verdicts.items():
        console.out().print(f"\ncheck {candidate} against {BASELINE}:", markup=False)
        show(verdict, console.out())
    console.out().print("\nwritten:", markup=False)
    for path in (out / "data", out / "checkpoints", out / "results", *outcome.files):
        console.print_line(f"  {path}")
