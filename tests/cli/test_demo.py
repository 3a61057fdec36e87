"""``mmrobust demo``: the whole way by one command, and a second run that finds everything done."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path


def test_the_whole_way(cli: Callable[..., object], tmp_path: Path) -> None:
    out = tmp_path / "demo"
    code, printed, said = cli("demo", "--limit", 24, "--out", out)
    assert code == 0, said
    for name in ("full", "head", "prototypes", "prompts", "own", "own-audio"):
        assert name in printed
        assert (out / "checkpoints" / name / "config.json").is_file() != name.startswith("own")
        assert (out / "results" / name / "results.parquet").is_file()
    head = json.loads((out / "checkpoints" / "prototypes" / "config.json").read_text())["head"]
    assert (head["name"], head["normalise"]) == ("prototype", "parts")  # DPL's as released
    for scenario in ("missing-both", "missing-audio", "missing-any"):
        assert f"\n{scenario}\n" in printed
    assert "check prompts against head:" in printed and "check full against head:" in printed
    assert "What each modality is worth" in (out / "report.html").read_text()
    assert str(out / "report.md") in printed.replace("\n", "")
    assert "mmrobust train" in said

    stamps = {path: path.stat().st_mtime_ns for path in (out / "checkpoints").rglob("*.safetensors")}
    code, again, _ = cli("demo", "--limit", 24, "--out", out)
    assert (code, again) == (0, printed)
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())
