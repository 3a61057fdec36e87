"""Options that several commands share, and how their values are read."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

DataFolder = Annotated[Path, typer.Option("--data", help="Data set folder, as made by `mmrobust data prepare`.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N. auto: the GPU where there is one.")]
DType = Annotated[str, typer.Option(help="auto, float32 or bfloat16. auto: bfloat16 on a GPU, float32 on a CPU.")]
BatchSize = Annotated[str, typer.Option(help="Samples per batch, or auto.")]
Workers = Annotated[str, typer.Option(help="Processes that decode samples, or auto. auto: none for little data.")]
OnBadSample = Annotated[
    str,
    typer.Option(help="Of what cannot be read: error; missing: it counts as missing; skip: the sample is left out."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for another program to read.")]


def listed(values: Iterable[str] | None) -> tuple[str, ...] | None:
    """The values of a flag that takes a comma-separated list and repetition; ``None`` where it was not given."""
    if not values:
        return None
    return tuple(part.strip() for value in values for part in value.split(",") if part.strip())
