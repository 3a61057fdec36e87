"""The built-in recipes: a YAML file each, named after method and data. Listing their names costs no torch."""

from __future__ import annotations

from pathlib import Path

BUILTIN = {file.stem: file for file in sorted(Path(__file__).parent.glob("*.yaml"))}
"""Name → file."""

DEFAULT = "default"
"""The recipe that says nothing: every setting is its method's default."""
