"""The message about a flag's value that is of the wrong type, with the value itself."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import typer

from mmrobust.configuration import number_hint

_NEEDED = {
    "Input should be a valid number, unable to parse string as a number": "must be a number",
    "Input should be a valid integer, unable to parse string as an integer": "must be a whole number",
    "Input should be a valid boolean, unable to interpret input": "must be true or false",
}
"""What the parser says → what a value must be."""


def describe(error: typer.TyperException, arguments: Sequence[str]) -> str:
    """The message of a wrong usage; where a value has the wrong type, with what was given and what may be meant."""
    message = error.format_message()
    parameter: Any = getattr(error, "param", None)
    said = next((said for said in _NEEDED if said in message), None)
    if parameter is None or said is None:
        return message
    given = _given(parameter, arguments, getattr(error, "ctx", None))
    if given is None:
        return message.replace(said, _NEEDED[said])
    return message.replace(said, f"'{given}' {_NEEDED[said]}{number_hint(given)}")


def _given(parameter: Any, arguments: Sequence[str], context: Any) -> str | None:
    """The value of a flag: the last on the command line, or that of its environment variable."""
    for place in range(len(arguments) - 1, -1, -1):
        name, equals, value = arguments[place].partition("=")
        if name in parameter.opts:
            return value if equals else next(iter(arguments[place + 1 : place + 2]), None)
    prefix = getattr(context, "auto_envvar_prefix", None)
    return os.environ.get(f"{prefix}_{parameter.name}".upper()) if prefix else None
