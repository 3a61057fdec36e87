"""docs/commands.md is what the commands' own help says, and says all of it."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "write_commands.py"
spec = importlib.util.spec_from_file_location("write_commands", SCRIPT)
assert spec and spec.loader
write_commands = importlib.util.module_from_spec(spec)
spec.loader.exec_module(write_commands)
PAGE, render = write_commands.PAGE, write_commands.render


def test_the_page_is_what_help_says() -> None:
    assert PAGE.read_text(encoding="utf-8") == render(), "run: python scripts/write_commands.py"


def test_every_flag_has_a_help_text() -> None:
    for line in render().splitlines():
        if line.startswith("| `"):
            assert re.match(r"\| `[^`]+` \| [^|\s]", line), line


def test_its_variables_are_those_that_are_read(cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "`MMROBUST_DATA_INFO_JSON`" in render()
    monkeypatch.setenv("MMROBUST_DATA_PREPARE_OUT", str(tmp_path / "digits"))
    monkeypatch.setenv("MMROBUST_DATA_PREPARE_LIMIT", "3")
    assert cli("data", "prepare", "digits").code == 0
    monkeypatch.setenv("MMROBUST_DATA_INFO_JSON", "1")
    assert cli("data", "info", tmp_path / "digits").out.startswith("{")


def test_it_does_not_depend_on_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("FORCE_COLOR", "1")
    page = render()
    assert page == PAGE.read_text(encoding="utf-8")
    assert "\x1b" not in page
