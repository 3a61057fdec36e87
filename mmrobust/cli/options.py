"""Options that several commands share, and how their values are read."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from mmrobust.errors import UsageError

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


def listed(values: Iterable[str] | None, flag: str) -> tuple[str, ...] | None:
    """The values of a flag that takes a comma-separated list and repetition; ``None`` where it was not given.

    Raises:
        UsageError: it was given with nothing, as by a shell's variable that is not set. Taken for a flag that was not
            given, that would drop a gate, say, that somebody relies on.
    """
    if not values:
        return None
    named = [[part.strip() for part in value.split(",") if part.strip()] for value in values]
    if not all(named):
        raise UsageError(f"{flag}: is given with nothing; name something, or leave it out")
    return tuple(part for parts in named for part in parts)


def listed_paths(values: Iterable[str] | None, flag: str) -> tuple[Path, ...]:
    """The paths of such a flag, each once; what lies there under a name with a comma is one path.

    Raises:
        UsageError: it was given with nothing.
    """
    parts = ((value,) if "," in value and Path(value).exists() else listed([value], flag) for value in values or ())
    return tuple(dict.fromkeys(Path(part) for several in parts for part in several or ()))
