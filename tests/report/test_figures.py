"""The report as pictures."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from PIL import Image

from mmrobust.errors import UsageError
from mmrobust.report import figures
from mmrobust.report.analyses import read_behind, with_sections
from mmrobust.report.report import build_report, read_distinct
from mmrobust.scenarios.grid import Grid


def test_every_chart_is_a_png_an_svg_and_a_pdf(two, tmp_path):
    files = figures.draw(build_report(two, promptings=["situation"]), tmp_path / "pictures")
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


def test_sections_have_pictures_of_their_own(tmp_path, evaluate_into):
    grid = Grid(("missing-text",), (0.0, 1.0), (0,), ("situation", "concat"))
    for name, lost in (("a", 0.5), ("b", 3.0)):
        evaluate_into(tmp_path / name, name=name, lost={"missing-text": lost}, grid=grid)
    read = read_distinct([tmp_path / "a", tmp_path / "b"])
    for results, rate in zip(read.values(), (0.0, 0.7), strict=True):
        (about,) = results.provenance["checkpoints"].values()
        about["training"] = {"scenario": "missing-both", "missing_rate": rate}
    stored = read_behind(read)
    report = with_sections(build_report(read.values()), baseline="a", stored=stored)
    files = figures.draw(report, tmp_path / "pictures")
    kinds = ["standings", "prompting", "rates", "effective", "classes", "reliability"]
    assert [file.name for file in files if file.suffix == ".svg"][2:] == [f"made-test-accuracy-{k}.svg" for k in kinds]
    said = {kind: (tmp_path / "pictures" / f"made-test-accuracy-{kind}.svg").read_text() for kind in kinds}
    assert "Standings: accuracy, made, test: % of comparisons won" in said["standings"]
    for kind, words in {"rates": ("η 0.7", "situation"), "classes": ("c0", "c3"), "reliability": ("ECE",)}.items():
        assert all(word in said[kind] for word in words)
    # The heat map holds the printed values of its table.
    (table,) = (section for section in report.sections if section.kind == "rates")
    printed = {f"{float(cell):.0f}" for row in table.rows for cell in row[4:]}
    assert printed <= set(re.findall(r">(\d+)</text>", said["rates"]))
    for kind in ("prompting", "effective"):
        with Image.open(tmp_path / "pictures" / f"made-test-accuracy-{kind}.png") as picture:
            assert len(picture.convert("RGB").getcolors(1 << 24)) > 50


def test_file_names_are_portable_and_unique():
    data = ["a:b", "a@b", "A+b", "con.x", "Größe 名", "名", "a" * 300, "b" * 300]
    stems = figures.file_stems([f"{name}-test-{kind}" for name in data for kind in ("curves", "ranges")])
    assert stems[:8:2] == ["a-b-test-curves", "a-b-test-curves-2", "A-b-test-curves-3", "con-x-test-curves"]
    assert stems[8:12:2] == ["Groe-test-curves", "test-curves"]
    assert len({stem.lower() for stem in stems}) == len(stems)
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,130}", stem) for stem in stems)
    assert stems[-2].endswith("bbb-test-curves")


def test_published_figures_have_a_picture_of_their_own(two, tmp_path):
    report = build_report(two, promptings=["situation"]).with_published("ptm")
    names = [name for name, _ in figures._charts(report)]
    assert names[-2:] == ["published-UrbanSound8K-AV", "published-CIFAR10-AV"]


def test_a_file_in_the_way_is_named(two, tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(UsageError, match="taken: is a file; name a folder"):
        figures.draw(build_report(two), tmp_path / "taken")


@pytest.mark.parametrize("absent", ["altair", "vl_convert"])
def test_without_the_extra_the_message_says_how_to_get_it(absent):
    code = f"import sys; sys.modules[{absent!r}] = None\nimport mmrobust.report.figures"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "figures need Altair and vl-convert: pip install 'mmrobust[report]'" in done.stderr
