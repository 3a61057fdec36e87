"""Settings as frozen dataclasses: made from plain mappings, with unknown keys and wrong values refused."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml

from mmrobust.errors import UsageError, unknown_name

T = TypeVar("T")

_KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a word"}


def from_mapping(cls: type[T], values: Mapping[str, Any], what: str) -> T:
    """An instance of the dataclass ``cls``; its own ``__post_init__`` checks the values.

    Raises:
        UsageError: a key that ``cls`` does not have, with the nearest right spelling, or a value of another kind than
            the key's; ``what`` names the settings.
    """
    known = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]  # T is a dataclass
    for key in values:
        if key not in known:
            raise (
                unknown_name(f"{what} setting", key, known)
                if known
                else UsageError(f"unknown {what} setting '{key}': it has none")
            )
    hints = typing.get_type_hints(cls)
    return cls(**{key: _fitting(value, hints[key], f"{what} setting {key}") for key, value in values.items()})


def parse_settings(pairs: Iterable[str], flag: str) -> dict[str, Any]:
    """``KEY=VALUE`` pairs of a command line, each value read as YAML: ``rank=4``, ``init=random``, ``layers=[0, 2]``.

    Raises:
        UsageError: a pair without ``=`` or a value that is no YAML; ``flag`` names the option.
    """
    settings = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key.strip():
            raise UsageError(f"{flag} {pair}: give KEY=VALUE")
        try:
            settings[key.strip()] = yaml.safe_load(text)
        except yaml.YAMLError as cause:
            raise UsageError(f"{flag} {pair}: the value cannot be read ({' '.join(str(cause).split())})") from cause
    return settings


def _fitting(value: Any, hint: Any, what: str) -> Any:
    """``value`` as what ``hint`` asks for, where that is one of the plain kinds; other hints check themselves."""
    if hint is float and isinstance(value, (int, str)) and not isinstance(value, bool):
        try:  # YAML reads 1e-3, without a point, as a word
            return float(value)
        except ValueError:
            pass
    if hint in _KINDS and type(value) is not hint:
        raise UsageError(f"{what} = {value!r}: must be {_KINDS[hint]}")
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, (list, tuple)):
            raise UsageError(f"{what} = {value!r}: must be a list, like [0, 2]")
        inner = typing.get_args(hint)[0]
        return tuple(_fitting(item, inner, what) for item in value)
    return value


def plain(settings: Any) -> Any:
    """Settings (a dataclass, a mapping, a sequence, a value) as JSON would give them back.

    Dataclasses become mappings, tuples lists, paths text.
    """
    if dataclasses.is_dataclass(settings) and not isinstance(settings, type):
        return plain(dataclasses.asdict(settings))
    if isinstance(settings, Mapping):
        return {key: plain(value) for key, value in settings.items()}
    if isinstance(settings, (list, tuple)):
        return [plain(value) for value in settings]
    return str(settings) if isinstance(settings, Path) else settings
