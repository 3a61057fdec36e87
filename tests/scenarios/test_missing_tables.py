"""Missing tables as files: what is written reads back, and what does not fit is named."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmrobust.cases import Case
from mmrobust.errors import DataError, MmrobustError, UsageError
from mmrobust.scenarios.draws import draw_tables, missing_table
from mmrobust.scenarios.grid import Grid
from mmrobust.scenarios.missing_tables import read_missing_table, write_missing_table
from mmrobust.scenarios.scenario import Scenario
from mmrobust.storage.provenance import read_provenance

PAIR = ("image", "text")
IDS = tuple(f"sample-{i}" for i in range(50))
TABLE = missing_table(IDS, Scenario.parse("missing-both", PAIR), 0.7, 3)


def digest(table: dict[str, str]) -> str:
    return hashlib.blake2b("\n".join(f"{i}={c}" for i, c in table.items()).encode(), digest_size=8).hexdigest()


PINNED = {
    "missing-both": "b56f3af97a1ad7a0",
    "noisy-image:blur@3": "c958f45aa238bde6",
    "missing-text": "6dc82b2fc56adf9d",
}


@pytest.mark.parametrize("scenario", PINNED)
def test_a_table_is_the_same_on_every_machine_and_in_every_version(scenario: str) -> None:
    assert digest(missing_table(IDS, Scenario.parse(scenario, PAIR), 0.7, 3)) == PINNED[scenario]


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".pt"])
def test_what_is_written_reads_back(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"my table{suffix}"
    write_missing_table(file, TABLE, {"scenario": "missing-both", "seed": 3})
    given_table = read_missing_table(file, IDS, PAIR)
    assert dict(given_table.cases) == TABLE
    assert given_table.rate == 0.7 and len(given_table.affected_ids) == 35
    assert given_table.name.startswith("table:my-table@")
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_a_pt_is_the_papers_vector(tmp_path: Path) -> None:
    write_missing_table(tmp_path / "t.pt", TABLE, {})
    codes = torch.load(tmp_path / "t.pt", weights_only=True)
    assert codes.dtype == torch.float32 and codes.shape == (50,)
    expected = {"complete": 0, "missing-text": 1, "missing-image": 2}
    assert codes.tolist() == [expected[case] for case in TABLE.values()]


def test_a_parquet_says_what_it_depends_on(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    write_missing_table(tmp_path / "t.parquet", TABLE, {"scenario": "missing-both", "seed": 3})
    provenance = read_provenance(pq.read_schema(tmp_path / "t.parquet"), tmp_path / "t.parquet", "missing-table", 1)
    assert (provenance["scenario"], provenance["seed"]) == ("missing-both", 3)


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.float32])
def test_a_table_of_mmps_own_code_is_read(tmp_path: Path, dtype: torch.dtype) -> None:
    """``missing_table = torch.zeros(total_num)``, then 1 where the text is missing, 2 where the image is."""
    codes = torch.zeros(50, dtype=dtype)
    codes[[4, 9, 11]], codes[[1, 2]] = 1, 2
    torch.save(codes, tmp_path / "mmimdb_test_missing_both_01.pt")
    table = read_missing_table(tmp_path / "mmimdb_test_missing_both_01.pt", IDS, PAIR)
    assert {i for i, case in table.cases.items() if case == "missing-text"} == {"sample-4", "sample-9", "sample-11"}
    assert {i for i, case in table.cases.items() if case == "missing-image"} == {"sample-1", "sample-2"}
    assert table.rate == 0.1


def test_the_name_is_of_what_the_table_says(tmp_path: Path) -> None:
    other = {**TABLE, IDS[0]: "complete" if TABLE[IDS[0]] != "complete" else "missing-text"}
    names = []
    for folder, table in (("a", TABLE), ("b", TABLE), ("c", other)):
        write_missing_table(tmp_path / folder / "t.csv", table, {})
        names.append(read_missing_table(tmp_path / folder / "t.csv", IDS, PAIR).name)
    assert names[0] == names[1] != names[2]
    write_missing_table(tmp_path / "t.parquet", dict(reversed(TABLE.items())), {})
    assert read_missing_table(tmp_path / "t.parquet", IDS, PAIR).name == names[0]


def test_what_is_missing_by_nature_stays_missing_and_is_not_affected(tmp_path: Path) -> None:
    ids, natural = ("a", "b", "c"), [Case.missing(PAIR, "text")] * 2 + [Case.complete(PAIR)]
    write_missing_table(tmp_path / "t.csv", {"a": "missing-text", "b": "missing-image", "c": "missing-image"}, {})
    table = read_missing_table(tmp_path / "t.csv", ids, PAIR, natural)
    assert dict(table.cases) == {"a": "missing-text", "b": "missing-text", "c": "missing-image"}
    assert table.affected_ids == {"c"} and table.rate == pytest.approx(1 / 3)


def test_to_a_grid_it_is_a_scenario_of_one_rate(tmp_path: Path) -> None:
    write_missing_table(tmp_path / "t.csv", TABLE, {})
    given_table = read_missing_table(tmp_path / "t.csv", IDS, PAIR)
    grid = Grid((), (0.0, 1.0), (0, 1), ("situation",), (given_table,))
    (cell,) = grid.cells()
    assert (cell.scenario, cell.missing_rate, cell.seed) == (given_table.name, 0.7, 0)
    drawn = draw_tables([cell], IDS[:20], PAIR, given=grid.tables)
    (table,) = drawn.tables
    assert [drawn.cases[number] for number in table] == [TABLE[i] for i in IDS[:20]]
    assert drawn.affected.tolist() == [sum(TABLE[i] != "complete" for i in IDS[:20])]
    assert {case.name for case in grid.cases(PAIR)} == {"complete", "missing-image", "missing-text"}
    assert Grid((), (0.5,), (0,)).of(PAIR, [given_table]).scenarios == ()
    assert Grid((), (0.5,), (0,)).of(PAIR).scenarios == ("missing-image", "missing-text", "missing-both")


@given(st.lists(st.text(min_size=1), unique=True, min_size=1, max_size=20), st.sampled_from([".csv", ".parquet"]))
@settings(max_examples=30, deadline=None)
def test_any_id_survives(tmp_path_factory: pytest.TempPathFactory, ids: list[str], suffix: str) -> None:
    ids = [i.encode("utf-8", "ignore").decode().replace("\r", "").replace("\0", "") or "x" for i in ids]
    ids = list(dict.fromkeys(ids))
    file = tmp_path_factory.mktemp("ids") / f"t{suffix}"
    write_missing_table(file, dict.fromkeys(ids, "missing-text"), {})
    assert list(read_missing_table(file, ids, PAIR).cases) == ids


def saved(folder: Path, value: Any, name: str = "t.pt") -> Path:
    torch.save(value, folder / name)
    return folder / name


def rows(folder: Path, table: dict[str, list[Any]], name: str = "t.csv") -> Path:
    frame = pd.DataFrame(table)
    frame.to_csv(folder / name, index=False) if name.endswith("csv") else frame.to_parquet(folder / name, index=False)
    return folder / name


class Unwelcome:
    """Something that a pickle may hold, and that no tensor is."""


WRONG = {
    "length": (
        lambda f: saved(f, torch.zeros(49)),
        PAIR,
        "has 49 codes, but the split has 50 samples; a .pt table has one code for each",
    ),
    "code": (lambda f: saved(f, torch.full((50,), 3)), PAIR, "sample 'sample-0' has code 3; codes are 0, 1 and 2"),
    "share": (lambda f: saved(f, torch.full((50,), 0.5)), PAIR, "sample 'sample-0' has code 0.5"),
    "shape": (lambda f: saved(f, torch.zeros(50, 2)), PAIR, "holds a tensor of shape (50, 2), not a vector"),
    "dict": (lambda f: saved(f, {"a": torch.zeros(50)}), PAIR, "holds dict, not a vector with a code for each sample"),
    "pickle": (lambda f: saved(f, Unwelcome()), PAIR, "cannot be read as a tensor; code in a file is never run"),
    "audio": (lambda f: saved(f, torch.zeros(50)), ("audio", "image"), "a .pt table is for image and text, the"),
    "absent": (
        lambda f: rows(f, {"id": IDS[:-1], "case": ["complete"] * 49}),
        PAIR,
        "49 of the split's 50 samples; there is no row for 'sample-49'",
    ),
    "twice": (lambda f: rows(f, {"id": ["a", "a"], "case": ["complete"] * 2}), PAIR, "sample 'a' is not in the split"),
    "again": (
        lambda f: rows(f, {"id": [IDS[0]] * 2, "case": ["complete"] * 2}),
        PAIR,
        "sample 'sample-0' is listed twice",
    ),
    "column": (lambda f: rows(f, {"id": IDS, "state": IDS}), PAIR, "no column 'case'; a missing table has id and case"),
    "columns": (lambda f: rows(f, {"id": IDS, "state": IDS}, "t.parquet"), PAIR, "no column 'case'"),
    "case": (
        lambda f: rows(f, {"id": IDS, "case": ["mising-text"] * 50}),
        PAIR,
        "sample 'sample-0': unknown case 'mising-text': did you mean 'missing-text'",
    ),
    "noise": (
        lambda f: rows(f, {"id": IDS, "case": ["noisy-text:blur@2"] * 50}),
        PAIR,
        "unknown corruption of text 'blur'",
    ),
    "other model": (
        lambda f: rows(f, {"id": IDS, "case": ["missing-text"] * 50}),
        ("audio", "image"),
        "unknown case 'missing-text'",
    ),
    "nothing": (
        lambda f: f / "nowhere.csv",
        PAIR,
        "nowhere.csv: no such file; make a missing table with: mmrobust data",
    ),
    "kind": (lambda f: f / "t.json", PAIR, "t.json: a missing table is a .parquet, .csv, .pt or .jsonl file"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_does_not_fit_is_named(tmp_path: Path, wrong: str) -> None:
    make, modalities, message = WRONG[wrong]
    file = make(tmp_path)
    with pytest.raises(MmrobustError) as raised:
        read_missing_table(file, IDS, modalities)
    assert message in str(raised.value)
    assert str(raised.value).startswith(str(file))
    assert len(str(raised.value).splitlines()) == 1


def test_damaged_files(tmp_path: Path) -> None:
    for name, message in (
        ("t.pt", "cannot be read as a tensor"),
        ("t.parquet", "cannot be read as Parquet"),
        ("t.csv", "is not UTF-8 text"),
    ):
        (tmp_path / name).write_bytes(np.arange(200, dtype=np.uint8).tobytes())
        with pytest.raises(MmrobustError, match=message):
            read_missing_table(tmp_path / name, IDS, PAIR)


@pytest.mark.parametrize("name", ["t.csv", "t.pt"])
def test_gigabytes_of_nothing(tmp_path: Path, name: str) -> None:
    with (tmp_path / name).open("wb") as file:
        file.truncate(2**36)
    with pytest.raises(MmrobustError, match=r"is longer than 67,108,864 characters|larger than any missing table"):
        read_missing_table(tmp_path / name, IDS, PAIR)


def test_a_pt_has_no_code_for_noise(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"sample 'a' is in case 'noisy-text'; a .pt table has .* write .parquet or .csv"
    ):
        write_missing_table(tmp_path / "t.pt", {"a": "noisy-text"}, {})
    assert list(tmp_path.iterdir()) == []


def test_a_pt_that_unpacks_to_more_than_it_holds(tmp_path: Path) -> None:
    torch.save(torch.zeros(4), tmp_path / "whole.pt")
    with (
        zipfile.ZipFile(tmp_path / "whole.pt") as whole,
        zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for name in whole.namelist():
            bomb.writestr(name, bytes(2**24) if name.endswith("/data/0") else whole.read(name))
    with pytest.raises(DataError, match=r"bomb\.pt: refused: it unpacks to [\d,]+ bytes, more than its own size"):
        read_missing_table(tmp_path / "bomb.pt", IDS, PAIR)
    torch.save(torch.zeros(len(IDS)).to_sparse(), tmp_path / "sparse.pt")
    with pytest.raises(DataError, match="not a vector with a code for each sample"):
        read_missing_table(tmp_path / "sparse.pt", IDS, PAIR)
