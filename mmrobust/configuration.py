"""Settings and JSON from outside: unknown keys and values of a wrong type are refused.

What a person writes (YAML, ``NAME=VALUE``) becomes a frozen dataclass by :func:`from_mapping`. What a program wrote
stays plain JSON, whose shape :func:`check_json` checks.
"""

from __future__ import annotations

import dataclasses
import importlib
import re
import types
import typing
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from mmrobust.errors import UsageError, unknown_name

T = TypeVar("T")

_KINDS: dict[type, str] = {
    **{int: "a whole number", float: "a number", bool: "true or false", str: "a string"},
    **{dict: "a mapping, like {key: value}", list: "a list, like [0, 2]"},
}

MOST_SIZE = 2**16
"""The largest size of something that is learned: a number of prompts, a rank."""
MOST_VALUES = 100_000
"""The most values a YAML document may hold: a few lines of aliases can expand to more than any memory holds."""
LARGEST_NUMBER = 2**63


def from_mapping(cls: type[T], values: Mapping[str, Any], what: str = "") -> T:
    """Build an instance of the dataclass ``cls``; its own ``__post_init__`` checks the ranges of the values.

    A number may be a string, because YAML reads ``1e-3`` as one. Messages call the settings ``what``; it is empty for
    the keys of a file.

    Raises:
        UsageError: an unknown key (the message suggests the nearest one), a missing key that has no default, or a value
            of the wrong type.
    """
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]  # T is a dataclass
    kind = f"{what} setting" if what else "key"
    for key in values:
        if key not in fields:
            raise unknown_name(kind, key, fields) if fields else UsageError(f"unknown {kind} '{key}': it has none")
    for name, field in fields.items():
        if name not in values and field.default is field.default_factory is dataclasses.MISSING:
            raise UsageError(f"{what}: {name} is missing" if what else f"{name} is missing")
    hints = typing.get_type_hints(cls)
    return cls(**{key: _fit(value, hints[key], f"{kind} {key}" if what else key) for key, value in values.items()})


def check_json(value: Any, shape: Any, place: str = "") -> None:
    """Raise unless ``value``, as read from JSON, has the ``shape``.

    A shape is ``str``, ``int``, ``float`` (any finite number), ``bool`` or ``dict``; ``[SHAPE]`` is a list,
    ``{str: SHAPE}`` a mapping of any keys, and ``{"key": SHAPE}`` a mapping that has at least these keys. One that ends
    in ``?`` may be absent or null.

    >>> check_json({"classes": ["a", "b"], "n": 3}, {"classes": [str], "task?": str})

    Raises:
        UsageError: the message names the place, like ``classes/0 = 1: must be a string``.
    """
    inside: list[tuple[object, Any, Any]] = []
    if isinstance(shape, list):
        inside = [(index, item, shape[0]) for index, item in enumerate(_listed(value, place))]
    elif isinstance(shape, dict) and str in shape:
        inside = [(key, item, shape[str]) for key, item in _mapped(value, place).items()]
    elif isinstance(shape, dict):
        found = _mapped(value, place)
        absent = {key for key in shape if found.get(key.rstrip("?")) is None}
        for key in shape:
            if key in absent and not key.endswith("?"):
                raise UsageError(f"{place}/{key} is missing".lstrip("/"))
        inside = [(key.rstrip("?"), found[key.rstrip("?")], shape[key]) for key in shape if key not in absent]
    elif shape in (int, float) and not isinstance(value, bool):
        _demand(isinstance(value, (int, shape)) and -LARGEST_NUMBER < value < LARGEST_NUMBER, value, shape, place)
    else:
        _demand(type(value) is shape, value, shape, place)
    for key, item, inner in inside:
        check_json(item, inner, f"{place}/{key}".lstrip("/"))


def _demand(fits: bool, value: Any, kind: type, place: str) -> Any:
    if not fits:
        raise UsageError(f"{place} = {value!r}: must be {_KINDS[kind]}")
    return value


def _mapped(value: Any, place: str) -> Any:
    return _demand(isinstance(value, Mapping), value, dict, place)


def _listed(value: Any, place: str) -> Any:
    return _demand(isinstance(value, (list, tuple)), value, list, place)


def _fit(value: Any, hint: Any, place: str) -> Any:
    """Return a setting as its annotation ``hint`` asks for: lists as tuples, strings of numbers as numbers."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):  # X | None
        (hint,) = (kind for kind in inner if kind is not types.NoneType)
        return None if value is None else _fit(value, hint, place)
    if origin is dict:
        return {key: _fit(item, inner[1], f"{place}/{key}") for key, item in _mapped(value, place).items()}
    if origin in (tuple, list):
        return origin(_fit(item, inner[0], f"{place}/{at}") for at, item in enumerate(_listed(value, place)))
    if hint is float and isinstance(value, (int, str)) and not isinstance(value, bool):
        with suppress(ValueError, OverflowError):  # YAML reads 1e-3, without a point, as a string
            return float(value)
    if dataclasses.is_dataclass(hint):
        _demand(isinstance(value, typing.cast("type[Any]", hint)), value, dict, place)
    elif hint in _KINDS:
        _demand(type(value) is hint, value, hint, place)
    return value


def parse_settings(pairs: Iterable[str], flag: str) -> dict[str, Any]:
    """Read ``NAME=VALUE`` pairs of a command line, each value as YAML: ``rank=4``, ``init=random``, ``layers=[0, 2]``.

    Raises:
        UsageError: a pair without ``=``, or a value that is not YAML; the message names the ``flag``.
    """
    settings = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key.strip():
            raise UsageError(f"{flag} {pair}: give NAME=VALUE")
        settings[key.strip()] = read_yaml(text, f"{flag} {pair}: the value cannot be read")
    return settings


def check_size(called: str, size: int) -> None:
    """Raise a ``UsageError`` unless ``size`` is from 1 to :data:`MOST_SIZE`; it is ``called`` so in the message."""
    if size < 1:
        raise UsageError(f"{called} {size}: must be 1 or more")
    if size > MOST_SIZE:
        raise UsageError(f"{called} {size}: must be {MOST_SIZE:,} or less")


def number_hint(text: str) -> str:
    """What may be meant by ``text``, which is no number, beginning with a semicolon; empty where that is not known.

    >>> number_hint("70%"), number_hint("0,7"), number_hint("x")
    ('; is 0.7 meant?', '; is 0.7 meant? Decimals are written with a point', '')
    """
    percent = re.fullmatch(r"\s*([+-]?\d+(?:[.,]\d+)?)\s*%\s*", text)
    if percent:
        return f"; is {float(percent[1].replace(',', '.')) / 100:g} meant?"
    if re.fullmatch(r"\s*[+-]?\d*,\d+\s*", text):
        return f"; is {text.strip().replace(',', '.')} meant? Decimals are written with a point"
    return ""


def read_yaml(text: str, failure: str) -> Any:
    """Read a YAML document of strings, numbers, true, false and null, in lists and mappings.

    Raises:
        UsageError: it is not YAML, or holds anything else; the message begins with ``failure``.
    """
    import yaml

    try:
        value = yaml.safe_load(text)
    except Exception as cause:  # PyYAML raises its own errors, and whatever its parsers of dates and numbers raise
        raise UsageError(f"{failure} ({' '.join(str(cause).split()) or type(cause).__name__})") from cause
    _check_plain(value, failure)
    return value


def _check_plain(value: Any, failure: str) -> None:
    """Raise if ``value`` holds what settings cannot: too many values, other types, keys that are not strings."""
    pending, seen = [value], 0
    while pending:
        part = pending.pop()
        seen += 1
        if seen > MOST_VALUES:
            raise UsageError(f"{failure} (it holds more than {MOST_VALUES:,} values, or itself)")
        if isinstance(part, dict):
            for key in part:
                if not isinstance(key, str):
                    raise UsageError(f"{failure} (its key {key} is not a string; write it in quotes)")
            pending += part.values()
        elif isinstance(part, list):
            pending += part
        elif isinstance(part, int):
            if abs(part) >= LARGEST_NUMBER:
                raise UsageError(f"{failure} (it holds a number of more than 64 bits)")
        elif not isinstance(part, (str, float, types.NoneType)):
            raise UsageError(f"{failure} ({part} is read as a {type(part).__name__}; write it in quotes)")


def plain(settings: Any) -> Any:
    """Convert settings to what JSON can hold: dataclasses become mappings, tuples lists, and paths strings."""
    if dataclasses.is_dataclass(settings) and not isinstance(settings, type):
        return plain(dataclasses.asdict(settings))
    if isinstance(settings, Mapping):
        return {key: plain(value) for key, value in settings.items()}
    if isinstance(settings, (list, tuple)):
        return [plain(value) for value in settings]
    return str(settings) if isinstance(settings, Path) else settings


def look_up(registry: Mapping[str, str], name: str, kind: str) -> Any:
    """Import the ``module:attribute`` that ``registry`` lists under ``name``.

    Raises:
        UsageError: there is no such name; the message says which ``kind`` of thing was meant, and the nearest name.
    """
    if name not in registry:
        raise unknown_name(kind, name, registry)
    module, _, attribute = registry[name].partition(":")
    return getattr(importlib.import_module(module), attribute)
