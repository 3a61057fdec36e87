"""Results to report on: scored predictions of models whose quality is known."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from mmrobust.cases import missing_cases
from mmrobust.evaluation.evaluate import evaluate_models
from mmrobust.models.checkpoint import load_checkpoint
from mmrobust.scenarios.grid import DEFAULT_RATES, Grid
from mmrobust.scoring.join import ScoringSettings, score
from mmrobust.scoring.predictions import Predictions
from mmrobust.scoring.truth import SplitTruth
from mmrobust.storage.results import Results, read_results

MODALITIES = ("image", "text")
SCENARIOS = ("missing-both", "missing-image", "missing-text")


def make(name="mmp", strength=1.0, rates=DEFAULT_RATES, seeds=(0, 1, 2), promptings=("situation", "concat")):
    """Results of a model on 80 samples; ``strength`` is how well it copes with what is missing."""
    labels = np.random.default_rng(0).integers(0, 4, 80)
    truth = SplitTruth(
        tuple(f"s{i}" for i in range(80)), tuple((int(c),) for c in labels), MODALITIES, 4, "single-label"
    )
    logits = {}
    for number, case in enumerate(missing_cases(MODALITIES)):
        for prompting in ("situation", "concat"):
            z = np.random.default_rng([number, len(prompting)]).normal(size=(80, 4)).astype(np.float32)
            z[np.arange(80), labels] += 3.0 if case.name == "complete" else strength - 0.2 * (prompting == "concat")
            logits[case.name, prompting] = z
    frame = score(
        Predictions(truth, logits),
        truth.draw_grid(Grid(SCENARIOS, rates, seeds, promptings)),
        ScoringSettings(resamples=100),
    )
    about = {"method": "mmp", "head": "linear", "backbone": "tiny-vilt"}
    provenance = {
        "dataset": {
            "name": "digits",
            "fingerprint": "0123abcd",
            "split": "test",
            "task": "single-label",
            "headline_metric": "accuracy",
            "classes": ["a", "b", "c", "d"],
        },
        "checkpoints": {name: {"fingerprint": f"of-{name}", "fill": "ones", **about}},
        "versions": {"mmrobust": "0.1.0", "torch": "2.9"},
        "git": {"commit": "abc123", "dirty": True},
        "command": "mmrobust eval runs/mmp --data digits --out results",
        "device": "cpu",
        "dtype": "float32",
        "finished": "2026-01-01T00:00:00Z",
    }
    return Results(frame.assign(checkpoint=name, dataset="digits", split="test", **about), provenance)


@pytest.fixture(scope="session")
def make_results():
    """A function that makes the results of one model."""
    return make


@pytest.fixture(scope="session")
def grid(digits, trained, tmp_path_factory):
    """A real evaluation: four trained checkpoints, 165 cells each, with their predictions."""
    out = tmp_path_factory.mktemp("grid")
    folders = [trained(method, head) for method in ("none", "mmp") for head in ("linear", "prototype")]
    checkpoints = {"-".join(folder.name.split("-")[:2]): load_checkpoint(folder) for folder in folders}
    cells = Grid(SCENARIOS, DEFAULT_RATES, tuple(range(5)), ("situation",))
    evaluate_models(checkpoints, digits, cells, out)
    return out


@pytest.fixture(scope="session")
def browser():
    """A headless Chromium; tests that want one skip where there is none."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium is installed")
    with sync_api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        yield launched
        launched.close()


@pytest.fixture
def open_file(browser):
    """Open a page from disk; at the end there must have been no complaint, and no request but for the file itself."""
    contexts, complaints, requests, opened = [], [], [], set()

    def open_page(file, **settings):
        context = browser.new_context(**{"viewport": {"width": 1360, "height": 900}, **settings})
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(file.as_uri())
        opened.add(file.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []
    assert {url for url in requests if not url.startswith(("data:", "blob:"))} == opened


@pytest.fixture(scope="session")
def old():
    """Results of schema 1, whose values have intervals and whose figures have none."""
    return read_results(Path(__file__).parents[1] / "historic_results" / "v1" / "baseline")


@pytest.fixture(scope="session")
def two(make_results):
    """A weaker and a stronger model."""
    return [make_results("none", strength=0.5), make_results("mmp", strength=2.0)]
