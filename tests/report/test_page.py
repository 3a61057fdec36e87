"""The page in a browser: a real grid, opened from disk in headless Chromium."""

from __future__ import annotations

import axe_playwright_python.sync_playwright as axe
import pytest

from mmrobust.cli import app
from mmrobust.report import FORMATS
from mmrobust.report.numbers import percent
from mmrobust.report.report import build_report
from mmrobust.storage.results import Results, read_results

PHONE = {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def written(grid, digits, tmp_path_factory):
    """The page of four checkpoints with 165 cells each, with everything that a page can have."""
    file = tmp_path_factory.mktemp("page") / "report.html"
    arguments = ["report", grid, "--html", file, "--data", digits.folder, "--published", "ptm", "--details", "--quiet"]
    assert app.run([*map(str, arguments), "--baseline", "none-linear"]) == 0
    assert file.stat().st_size < 3_000_000
    return file


@pytest.fixture
def opened(open_file, written):
    """Open the page, and wait until its charts are there."""

    def open_page(**settings):
        page = open_file(written, **settings)
        drawn(page)
        return page

    return open_page


def drawn(page, after="0"):
    """Wait until the charts are there."""
    page.wait_for_function("after => Number(document.body.dataset.drawn ?? 0) > Number(after)", arg=after)


def change(page, act):
    """Do something that draws the charts again."""
    before = page.evaluate("document.body.dataset.drawn")
    act()
    drawn(page, before)


def column(page, table, number):
    return page.locator(f"#{table} tbody tr > :nth-child({number})").all_inner_texts()


def test_every_chart_is_drawn_with_its_values(opened, grid):
    page = opened()
    assert page.locator("#curves svg.marks").count() == 3
    assert page.locator("#ranges svg.marks").count() == 3
    assert page.locator("#curves .panel").first.locator("path[aria-roledescription='line mark']").count() == 4
    for kind in ("effective", "classes", "reliability", "published"):
        assert page.locator(f"#s-{kind} svg.marks").count() >= 3
    assert page.locator("#s-standings svg.marks").count() == 1
    scales = [
        page.locator(f"#{kind} .{axis} text").all_text_contents()
        for kind, axis in (("curves", "role-axis:has(text)"), ("ranges", "role-axis:has(text)"))
    ]
    # Curves and what is kept of them have the same scale.
    ends = [{float(text.replace("−", "-")) for text in found if text.replace("−", "").isdigit()} for found in scales]
    assert max(ends[0]) == max(ends[1])
    assert page.locator("#s-standings .mark-rule.role-mark line").count() == 4  # the intervals
    (table,) = build_report([read_results(grid)]).tables
    said = page.locator("#curves svg.marks").first.get_attribute("aria-label")
    for row in table.rows[:4]:
        first, last = (100 * row.points[rate].value for rate in (0.0, 1.0))
        assert f"{row.checkpoint} from {first:.1f} to {last:.1f}" in said


def test_the_tables_hold_what_the_report_holds(opened, grid):
    page = opened()
    (table,) = build_report([read_results(grid)]).tables
    rows = page.locator("#values tbody tr")
    assert rows.count() == len(table.rows) == 12
    cells = rows.first.locator("td").all_inner_texts()
    own = table.rows[0]
    shown = [cell.split()[0] for cell in cells[2:13]]
    assert shown == [f"{100 * own.points[rate].value:.1f}" for rate in table.rates]
    page.locator("#cells-details summary").click()
    page.wait_for_selector("#cells tbody tr")  # the table is made when it is first opened
    assert page.locator("#cells tbody tr").count() == 4 * 165


def test_figures_show_their_intervals(opened, grid):
    page = opened()
    (table,) = build_report([read_results(grid)]).tables
    own = table.rows[0]
    area, relative, drop, worst = page.locator("#values tbody tr").first.locator("td").all()[-4:]
    for cell, name in ((area, "auc_eta"), (relative, "relative_robustness"), (drop, "drop_per_10_points")):
        value, low, high = (100 * getattr(own, f"{name}{end}") for end in ("", "_low", "_high"))
        number, half = cell.inner_text().split()
        assert float(number) == float(f"{value:.1f}")
        assert float(half.removeprefix("±")) == pytest.approx((high - low) / 2, abs=0.06)
        assert cell.get_attribute("title") == f"95 % interval {percent(low / 100)} to {percent(high / 100)}"
    within = f"{100 * own.worst_value_low:.1f} to {100 * own.worst_value_high:.1f}"
    assert worst.inner_text().split("\n") == [f"{100 * own.worst_value:.1f}", within]
    assert worst.evaluate("cell => cell.querySelector('small').offsetHeight < cell.offsetHeight / 2")


def test_the_first_screen_answers_what_one_asks_first(opened, grid):
    page = opened()
    (table,) = build_report([read_results(grid)]).tables
    mean = {
        name: sum(row.auc_eta for row in table.rows if row.checkpoint == name) / len(table.scenarios)
        for name in table.checkpoints
    }
    best, runner_up = sorted(mean, key=mean.get, reverse=True)[:2]
    worst = min((row for row in table.rows if row.checkpoint == best), key=lambda row: row.worst_value)
    robust, breaks, ahead = page.locator("#key .tile").all_inner_texts()
    assert robust.startswith("How robust is it?") and best in robust and f"AUC-η {100 * mean[best]:.1f}" in robust
    assert f"{100 * worst.worst_value:.1f}\n" in breaks and worst.scenario in breaks
    assert f"+{100 * (mean[best] - mean[runner_up]):.1f}\n" in ahead and runner_up in ahead
    assert page.locator("#key").evaluate("key => key.getBoundingClientRect().bottom") < 900


def test_a_table_that_goes_on_beyond_its_edge_says_so(opened):
    page = opened()
    said = page.locator("#values + .more-said")
    assert said.is_visible() and "more" in page.locator("#values").get_attribute("class")
    page.locator("#values").evaluate("table => table.scrollTo(9999, 0)")
    page.wait_for_function("!document.querySelector('#values').classList.contains('more')")
    assert said.is_hidden() and page.locator("#ranking + .more-said").is_hidden()


def test_the_ranking_shows_intervals_of_single_curves_and_of_the_worst_cell(opened, grid):
    page = opened()
    (table,) = build_report([read_results(grid)]).tables
    curves = [row for row in table.rows if row.checkpoint == "mmp-linear"]
    ranked = page.locator("#ranking tbody tr", has_text="mmp-linear")
    worst = min(curves, key=lambda row: row.worst_value)
    low, high = min(row.worst_value_low for row in curves), worst.worst_value_high
    assert ranked.locator("td").nth(3).inner_text().split("\n")[1] == f"{100 * low:.1f} to {100 * high:.1f}"
    assert ranked.locator("td").first.locator("small").count() == 0  # a mean over three scenarios
    for scenario in ("missing-both", "missing-image"):
        change(page, lambda scenario=scenario: page.get_by_role("checkbox", name=scenario).uncheck())
    (only,) = (row for row in curves if row.scenario == "missing-text")
    said = f"95 % interval {100 * only.auc_eta_low:.1f} to {100 * only.auc_eta_high:.1f}"
    assert ranked.locator("td").first.get_attribute("title") == said
    assert ranked.locator("td").first.locator("small").inner_text().startswith("±")


def test_results_of_before_show_their_figures_without_intervals(open_file, old, tmp_path):
    (tmp_path / "page.html").write_text(FORMATS["html"](build_report([old])))
    page = open_file(tmp_path / "page.html")
    drawn(page)
    cells = page.locator("#values tbody tr").first.locator("td").all()
    assert [cell.locator("small").count() for cell in cells] == [0] * 2 + [1] * 11 + [0] * 4
    assert page.locator("#ranking small").count() == 0


def test_filters_change_charts_and_tables(opened):
    page = opened()
    change(page, lambda: page.get_by_role("checkbox", name="missing-text").uncheck())
    assert page.locator("#curves svg.marks").count() == 2
    assert set(column(page, "values", 2)) == {"missing-image", "missing-both"}
    change(page, lambda: page.get_by_role("checkbox", name="mmp-linear").uncheck())
    assert page.locator("#curves .panel").first.locator("path[aria-roledescription='line mark']").count() == 3
    assert "mmp-linear" not in "".join(column(page, "ranking", 1))
    change(page, lambda: page.get_by_label("Metric").select_option("macro_f1"))
    assert page.locator("h1").inner_text() == "digits: macro_f1"
    assert page.locator("#curves svg.marks").count() == 2  # what was chosen stays chosen
    change(page, lambda: page.get_by_role("button", name="none", exact=True).click())
    assert page.locator("#curves").inner_text() == "Nothing passes the filters."


def test_checkpoints_are_ranked_over_the_curves_that_all_have(open_file, make_results, tmp_path):
    """One that was scored on its best scenario alone does not rank above one that is better there."""
    better, (frame, provenance) = make_results("better", strength=1.5), make_results("partial", strength=1.2)
    partial = Results(frame[(frame.scenario == "missing-image") & (frame.prompting == "situation")], provenance)
    (tmp_path / "page.html").write_text(FORMATS["html"](build_report([partial, better])))
    page = open_file(tmp_path / "page.html")
    drawn(page)
    rows = build_report([better, partial]).tables[0].rows
    shared = {
        row.checkpoint: f"{100 * row.auc_eta:.1f}"
        for row in rows
        if row.scenario == "missing-image" and row.prompting == "situation"
    }
    assert column(page, "ranking", 1) == sorted(shared, key=lambda name: -float(shared[name]))
    means = [cell.split()[0] for cell in column(page, "ranking", 2)]  # without the interval
    assert means == [shared[name] for name in column(page, "ranking", 1)]
    assert "over the 1 of 6 curves that all of them have" in page.locator("#ranking caption").inner_text()


def test_tables_sort_by_mouse_and_by_keyboard(opened):
    page = opened()
    head = page.locator("#ranking th button")
    head.nth(2).click()
    complete = [float(value) for value in column(page, "ranking", 3)]
    assert complete == sorted(complete, reverse=True)
    assert page.locator("#ranking th").nth(2).get_attribute("aria-sort") == "descending"
    page.keyboard.press("Enter")  # the button has the focus
    assert [float(value) for value in column(page, "ranking", 3)] == sorted(complete)
    assert page.locator("#ranking th[aria-sort]").count() == 1
    assert page.locator("#announce").inner_text() == "Sorted by complete, ascending."


def test_the_keyboard_reaches_everything_in_reading_order(opened):
    page = opened()
    seen = []
    for _ in range(16):
        page.keyboard.press("Tab")
        seen.append(
            page.evaluate(
                "(e => e.id || e.value || e.getAttribute('href') || e.textContent.trim())(document.activeElement)"
            )
        )
    assert seen[0] == "#content"
    assert seen[1] == "theme"
    order = ["choose-metric", "missing-image", "missing-text", "missing-both", "situation", "mmp-linear", "#s-curves"]
    places = [seen.index(name) for name in order]
    assert places == sorted(places)


@pytest.mark.parametrize(("width", "scheme"), [(1400, "light"), (390, "dark")])
def test_axe_finds_nothing(opened, width, scheme):
    page = opened(viewport={"width": width, "height": 844}, color_scheme=scheme)
    assert axe.Axe().run(page).response["violations"] == []


def test_a_screen_reader_is_told_what_everything_is(opened):
    page = opened()
    unnamed = page.evaluate(
        """() => {
            const kinds = "input, select, button, img, svg.marks, table, section, summary";
            const named = (e) => e.getAttribute("aria-label") || e.getAttribute("aria-labelledby") || e.labels?.length
                || e.alt || e.querySelector("caption")
                || (["BUTTON", "SUMMARY"].includes(e.tagName) && e.textContent.trim());
            return [...document.querySelectorAll(kinds)].filter((e) => !named(e)).map((e) => e.outerHTML.slice(0, 120));
        }"""
    )
    assert unnamed == []
    # Regions of one name could not be told apart.
    regions = page.evaluate(
        "[...document.querySelectorAll('section, [role=region]')].filter((e) => !e.hidden)"
        ".map((e) => e.ariaLabel ?? document.getElementById(e.getAttribute('aria-labelledby')).textContent)"
    )
    assert len(regions) == len(set(regions))
    sections = page.evaluate("[...document.querySelectorAll('main section')].map((e) => e.id)")
    order = [
        "key",
        "s-curves",
        "s-values",
        "s-worth",
        "s-ranges",
        "s-ranking",
        "s-standings",
        "s-classes",
        "s-reliability",
    ]
    assert [name for name in sections if name in order] == [name for name in order if name in sections]
    assert sections[-1] == "s-provenance"
    levels = [int(tag[1]) for tag in page.evaluate("[...document.querySelectorAll('h1,h2,h3')].map((e) => e.tagName)")]
    assert levels[0] == 1 == levels.count(1)


@pytest.mark.parametrize(("scheme", "bright"), [("light", True), ("dark", False)])
def test_it_follows_the_system_s_colours_and_the_toggle(opened, scheme, bright):
    page = opened(color_scheme=scheme)
    shade = "Number(getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0])"
    assert (page.evaluate(shade) > 128) == bright
    other = "dark" if bright else "light"
    for _ in range(2):  # system → light → dark
        if f"Theme: {other}" not in page.locator("#theme").inner_text():
            change(page, lambda: page.locator("#theme").click())
    assert (page.evaluate(shade) > 128) != bright
    assert page.locator("#curves svg.marks").count() == 3


def test_on_a_phone_nothing_is_wider_than_the_screen(opened):
    page = opened(viewport=PHONE, has_touch=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    assert not page.locator("#controls").is_visible()
    page.locator("#filters summary").click()
    change(page, lambda: page.get_by_role("checkbox", name="missing-both").uncheck())
    assert page.locator("#curves svg.marks").count() == 2


def test_pointing_at_a_curve_tells_its_value(opened):
    page = opened()
    page.locator("#curves svg.marks").first.scroll_into_view_if_needed()
    dot = page.locator("#curves .panel").first.locator(".mark-symbol path").last
    dot.hover(force=True)
    page.wait_for_selector("#vg-tooltip-element.visible")
    said = page.locator("#vg-tooltip-element").inner_text()
    for word in ("checkpoint", "η", "value, %", "95 % interval", "spread over seeds"):
        assert word in said


def test_the_worst_samples_are_linked_with_thumbnails(opened):
    page = opened()
    links = page.locator("#samples .links a")
    assert links.count() == page.locator("#samples .sample").count() > 0
    links.first.click()
    target = page.locator(".sample:target")
    assert target.count() == 1
    assert target.locator("img").evaluate("image => image.complete && image.naturalWidth > 0")
