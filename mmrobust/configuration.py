"""Settings as frozen dataclasses: made from plain mappings, with unknown keys and wrong values refused."""

from __future__ import annotations

import dataclasses
import importlib
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml

from mmrobust.errors import UsageError, unknown_name

T = TypeVar("T")

_KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a word"}

MOST_VALUES = 100_000
"""YAML can name a list within lists within itself: a few lines then stand for more than any memory holds."""
LARGEST_NUMBER = 2**63


def from_mapping(cls: type[T], values: Mapping[str, Any], what: str) -> T:
    """An instance of the dataclass ``cls``; its own ``__post_init__`` checks the values.

    Raises:
        UsageError: a key that ``cls`` does not have, with the nearest right spelling, one that it needs and is not
            there, or a value of another kind than the key's; ``what`` names the settings.
    """
    known = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]  # T is a dataclass
    for key in values:
        if key not in known:
            raise (
                unknown_name(f"{what} setting", key, known)
                if known
                else UsageError(f"unknown {what} setting '{key}': it has none")
            )
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]  # T is a dataclass
        if field.name not in values and field.default is field.default_factory is dataclasses.MISSING:
            raise UsageError(f"{what}: does not say {field.name}")
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
        settings[key.strip()] = read_yaml(text, f"{flag} {pair}: the value cannot be read")
    return settings


def read_yaml(text: str, failure: str) -> Any:
    """The value of a YAML document: words, numbers, true, false and null, in lists and mappings.

    Args:
        text: the document.
        failure: how the message begins where it is none, or holds anything else.

    Raises:
        UsageError: that; the message says what of it.
    """
    try:
        value = yaml.safe_load(text)
    except Exception as cause:  # PyYAML raises its own errors, and whatever its makers of dates and numbers do
        raise UsageError(f"{failure} ({' '.join(str(cause).split()) or type(cause).__name__})") from cause
    _check_plain(value, failure)
    return value


def _check_plain(value: Any, failure: str) -> None:
    """Raise where ``value`` is not what settings are made of."""
    waiting, seen = [value], 0
    while waiting:
        part = waiting.pop()
        seen += 1
        if seen > MOST_VALUES:
            raise UsageError(f"{failure} (it holds more than {MOST_VALUES:,} values, or itself)")
        if isinstance(part, dict):
            for key in part:
                if not isinstance(key, str):
                    raise UsageError(f"{failure} (its key {key} is no word; write it in quotes)")
            waiting += part.values()
        elif isinstance(part, list):
            waiting += part
        elif isinstance(part, int):
            if abs(part) >= LARGEST_NUMBER:
                raise UsageError(f"{failure} (it holds a number of more than 64 bits)")
        elif not isinstance(part, (str, float, types.NoneType)):
            raise UsageError(f"{failure} ({part} is read as a {type(part).__name__}; write it in quotes)")


def _fitting(value: Any, hint: Any, what: str) -> Any:
    """``value`` as what the annotation ``hint`` asks for; what holds anything (``Any``) is taken as it is."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):  # X | None
        if value is None:
            return None
        (hint,) = (kind for kind in inner if kind is not types.NoneType)
        return _fitting(value, hint, what)
    if hint is float and isinstance(value, (int, str)) and not isinstance(value, bool):
        try:  # YAML reads 1e-3, without a point, as a word
            return float(value)
        except (ValueError, OverflowError):
            pass
    if dataclasses.is_dataclass(hint) and not isinstance(value, typing.cast("type[Any]", hint)):
        raise UsageError(f"{what} = {value!r}: must be settings, like {{key: value}}")
    if hint in _KINDS and type(value) is not hint:
        raise UsageError(f"{what} = {value!r}: must be {_KINDS[hint]}")
    if origin in (tuple, list):
        if not isinstance(value, (list, tuple)):
            raise UsageError(f"{what} = {value!r}: must be a list, like [0, 2]")
        return origin(_fitting(item, inner[0], what) for item in value)
    if origin is dict:
        if not isinstance(value, Mapping):
            raise UsageError(f"{what} = {value!r}: must be settings, like {{key: value}}")
        return {key: _fitting(item, inner[1], f"{what} {key}") for key, item in value.items()}
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


def look_up(registry: Mapping[str, str], name: str, kind: str) -> Any:
    """What ``registry`` has under ``name``.

    Raises:
        UsageError: nothing of that name; ``kind`` says what was sought, and the nearest right name is given.
    """
    if name not in registry:
        raise unknown_name(kind, name, registry)
    module, _, attribute = registry[name].partition(":")
    return getattr(importlib.import_module(module), attribute)
