"""``mmrobust doctor``: everything is tried; what is broken fails, what is absent says how to get it."""

from __future__ import annotations

import importlib.util
import json
from typing import Any

import pytest

from mmrobust.audit import doctor


def trials(found: dict[str, Any]) -> dict[str, dict[str, str]]:
    return {trial["name"]: trial for trial in found["trials"]}


def test_here_everything_that_is_needed_works(cli: Any) -> None:
    code, out, _ = cli("doctor", "--json")
    found = json.loads(out)
    assert (code, found["well"]) == (0, True)
    assert found["machine"]["cores"] >= 1
    assert found["machine"]["disk_free_bytes"] > 0
    by_name = trials(found)
    assert {"dependencies", "CPU", "extra peft", "images", "audio", "working folder", "Hub cache"} <= set(by_name)
    assert "PNG, JPEG" in by_name["images"]["said"]
    assert "WAV, FLAC" in by_name["audio"]["said"]


def test_a_line_for_each_trial_in_the_terminal(cli: Any) -> None:
    code, out, _ = cli("doctor")
    assert code == 0
    assert out.startswith("python ")
    assert [line for line in out.splitlines() if line.startswith("audio           works   WAV")]


def test_an_extra_that_is_absent_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "peft" else find(name))
    found = trials(doctor.examine())["extra peft"]
    assert found["state"] == "absent"
    assert found["said"] == "not installed: peft"
    assert found["remedy"] == 'pip install "mmrobust[peft]"'


def test_a_dependency_of_another_version_is_exit_code_1(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.requires", lambda _: ["numpy<1", "no-such-package>=2", "x; extra=='dev'"])
    code, out, _ = cli("doctor")
    assert code == 1
    assert "numpy is " in out
    assert "no-such-package>=2 is not installed → pip install --upgrade mmrobust" in out


def test_little_memory_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "free_memory", lambda: 2**30)
    memory = trials(doctor.examine())["memory"]
    assert (memory["state"], memory["said"]) == ("absent", "1.0 GiB free")
