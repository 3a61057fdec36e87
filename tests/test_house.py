"""The layout of CONTRIBUTING.md holds: floors, rooms, circles, and what imports no torch."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "house.py"
spec = importlib.util.spec_from_file_location("house", SCRIPT)
assert spec and spec.loader
house = importlib.util.module_from_spec(spec)
spec.loader.exec_module(house)


def test_no_arrow_points_up_and_no_circle_closes():
    assert house.faults() == []


def test_the_arrows_draw_at_most_nine_floors():
    assert house.figures()["floors"] <= 9


def test_a_fault_is_seen(tmp_path):
    for name, text in {
        "errors": "import mmrobust.cli.app\n",
        "storage/files": "from mmrobust.storage import locks\n",
        "storage/locks": "def f():\n    from mmrobust.storage.files import x\n",
        "models/heads/linear": "from mmrobust.models.methods.mmp import y\n",
        "models/methods/mmp": "",
        "utils": "",
        "cli/app": "from mmrobust import __main__\n",
        "__main__": "",
    }.items():
        file = tmp_path / f"{name}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    assert house.faults(tmp_path) == [
        "utils is no room of the house",
        "cli.app imports the door __main__",
        "errors (floor 1) imports cli.app (floor 9)",
        "models.heads.linear imports models.methods.mmp: these parts of the model do not know each other",
        "a circle: storage.files → storage.locks → storage.files",
    ]


@pytest.mark.parametrize("room", house.TORCH_FREE)
def test_no_torch_is_imported(room):
    names = [f"mmrobust.{name}" for name in house.modules() if house.room_of(name) == room and "__main__" not in name]
    code = f"import sys, {', '.join(names)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_each_missing_table_is_drawn_once_per_evaluation():
    tables, draws = house.draws_per_table()
    assert tables == draws == 9
