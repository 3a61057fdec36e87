"""``mmrobust demo``: the whole way by one command, and a second run that finds everything done."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path


def test_the_whole_way(cli: Callable[..., object], tmp_path: Path) -> None:
    out = tmp_path / "demo"
    code, printed, said = cli("demo", "--limit", 24, "--out", out)
    assert code == 0, said
    for name in ("full", "none-linear", "none-prototype", "mmp-linear", "mmp-prototype"):
        assert name in printed
        assert (out / "checkpoints" / name / "config.json").is_file()
        assert (out / "results" / name / "results.parquet").is_file()
    assert "check mmp-linear against none-linear" in printed
    assert str(out / "report.md") in printed.replace("\n", "")
    assert "mmrobust train" in said

    stamps = {path: path.stat().st_mtime_ns for path in (out / "checkpoints").rglob("*.safetensors")}
    code, again, _ = cli("demo", "--limit", 24, "--out", out)
    assert (code, again) == (0, printed)
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())
