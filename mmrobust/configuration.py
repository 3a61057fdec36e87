"""Settings as frozen dataclasses: made from plain mappings, with unknown keys refused, and made plain again."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from mmrobust.errors import unknown_name

T = TypeVar("T")


def from_mapping(cls: type[T], values: Mapping[str, Any], what: str) -> T:
    """An instance of the dataclass ``cls``; its own ``__post_init__`` checks the values.

    Raises:
        UsageError: a key that ``cls`` does not have, with the nearest right spelling; ``what`` names the settings.
    """
    known = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]  # T is a dataclass
    for key in values:
        if key not in known:
            raise unknown_name(f"{what} setting", key, known)
    return cls(**values)


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
