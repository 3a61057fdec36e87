"""Hypothesis strategies for bad values, texts and bytes, and damage to valid ones."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

Draw = Callable[[st.SearchStrategy[Any]], Any]
"""Draws a value from a strategy."""

HUGE = 10**9
NASTY_TEXTS = (
    "",
    " ",
    "\0",
    "a\0b",
    "..",
    "../../outside",
    "/dev/zero",
    "/proc/self/mem",
    "~",
    "-1",
    "1e400",
    "nan",
    "0x10",
    "1_000",
    "٣",  # a digit to str.isdigit, and to int
    "²",  # a digit to str.isdigit, but not to int
    "\ufeffa",
    "\u202eabc",
    "\x1b[31mred\x1b[0m",
    "[bold]markup[/]",
    "[/]",
    "{cell}",
    "%s%n",
    "é" * 300,
    "a" * 5000,
    "\ud800",
    "line\nbreak",
    "<script>alert(1)</script>",
    "table:x@0",
    "missing-image/missing-text",
)
NASTY_NUMBERS = (0, -1, 1, 2, HUGE, -HUGE, 2**31, 2**63 - 1, 2**63, 2**64, 10**30, 10**400)
NASTY_FLOATS = (0.0, -0.0, -1.0, 1.5, 1e-320, 1e308, math.nan, math.inf, -math.inf)

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from(NASTY_NUMBERS),
    st.sampled_from(NASTY_FLOATS),
    st.sampled_from(NASTY_TEXTS),
    st.text(max_size=8),
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def nested(depth: int) -> Any:
    """Return lists nested ``depth`` times."""
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


def changed_value(draw: Draw, value: Any) -> Any:
    """Return ``value`` (what JSON can hold) with one to three parts replaced, removed, added or duplicated."""
    value = copy.deepcopy(value)
    for _ in range(draw(st.integers(1, 3))):
        places = list(_places(value))
        if not places:
            return draw(values)
        holder, key = places[draw(st.integers(0, len(places) - 1))]
        match draw(st.sampled_from(("replace", "replace", "replace", "near", "remove", "add", "nest"))):
            case "replace":
                holder[key] = draw(values)
            case "near":
                holder[key] = _near(draw, holder[key])
            case "remove":
                del holder[key]
            case "add" if isinstance(holder, dict):
                holder[draw(st.sampled_from((*holder, "x", "", "../x")))] = draw(values)
            case "add":
                holder.append(draw(values))
            case "nest":
                holder[key] = [holder[key]] if draw(st.booleans()) else {"a": holder[key]}
    return value


def _near(draw: Draw, value: Any) -> Any:
    """Return another value of the same kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return draw(st.sampled_from((value + 1, value - 1, -value, value * 1000, *NASTY_NUMBERS)))
    if isinstance(value, float):
        return draw(st.sampled_from((-value, value * 1000, *NASTY_FLOATS)))
    if isinstance(value, str):
        return draw(st.sampled_from((value[:-1], value + "x", value.upper(), value * 200, *NASTY_TEXTS)))
    if isinstance(value, list):
        return draw(st.sampled_from((value[:-1], value * 2, [], value[::-1])))
    if isinstance(value, dict):
        return {key: inner for key, inner in value.items() if draw(st.booleans())}
    return draw(scalars)


def _places(value: Any) -> Any:
    """Return (container, key) of every part of a value, larger parts first."""
    waiting = [value]
    while waiting:
        holder = waiting.pop(0)
        for key in list(holder) if isinstance(holder, dict) else range(len(holder)):
            yield holder, key
            if isinstance(holder[key], (dict, list)) and len(holder[key]) < 50:
                waiting.append(holder[key])


def changed_json(draw: Draw, text: str) -> bytes:
    """Change the value of the JSON ``text``, or the text itself."""
    match draw(st.sampled_from(("value", "value", "value", "bytes", "deep", "other", "digits", "encoding"))):
        case "value":
            return json.dumps(changed_value(draw, json.loads(text))).encode("utf-8", "surrogatepass")
        case "deep":
            return b'{"a":' * 100_000 + b"1" + b"}" * 100_000
        case "other":
            return json.dumps(draw(values)).encode("utf-8", "surrogatepass")
        case "digits":  # more than Python converts to a number
            return b'{"format_version": ' + b"9" * 5000 + b"}"
        case "encoding":
            return text.encode(draw(st.sampled_from(("utf-16", "utf-8-sig", "utf-32-be"))))
    return changed_bytes(draw, text.encode())


def changed_bytes(draw: Draw, data: bytes) -> bytes:
    """Truncate ``data`` or flip, overwrite, insert, remove or duplicate bytes, one to four times."""
    for _ in range(draw(st.integers(1, 4))):
        size = len(data)
        at = draw(st.integers(0, 2**20)) % (size + 1)
        match draw(st.integers(0, 2)):  # heads and tails matter most
            case 1:
                at = min(at % 64, size)
            case 2:
                at = max(0, size - at % 256)
        match draw(st.sampled_from(("cut", "flip", "flip", "number", "number", "run", "insert", "remove", "double"))):
            case "cut":
                data = data[:at]
            case "flip" if at < size:
                data = data[:at] + bytes([data[at] ^ (1 << draw(st.integers(0, 7)))]) + data[at + 1 :]
            case "number":  # a false size or offset
                width = draw(st.sampled_from((1, 2, 4, 8)))
                number = draw(st.sampled_from((0, 1, 2**7, 2**15, 2**31 - 1, 2**31, 2**62, 2**63, 2**64 - 1)))
                order = draw(st.sampled_from(("little", "big")))
                data = data[:at] + (number % 256**width).to_bytes(width, order) + data[at + width :]  # type: ignore[arg-type]  # one of two words
            case "run":
                length = draw(st.integers(1, 64))
                data = data[:at] + bytes([draw(st.integers(0, 255))]) * length + data[at + length :]
            case "insert":
                data = data[:at] + draw(st.binary(max_size=16)) + data[at:]
            case "remove":
                data = data[:at] + data[at + draw(st.integers(1, 64)) :]
            case "double":
                data = data[:at] + data[at // 2 : at] + data[at:]
    return data
