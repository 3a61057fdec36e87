"""``mmrobust doctor``."""

from __future__ import annotations

import typer

from mmrobust.cli import console
from mmrobust.cli.options import AsJson

EXAMPLE = "Example: mmrobust doctor"


def doctor(json: AsJson = False) -> None:
    """Test what works on this machine, and say how to fix what does not.

    Exit code 1 if something that every command needs is broken; a missing extra does not count.
    """
    from rich.text import Text

    from mmrobust.audit.doctor import ABSENT, BROKEN, WORKS, examine

    found = examine()
    console.settings.verdict = int(not found["well"])
    if json:
        console.print_json(found)
    else:
        styles = {WORKS: "green", ABSENT: "yellow", BROKEN: "bold red"}
        console.out().print(", ".join(f"{name} {version}" for name, version in found["versions"].items()), markup=False)
        for trial in found["trials"]:
            remedy = f" → {trial['remedy']}" if trial["remedy"] else ""
            state = Text(f"{trial['state']:<7}", style=styles[trial["state"]])
            console.out().print(Text.assemble(f"{trial['name']:<15} ", state, f" {trial['said']}{remedy}"))
    if not found["well"]:
        raise typer.Exit(1)
