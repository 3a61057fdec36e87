"""docs/formats.md lists every column and every metadata key, says which are needed, and its example works."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmrobust.configuration import check_json
from mmrobust.data import Dataset
from mmrobust.errors import UsageError
from mmrobust.scoring.join import ScoringSettings
from mmrobust.storage.provenance import SHAPES
from mmrobust.storage.results import RESULTS_SCHEMA, read_results
from mmrobust.storage.shards import PREDICTIONS_SCHEMA

Cli = Callable[..., Any]
PAGE = Path(__file__).resolve().parents[2] / "docs" / "formats.md"
TEXT = PAGE.read_text(encoding="utf-8")


def section(title: str) -> str:
    """The text below a heading, up to the next one."""
    return re.split(rf"^##+ {re.escape(title)}\n", TEXT, flags=re.MULTILINE)[1].partition("\n#")[0]


def table(title: str, first: str) -> dict[str, list[str]]:
    """Name → the other cells of its row, of the table whose first column is called ``first``."""
    lines = section(title).partition(f"\n| {first} |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| (.+) \|$", lines, flags=re.MULTILINE)
    cells = [row.split(" | ") for row in rows]
    return {name: row[1:] for row in cells for name in re.findall(r"`([^`]+)`", row[0])}


PREDICTIONS, RESULTS = table("Predictions", "key"), table("Results", "key")
DATA, MODEL = table("The data", "key"), table("The model", "key")


def test_every_column_is_listed() -> None:
    for title, schema in (("Predictions", PREDICTIONS_SCHEMA), ("Results", RESULTS_SCHEMA)):
        listed = table(title, "column")
        assert set(schema.names) == set(listed), title
        for name in schema.names:
            kind = schema.field(name).type
            inner = kind.value_type if pa.types.is_list(kind) else kind
            known = {pa.float32(): "float32", pa.float64(): "float64"}.get(inner, str(inner))
            assert listed[name][0] == ("list of " if pa.types.is_list(kind) else "") + known


def names(shape: dict[Any, Any]) -> set[str]:
    return {str(key).rstrip("?") for key in shape}


def test_every_key_that_is_checked_is_listed() -> None:
    of_results, of_predictions = SHAPES["results"], SHAPES["predictions"]
    assert names(of_results) | {"kind", "schema_version"} == set(RESULTS)
    assert names(of_predictions) | {"kind", "schema_version"} == set(PREDICTIONS)
    assert names(of_results["dataset"]) == set(DATA)
    model = of_results["checkpoints"][str]
    assert names(model) | {"method", "head", "imported"} == set(MODEL)
    training = set(re.findall(r"`([^`]+)`", section("The model")))
    assert names(model["training?"]) | names(model["training?"]["efficiency?"]) <= training
    for key in ("noise?", "scoring?", "git?"):
        assert names(of_results[key]) <= set(re.findall(r"`([^`]+)`", RESULTS[key.rstrip("?")][-1]))
    assert names(of_results["bad_samples?"]) <= set(re.findall(r"`([^`]+)`", section("Bad samples")))


def test_every_key_that_is_written_is_listed(
    cli: Cli, trained: Callable[..., Path], digits: Dataset, tmp_path: Path
) -> None:
    few = ("--data", digits.folder, "--scenario", "missing-text,noisy-image:blur@3", "--missing-rate", 1, "--seeds", 1)
    assert cli("plan", *few, "--out", tmp_path / "plan").code == 0
    assert cli("eval", trained("none", "linear"), *few, "--out", tmp_path / "out").code == 0
    lines = (tmp_path / "plan" / "plan.csv").read_text().splitlines()
    values = ",".join("0" for _ in digits.info.classes)
    written = [f"{lines[0]},{','.join(digits.info.classes)}", *(f"{line},{values}" for line in lines[1:])]
    (tmp_path / "it.csv").write_text("\n".join(written))
    assert cli("import", "predictions", tmp_path / "it.csv", *few, "--name", "it", "--out", tmp_path / "out").code == 0

    training = set(re.findall(r"`([^`]+)`", section("The model")))
    results = metadata(tmp_path / "out" / "results.parquet")
    assert set(results) <= set(RESULTS) and set(results["dataset"]) == set(DATA)
    assert set(results["scoring"]) == set(ScoringSettings.__dataclass_fields__)
    shards = [metadata(shard) for shard in (tmp_path / "out" / "predictions").iterdir()]
    assert len(shards) == 4
    for shard in shards:
        assert set(shard) <= set(PREDICTIONS) and set(shard["about"]) == set(DATA)
    models = [*results["checkpoints"].values(), *(shard["described"] for shard in shards)]
    for model in models:
        assert set(model) <= set(MODEL)
        assert set(model.get("training", {})) | set(model.get("training", {}).get("efficiency", {})) <= training
        for imported in model.get("imported", ()):
            assert set(imported) <= set(re.findall(r"`([^`]+)`", MODEL["imported"][-1]))
    assert set(results["bad_samples"]) == set(re.findall(r"`([^`]+)`", section("Bad samples"))) - {
        "error",
        "missing",
        "skip",
    }
    plan = set(json.loads((tmp_path / "plan" / "plan.json").read_text()))
    assert plan <= set(re.findall(r"`([^`]+)`", section("Plans")))


def metadata(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(pq.read_schema(file).metadata[b"mmrobust"])
    return found


# The example, and what it needs


@pytest.fixture(scope="module")
def by_hand(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the page's example makes, by a Python that has no mmrobust."""
    folder = tmp_path_factory.mktemp("by-hand")
    blocks = re.findall(r"^```python\n(.*?)^```", TEXT, flags=re.MULTILINE | re.DOTALL)
    pieces = [block for block in blocks if "import read_results" not in block]
    (folder / "example.py").write_text(
        "import sys\nsys.modules['mmrobust'] = None  # importing it would fail\n" + "\n".join(pieces)
    )
    subprocess.run([sys.executable, "example.py"], cwd=folder, check=True)
    return folder / "pets"


def copied(source: Path, target: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """A results folder with changed metadata."""
    for file in source.rglob("*.parquet"):
        read = pq.read_table(file)
        changed = metadata(file)
        change(changed)
        to = target / file.relative_to(source)
        to.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(read.replace_schema_metadata({"mmrobust": json.dumps(changed)}), to)
    return target


def test_files_made_by_hand_are_read_by_every_command(cli: Cli, by_hand: Path, tmp_path: Path) -> None:
    old, new = (copied(by_hand / name, tmp_path / name, lambda _: None) for name in ("old", "new"))
    for folder in (old, new):
        code, out, err = cli("score", folder, "--missing-rate", "0,0.5,1")
        assert code == 0, err
    frame = read_results(old).frame.query("metric == 'accuracy' and missing_rate == 1 and prompting == 'situation'")
    values = frame.groupby("scenario")["value"].unique()
    assert values["missing-text"].tolist() == [0.5] and values["missing-image"].tolist() == [1.0]  # two of four wrong
    rules = ("--fail", "accuracy@missing-text:-0.1", "--fail", "accuracy@missing-image/1>=0.7")
    for command in (
        ("report", old, new, "--details", "--html", tmp_path / "page.html"),
        ("compare", old, new),
        ("check", new, "--baseline", old, *rules),
        ("baseline", "save", old, tmp_path / "baseline", "--allow-dirty"),
        ("report", by_hand / "table"),
        ("check", by_hand / "table", "--baseline", by_hand / "table"),
    ):
        code, out, err = cli(*command)
        assert code == 0, (command, out, err)
    code, out, err = cli("check", new, "--baseline", old, "--fail", "accuracy@missing-image/1>=0.8")
    assert code == 1 and "FAIL" in out  # the gate judges them, too


def keys() -> Iterator[tuple[str, str | None, str, bool]]:
    """(kind, key of the object that holds it, key, whether it is needed)."""
    for key, (_, needed, _) in PREDICTIONS.items():
        yield "predictions", None, key, needed == "always"
    for outer, inner in (("about", DATA), ("described", MODEL)):
        for key, (_, needed, _) in inner.items():
            yield "predictions", outer, key, needed.startswith(("always", "predictions"))
    for key, (_, needed, _) in RESULTS.items():
        yield "results", None, key, needed == "always"
    for key, (_, needed, _) in DATA.items():
        yield "results", "dataset", key, needed == "always" or "report" in needed
    for key, (_, needed, _) in MODEL.items():
        yield "results", "checkpoints", key, needed == "always"


@pytest.mark.parametrize(("kind", "outer", "key", "needed"), list(keys()))
def test_what_is_needed_is_needed_and_the_rest_is_not(
    cli: Cli, by_hand: Path, tmp_path: Path, kind: str, outer: str | None, key: str, needed: bool
) -> None:
    def without(content: dict[str, Any]) -> None:
        holder = content if outer is None else content[outer]
        (holder["old"] if outer == "checkpoints" else holder).pop(key, None)

    folder = copied(by_hand / ("old" if kind == "predictions" else "table"), tmp_path / "it", without)
    command = ("score", folder, "--missing-rate", "0,1", "--quiet") if kind == "predictions" else ("report", folder)
    code, out, err = cli(*command)
    assert code == (2 if needed else 0), err
    assert "a bug in mmrobust" not in err and (not needed or (out == "" and len(err.splitlines()) == 1))
    if kind == "results" and "`check`" in (DATA.get(key) or ["", ""])[1] and outer == "dataset":
        assert cli("check", folder, "--baseline", folder).code == 2


def test_a_value_of_another_type_is_refused() -> None:
    for kind, listed in (("predictions", PREDICTIONS), ("results", RESULTS)):
        for key in set(listed) - {"kind", "schema_version"}:
            shape = {name.rstrip("?"): inner for name, inner in SHAPES[kind].items()}[key]
            with pytest.raises(UsageError):
                check_json({key: 3.5}, {key: shape})


def test_the_types_of_its_columns_are_those_that_are_written(by_hand: Path) -> None:
    assert pq.read_schema(by_hand / "old" / "predictions" / "all.parquet").remove_metadata().equals(PREDICTIONS_SCHEMA)
    types = {field.name: field.type for field in pq.read_schema(by_hand / "table" / "results.parquet")}
    since_version_2 = re.compile(r"few|.+_(low|high)")  # a writer may leave these out
    assert types == {
        field.name: field.type
        for field in RESULTS_SCHEMA
        if field.name in types or not since_version_2.fullmatch(field.name)
    }
