"""Options that several commands share, and how lists of values are parsed."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from mmrobust.errors import UsageError, unknown_name


def flag(text: str, *names: str, panel: str | None = None, **settings: Any) -> Any:
    """``typer.Option`` that begins with its help ``text``, which stands in the ``panel`` of that name.

    Environment variables, one for every flag, stand in docs/commands.md: they would triple the help.
    """
    return typer.Option(*names, help=text, rich_help_panel=panel, show_envvar=False, **settings)


RATES = "Numbers, start:stop:step, or a rate for each modality, as in image=0.3,text=0.7 (several separated by ;)."
TABLES = ".parquet or .csv (id, case), MMP's .pt, or AOEPT's .jsonl."

DataFolder = Annotated[Path, flag("Data set folder, as made by `mmrobust data prepare`.", "--data")]
Device = Annotated[str, flag("auto, cpu, cuda or cuda:N. auto: the GPU if there is one.")]
DType = Annotated[str, flag("auto, float32 or bfloat16. auto: bfloat16 on a GPU, float32 on a CPU.")]
BatchSize = Annotated[str, flag("Samples per batch, or auto.")]
Workers = Annotated[str, flag("Processes that decode samples (0: threads do), or auto. auto: 0 for little data.")]
CacheFolder = Annotated[
    Path | None,
    flag("Folder that keeps encoded inputs for later commands: they change nothing.", "--cache", metavar="FOLDER"),
]
OnBadSample = Annotated[
    str, flag("If a sample cannot be read: error, missing (treat it as missing) or skip (leave it out).")
]
F1Absent = Annotated[str, flag("Absent classes count 0 in macro F1 (zero), or are left out (skip, as in the papers).")]
AsJson = Annotated[bool, flag("Print JSON, for another program to read.", "--json")]


def listed(values: Iterable[str] | None, flag: str) -> tuple[str, ...] | None:
    """Split the values of a flag that takes a comma-separated list and may be repeated; ``None`` if it was not given.

    Raises:
        UsageError: a value is empty, like an unset shell variable. Ignoring it could drop a rule of a gate, say.
    """
    if not values:
        return None
    parts = [[part.strip() for part in value.split(",") if part.strip()] for value in values]
    if not all(parts):
        raise UsageError(f"{flag}: its value is empty; give a value, or leave the flag out")
    return tuple(part for of_value in parts for part in of_value)


def listed_paths(values: Iterable[str] | None, flag: str) -> tuple[Path, ...]:
    """Split the values of such a flag into distinct paths; an existing path whose name has a comma stays whole.

    Raises:
        UsageError: a value is empty.
    """
    parts = ((value,) if "," in value and Path(value).exists() else listed([value], flag) for value in values or ())
    return tuple(dict.fromkeys(Path(part) for several in parts for part in several or ()))


def unknown_in_environment(context: typer.Context) -> Iterator[str]:
    """A line for each environment variable that begins as those of the running command, but sets no flag of it."""
    prefix = f"{context.auto_envvar_prefix}_"
    flags = [parameter for parameter in context.command.params if parameter.param_type_name == "option"]
    known = [f"{prefix}{parameter.name}".upper() for parameter in flags]
    for variable in sorted(os.environ):
        if variable.startswith(prefix) and variable not in known:
            yield str(unknown_name("environment variable", variable, known))


def set_by_environment(context: typer.Context) -> tuple[str, ...]:
    """A line for each flag of the running command that an environment variable sets, which no command line shows."""
    lines = []
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if source is not None and source.name == "ENVIRONMENT":
            variable = f"{context.auto_envvar_prefix}_{parameter.name}".upper()
            lines.append(f"{parameter.opts[0]} was set by the environment: {variable}={os.environ.get(variable)}")
    return tuple(lines)
