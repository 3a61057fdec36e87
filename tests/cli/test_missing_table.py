"""Missing tables and the gallery as a user meets them."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from mmrobust.data import Dataset
from mmrobust.data.prepare.digits import CLASSES
from mmrobust.data.writing import SampleRow, write_dataset
from mmrobust.scenarios.draws import missing_table
from mmrobust.scenarios.grid import Grid
from mmrobust.scenarios.missing_tables import read_missing_table
from mmrobust.scenarios.scenario import Scenario

Cli = Callable[..., Any]
PAIR = ("image", "text")


def table_of(digits: Dataset, scenario: str, rate: float, seed: int) -> dict[str, str]:
    return missing_table(digits.split("test").ids, Scenario.parse(scenario, PAIR), rate, seed)


def test_a_table_is_printed_as_csv(cli: Cli, digits: Dataset) -> None:
    arguments = ("--scenario", "missing-both", "--missing-rate", 0.7, "--seed", 2)
    code, out, err = cli("data", "missing-table", digits.folder, *arguments)
    assert code == 0, err
    rows = list(csv.DictReader(io.StringIO(out)))
    assert {row["id"]: row["case"] for row in rows} == table_of(digits, "missing-both", 0.7, 2)
    assert "missing-both at 0.7, seed 2: 42 of 60 samples affected; 0 lack a modality by nature" in err
    assert cli("data", "missing-table", digits.folder, *arguments, "--quiet")[2] == ""


def test_a_table_goes_round_through_eval(
    cli: Cli, digits: Dataset, trained: Callable[..., Path], tmp_path: Path
) -> None:
    for suffix in ("pt", "parquet"):
        arguments = ("--scenario", "missing-both", "--missing-rate", 0.5, "--seed", 1)
        file = tmp_path / f"half.{suffix}"
        code, out, err = cli("data", "missing-table", digits.folder, *arguments, "--out", file)
        assert code == 0, err
        assert out.startswith(f"{file}: missing-both at 0.5, seed 1: 30 of 60 samples affected")
    codes = torch.load(tmp_path / "half.pt", weights_only=True).tolist()
    names = [("complete", "missing-text", "missing-image")[int(code)] for code in codes]
    assert names == list(table_of(digits, "missing-both", 0.5, 1).values())

    common = ("eval", trained("none", "linear"), "--data", digits.folder, "--prompting", "situation")
    code, out, err = cli(*common, "--missing-table", tmp_path / "half.pt", "--out", tmp_path / "out")
    assert code == 0, err
    code, _, err = cli(
        *common, "--scenario", "missing-both", "--missing-rate", 0.5, "--seeds", 2, "--out", tmp_path / "out"
    )
    assert code == 0, err
    frame = pd.read_parquet(tmp_path / "out" / "results.parquet").query("metric == 'accuracy'").set_index("scenario")
    (name,) = (scenario for scenario in frame.index if scenario.startswith("table:half@"))
    assert re.fullmatch(r"table:half@[0-9a-f]{8}", name) and name in out
    given = frame.loc[name]
    assert (given.missing_rate, given.seed, given.n_affected) == (0.5, 0, 30)
    drawn = frame.loc["missing-both"].set_index("seed").loc[1]
    assert given.value == drawn.value

    code, _, err = cli("check", tmp_path / "out", "--baseline", tmp_path / "out", "--fail", f"accuracy@{name}:-0.01")
    assert code == 0, err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--scenario", "mising-text", "--missing-rate", 0.5), "did you mean 'missing-text'"),
        (("--scenario", "noisy-image:blurr@2", "--missing-rate", 0.5), "unknown corruption of image 'blurr': did you"),
        (("--scenario", "missing-text", "--missing-rate", 1.5), "missing rate 1.5 is not a share of the samples"),
        (("--scenario", "missing-text", "--missing-rate", 0.5, "--split", "tset"), "did you mean 'test'"),
        (("--scenario", "missing-text", "--missing-rate", 0.5, "--modalities", "image,tex"), "did you mean 'text'"),
        (("--scenario", "missing-text", "--missing-rate", 0.5, "--out", "t.json"), "t.json: a missing table is a"),
        (("--scenario", "noisy-text:ocr@2", "--missing-rate", 0.5, "--out", "OUT.pt"), "write .parquet or .csv"),
        (("--scenario", "missing-text"), "name a --missing-rate, as in --scenario missing-both --missing-rate 0.7"),
    ],
)
def test_wrong_usage_is_one_line(
    cli: Cli, digits: Dataset, tmp_path: Path, arguments: tuple[Any, ...], message: str
) -> None:
    arguments = tuple(str(a).replace("OUT", str(tmp_path / "out")) for a in arguments)
    code, out, err = cli("data", "missing-table", digits.folder, *arguments)
    assert (code, out) == (2, "")
    assert message in err and len(err.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_eval_names_a_table_that_does_not_fit(
    cli: Cli, digits: Dataset, trained: Callable[..., Path], tmp_path: Path
) -> None:
    torch.save(torch.zeros(7799), tmp_path / "mmimdb_test.pt")
    code, out, err = cli(
        *("eval", trained("none", "linear"), "--data", digits.folder, "--out", tmp_path / "out"),
        *("--missing-table", tmp_path / "mmimdb_test.pt"),
    )
    assert (code, out) == (2, "")
    assert "mmimdb_test.pt: has 7799 codes, but the split has 60 samples; a .pt table has one code for each" in err
    assert not (tmp_path / "out").exists()


def test_tables_may_be_a_list_and_each_counts_once(
    cli: Cli, digits: Dataset, trained: Callable[..., Path], tmp_path: Path
) -> None:
    files = [tmp_path / name for name in ("a.csv", "b.csv", "c,d.csv")]
    for seed, file in enumerate(files):
        arguments = ("--scenario", "missing-text", "--missing-rate", 0.5, "--seed", seed, "--out", file, "--quiet")
        assert cli("data", "missing-table", digits.folder, *arguments).code == 0
    flags = ("--missing-table", f"{files[0]},{files[1]}", "--missing-table", files[0], "--missing-table", files[2])
    common = ("eval", trained("none", "linear"), "--data", digits.folder, "--prompting", "situation", "--quiet")
    code, _, err = cli(*common, *flags, "--out", tmp_path / "out")
    assert code == 0, err
    rows = pd.read_parquet(tmp_path / "out" / "results.parquet").query("metric == 'accuracy'")
    assert [name.partition("@")[0] for name in rows["scenario"]] == ["table:a", "table:b", "table:c-d"]
    code, out, err = cli(*common, "--missing-table", "", "--out", tmp_path / "none")
    assert (code, out) == (2, "") and "--missing-table: its value is empty" in err


def test_a_table_that_is_named_twice_is_one_of_the_grid(digits: Dataset, tmp_path: Path) -> None:
    ids = digits.split("test").ids
    (tmp_path / "t.csv").write_text("\n".join(["id,case", *(f"{name},missing-text" for name in ids)]))
    table = read_missing_table(tmp_path / "t.csv", ids, PAIR)
    assert len(list(Grid((), (0.0,), (0,), ("situation",), (table, table)).cells())) == 1


class Page(HTMLParser):
    """Counts what a page is made of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("img", "meta"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def preview(cli: Cli, folder: Path, out: Path, scenario: str, *more: object) -> Page:
    code, said, err = cli("data", "preview", folder, "--scenario", scenario, "--out", out, *more)
    assert code == 0, err
    assert said.startswith(f"{out}: {scenario} at")
    text = out.read_text()
    assert len(text) < 3_000_000
    assert "http" not in text.replace("http://www.w3.org", "")  # nothing is fetched
    page = Page(text)
    assert page.open == [] and page.all("html") == [{"lang": "en"}]
    assert all(image["alt"] for image in page.all("img"))
    assert all(sound["aria-label"] and "controls" in sound for sound in page.all("audio"))
    assert len(page.all("h2")) == len(page.all("table"))
    assert "prefers-color-scheme: dark" in text
    return page


def test_a_gallery_of_three_modalities(cli: Cli, digits: Dataset, tmp_path: Path) -> None:
    scenario = "noisy-image:shot@4+noisy-text:word-drop@4+noisy-audio:babble@3"
    page = preview(
        cli, digits.folder, tmp_path / "p.html", scenario, "--modalities", "image,text,audio", "--samples", 3
    )
    assert len(page.all("table")) == 3
    assert len(page.all("audio")) == 6 and len(page.all("img")) == 12
    sources = [tag["src"] for tag in (*page.all("img"), *page.all("audio"))]
    assert len(set(sources)) == len(sources)  # before and after differ, in each
    again = preview(
        cli, digits.folder, tmp_path / "q.html", scenario, "--modalities", "image,text,audio", "--samples", 3
    )
    assert [t["src"] for t in (*again.all("img"), *again.all("audio"))] == sources


@pytest.mark.parametrize("scenario", ["noisy-both", "noisy-both@2", "missing-both"])
def test_a_gallery_of_what_acts_on_tensors_and_of_what_is_missing(
    cli: Cli, digits: Dataset, tmp_path: Path, scenario: str
) -> None:
    rate = ("--missing-rate", 0.05) if scenario == "missing-both" else ()
    preview(cli, digits.folder, tmp_path / "p.html", scenario, "--modalities", "audio,image", *rate)
    text = (tmp_path / "p.html").read_text()
    if scenario == "missing-both":
        assert text.count("missing: the model gets the same fill") == 3  # ⌊60 · 0.05⌋ of the eight shown
        assert "3 of 60 samples affected" in text
    else:
        assert f"severity {1 if scenario == 'noisy-both' else 2}; acts on what the processor gives" in text


def test_a_gallery_escapes_texts_and_shows_what_is_missing_by_nature(cli: Cli, digits: Dataset, tmp_path: Path) -> None:
    rows = [
        SampleRow(
            "test", f"<b>{i}", s.label, image=None if i == 1 else s.image, image_path="x", text="a < b & <script> " * 99
        )
        for i, s in enumerate(digits.split("test").read(range(4)))
    ]
    common = {"name": "odd", "classes": CLASSES, "task": "single-label", "headline_metric": "accuracy"}
    write_dataset(tmp_path / "data", rows, modalities=PAIR, licence="", source="", **common)
    page = preview(cli, tmp_path / "data", tmp_path / "p.html", "noisy-text:character-slips@2", "--samples", 4)
    text = (tmp_path / "p.html").read_text()
    assert not page.all("script") and not page.all("b")
    assert text.count("missing by nature") == 2 and "1 lack a modality by nature" in text
    assert "the first 800 of" in text and page.all("mark")


def test_the_gallery_of_real_data_stays_small(cli: Cli, shared: Path, tmp_path: Path) -> None:
    data = tmp_path / "av"
    source = shared / "data" / "av-digits"
    assert cli("data", "prepare", "av-digits", "--source", source, "--out", data, "--limit", 24)[0] == 0
    page = preview(cli, data, tmp_path / "p.html", "noisy-audio:gaussian@3", "--samples", 24)
    assert len(page.all("table")) == 24 and len(page.all("audio")) == 48


def test_wrong_usage_of_the_gallery(cli: Cli, digits: Dataset, tmp_path: Path) -> None:
    for more, message in (
        (("--scenario", "noisy-text:wrod-drop@2"), "unknown corruption of text 'wrod-drop': did you mean 'word-drop'"),
        (("--scenario", "noisy-text", "--noise-profile", "released"), "released has audio and image, but no noise for"),
        (("--scenario", "noisy-image", "--noise-profile", "relased"), "did you mean 'released'"),
        (("--scenario", "missing-text", "--samples", 99), "--samples"),
    ):
        code, out, err = cli("data", "preview", digits.folder, *more, "--out", tmp_path / "p.html")
        assert (code, out) == (2, "") and message in err and len(err.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
