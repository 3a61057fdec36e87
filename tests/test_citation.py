"""CITATION.cff says what the package says."""

from __future__ import annotations

import sys
from pathlib import Path

import yaml

import mmrobust

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]


def test_it_cites_this_version() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["version"] == mmrobust.__version__
    assert f"## {cited['version']} ({cited['date-released']})" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_source_distribution_holds_what_the_pages_name() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    included = settings["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    assert {"mmrobust", "tests", "docs", "examples", "benchmarks", "scripts", "CITATION.cff"} <= set(included)
    assert all((ROOT / name).exists() for name in included)
