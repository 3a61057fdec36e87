"""Train rate × test rate: from real trainings at different rates to the map in every format."""

from __future__ import annotations

import pytest

from mmrobust.evaluation.evaluate import evaluate_models
from mmrobust.models.checkpoint import load_checkpoint
from mmrobust.report import sections, tables
from mmrobust.scenarios.grid import Grid
from mmrobust.storage.results import read_results
from mmrobust.training.loop import train
from mmrobust.training.recipe import Recipe
from mmrobust.training.settings import TrainSettings

RATES = (0.0, 0.7)


@pytest.fixture(scope="module")
def results(trained, digits, tmp_path_factory):
    """The same model trained at two missing rates, evaluated at two."""
    folder = tmp_path_factory.mktemp("rates")
    backbone = str(trained("full", "linear"))
    for rate in RATES:
        settings = TrainSettings(
            data=digits.folder,
            backbone=backbone,
            method="none",
            head="linear",
            recipe=Recipe(epochs=2, batch_size=16, lr=3e-3),
            modalities=("image", "text"),
            missing_rate=rate,
        )
        train(settings, folder / f"at-{rate:g}")
    loaded = {f"at-{rate:g}": load_checkpoint(folder / f"at-{rate:g}") for rate in RATES}
    grid = Grid(("missing-text",), (0.0, 1.0), (0,), ("situation",))
    evaluate_models(loaded, digits, grid, folder / "results")
    return folder / "results"


def test_the_map_holds_what_the_results_hold(results):
    read = read_results(results)
    report = sections.with_sections(tables.build([read]))
    (section,) = (section for section in report.sections if section.kind == "rates")
    assert [row[:4] for row in section.rows] == [
        ("missing-text", "situation", "none + linear", f"missing-both {rate:g}") for rate in RATES
    ]
    values = read.frame[read.frame["metric"] == "accuracy"].set_index(["checkpoint", "missing_rate"])["value"]
    for row, rate in zip(section.rows, RATES, strict=True):
        assert row[4:] == tuple(f"{100 * values[f'at-{rate:g}', test]:.1f}" for test in (0.0, 1.0))


def test_it_is_drawn_on_the_page_and_printed_in_every_other_format(cli, results, tmp_path, open_file):
    files = {name: tmp_path / f"report.{name}" for name in ("html", "markdown", "latex")}
    code, out, _ = cli("report", results, *(part for name, file in files.items() for part in (f"--{name}", file)))
    assert code == 0
    for text in (out, files["markdown"].read_text(), files["latex"].read_text()):
        assert "Train rate" in text
        assert "missing-both 0.7" in text
    page = open_file(files["html"])
    page.wait_for_function("Number(document.body.dataset.drawn ?? 0) > 0")
    assert page.locator("#s-rates svg.marks").count() == 1
    assert page.locator("#s-rates .mark-rect path").count() == 4
    assert {"η 0", "η 0.7"} <= set(page.locator("#s-rates svg.marks text").all_text_contents())
