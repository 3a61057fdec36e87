"""The report as pictures."""

from __future__ import annotations

import subprocess
import sys

import pytest
from PIL import Image

from mmrobust.errors import UsageError
from mmrobust.report import figures, tables


def test_every_chart_is_a_png_an_svg_and_a_pdf(two, tmp_path):
    files = figures.draw(tables.build(two, promptings=["situation"]), tmp_path / "pictures")
    charts = ("digits-test-accuracy-curves", "digits-test-accuracy-ranges")
    assert [file.name for file in files] == [f"{chart}.{end}" for chart in charts for end in ("png", "svg", "pdf")]
    assert sorted(file.name for file in (tmp_path / "pictures").iterdir()) == sorted(file.name for file in files)
    by_name = {file.name: file for file in files}
    with Image.open(by_name["digits-test-accuracy-curves.png"]) as picture:
        assert picture.width > 1200
        assert len(picture.convert("RGB").getcolors(1 << 24)) > 100  # lines and bands, not a blank page
    svg = by_name["digits-test-accuracy-curves.svg"].read_text(encoding="utf-8")
    for word in ("missing-image", "missing-text", "missing-both", "missing rate η", "none", "mmp", "80 samples"):
        assert word in svg
    assert by_name["digits-test-accuracy-ranges.pdf"].read_bytes().startswith(b"%PDF")


def test_published_figures_have_a_picture_of_their_own(two, tmp_path):
    report = tables.build(two, promptings=["situation"]).with_published("ptm")
    names = [name for name, _ in figures._charts(report)]
    assert names[-2:] == ["published-UrbanSound8K-AV", "published-CIFAR10-AV"]


def test_a_file_in_the_way_is_named(two, tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(UsageError, match="taken: is a file; name a folder"):
        figures.draw(tables.build(two), tmp_path / "taken")


@pytest.mark.parametrize("absent", ["altair", "vl_convert"])
def test_without_the_extra_the_message_says_how_to_get_it(absent):
    code = f"import sys; sys.modules[{absent!r}] = None\nimport mmrobust.report.figures"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "figures need Altair and vl-convert: pip install 'mmrobust[report]'" in done.stderr
