"""What a command must not import: start-up is paid at every call."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("torch", "transformers", "sklearn", "pandas", "pyarrow", "scipy", "yaml", "urllib.request", "PIL")
OF_MODELS = ("torch", "transformers", "sklearn", "yaml", "urllib.request", "PIL", "soundfile", "scipy.stats")
"""What a command that reads only tables and predictions does without."""
RESULTS = Path(__file__).parent / "historic_results" / "v2"
CANDIDATE, BASELINE = str(RESULTS / "candidate"), str(RESULTS / "baseline")


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["train", "--help"], ["eval", "--help"], ["check", "--help"], ["import", "--help"], ["--version"]],
)
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys; from mmrobust.cli.app import run; "
        f"run({arguments!r}); print([m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "also"),
    [
        (["report", CANDIDATE, BASELINE], ("scipy",)),
        (["check", CANDIDATE, "--baseline", BASELINE, "--no-stats"], ()),
        (["compare", CANDIDATE, BASELINE], ()),
    ],
)
def test_reading_tables_imports_nothing_of_models(arguments: list[str], also: tuple[str, ...]) -> None:
    code = (
        f"import sys; from mmrobust.cli.app import run; code = run({arguments!r}); "
        f"print(code, [m for m in {(*OF_MODELS, *also)!r} if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] in ("0 []", "1 []")


def test_importing_a_library_sets_off_no_full_collection() -> None:
    code = (
        "import gc, sys; sys.argv = ['mmrobust', 'doctor', '--help']; from mmrobust.__main__ import main\n"
        "try: main()\nexcept SystemExit: before = gc.get_stats()[2]['collections']\n"
        "import pandas; print(gc.get_stats()[2]['collections'] - before, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "0"


def test_the_package_itself_is_light_and_complete() -> None:
    code = (
        f"import sys, mmrobust; assert not [m for m in {HEAVY!r} if m in sys.modules]; mmrobust.load; mmrobust.evaluate"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
