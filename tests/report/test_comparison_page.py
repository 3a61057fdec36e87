"""The page of a comparison in a browser, opened from disk."""

from __future__ import annotations

import pytest

from mmrobust.gate.compare import compare_files
from mmrobust.report import comparison
from mmrobust.scenarios.grid import Grid


@pytest.fixture(scope="module")
def written(tmp_path_factory, evaluate_into):
    """A comparison in three cells, one of them surely worse."""
    folder = tmp_path_factory.mktemp("compared")
    grid = Grid(("missing-text",), (0.0, 0.5, 1.0), (0,), ("situation",))
    evaluate_into(folder / "a", name="a", grid=grid)
    evaluate_into(folder / "b", name="b", grid=grid, seed=1, lost={"missing-text": 2.0})
    found = compare_files(folder / "a", folder / "b")
    (folder / "compare.html").write_text(comparison.as_html(found), encoding="utf-8")
    return folder / "compare.html", found


def test_every_cell_and_flipped_sample_is_there(open_file, written):
    file, found = written
    page = open_file(file)
    assert page.title() == page.locator("h1").inner_text() == "b against a"
    cells = page.locator("[aria-label=Cells] tbody tr")
    assert cells.count() == len(found.cells) == 3
    worst = found.cells.iloc[-1]
    assert cells.nth(2).locator("td").nth(5).inner_text() == f"{100 * worst['difference']:+.1f}"
    assert cells.nth(2).get_attribute("class") == "worse"
    case = page.locator("details", has_text="missing-text, situation")
    row = case.locator("tbody tr").first
    assert not row.is_visible()
    case.locator("summary").click()
    assert row.is_visible()
    assert page.locator(".flips tbody tr").count() == len(found.flips)


@pytest.mark.parametrize(("scheme", "bright"), [("light", True), ("dark", False)])
def test_it_follows_the_system_s_colours(open_file, written, scheme, bright):
    page = open_file(written[0], color_scheme=scheme)
    shades = page.evaluate(
        """() => [document.documentElement, document.querySelector("tr.worse td")].map((element) => {
            const style = getComputedStyle(element);
            return [style.color, style.colorScheme];
        })"""
    )
    assert all(allowed == "light dark" for _, allowed in shades)
    text, worse = (sum(map(float, shade[shade.index("(") + 1 : -1].split(",")[:3])) for shade, _ in shades)
    assert (text < 380) == bright
    assert (worse < 380) == bright


def test_on_a_phone_the_page_is_no_wider_than_the_screen(open_file, written):
    page = open_file(written[0], viewport={"width": 390, "height": 844}, has_touch=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    table = page.locator("[aria-label=Cells]")
    assert table.evaluate("e => e.scrollWidth > e.clientWidth && e.tabIndex === 0")  # it scrolls, by keyboard too
