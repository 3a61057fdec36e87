"""A run that ends anyhow and is started again makes the table that an undisturbed one makes."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmrobust.data import Dataset
from mmrobust.errors import DataError, ReadError, Unfinished, UsageError
from mmrobust.evaluation import plan
from mmrobust.evaluation.evaluate import evaluate_models
from mmrobust.evaluation.plan import PredictionSettings, WorkShare
from mmrobust.models.checkpoint import load_checkpoint
from mmrobust.models.prediction import predictor as run_module
from mmrobust.models.prediction.classifier_model import ClassifierModel
from mmrobust.scenarios.grid import Grid
from mmrobust.scoring import writer
from mmrobust.scoring.join import ScoringSettings
from mmrobust.scoring.rescore import CellChoice, rescore
from mmrobust.storage.results import Results, read_results

GRID = Grid(("missing-text", "missing-both"), (0.0, 0.5, 1.0), (0, 1))
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five stretches of the sixty samples, each a shard of its own."""
    for module in (run_module, plan):
        monkeypatch.setattr(module, "STRETCH_SAMPLES", 12)
    monkeypatch.setattr(writer, "FLUSH_SECONDS", 0.0)


def run(
    checkpoint: Path, data: Dataset, out: Path, said: list[str] | None = None, grid: Grid = GRID, **running: object
) -> Results:
    return evaluate_models(
        {"it": load_checkpoint(checkpoint)},
        data,
        grid,
        out,
        settings=PredictionSettings(**running),  # type: ignore[arg-type]  # a test's shorthand
        say=(said if said is not None else []).append,
    )


@pytest.fixture(scope="module")
def whole(trained: Callable[..., Path], digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """The table of an undisturbed run."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (run_module, plan):
            patch.setattr(module, "STRETCH_SAMPLES", 12)
        return run(trained("mmp", "linear"), digits, tmp_path_factory.mktemp("whole")).frame


def shards_of(out: Path) -> list[Path]:
    return sorted((out / "predictions").glob("*.parquet"))


# A process that loads everything once, and then again and again has a child evaluate until it is killed.
KILLED = """
import os, random, signal, sys, time
from pathlib import Path
from mmrobust.models.checkpoint import load_checkpoint
from mmrobust.data import Dataset
from mmrobust.evaluation.evaluate import evaluate_models
from mmrobust.evaluation import plan
from mmrobust.models.prediction import predictor as run
from mmrobust.scoring import writer
from mmrobust.scoring.join import ScoringSettings
from mmrobust.scoring.rescore import CellChoice, rescore
from mmrobust.scenarios.grid import Grid
import mmrobust.scoring.join, pandas

checkpoint, data, out = sys.argv[1:]
run.STRETCH_SAMPLES = plan.STRETCH_SAMPLES = 12
writer.FLUSH_SECONDS = 0.0
grid = Grid(("missing-text", "missing-both"), (0.0, 0.5, 1.0), (0, 1))

def start():
    pid = os.fork()
    if not pid:
        try:
            evaluate_models({"it": load_checkpoint(checkpoint)}, Dataset(data), grid, Path(out))
            os._exit(0)
        finally:
            os._exit(1)
    return pid

began = time.monotonic()
assert os.waitpid(start(), 0)[1] == 0
lasts = time.monotonic() - began
draws, kills = random.Random(0), 0
while kills < int(os.environ.get("MMROBUST_TEST_KILLS", "4")):
    if Path(out, "results.parquet").exists():
        for file in (Path(out, "results.parquet"), *Path(out, "predictions").iterdir()):
            file.unlink()
    pid = start()
    time.sleep(draws.uniform(0.0, lasts))
    os.kill(pid, signal.SIGKILL)
    kills += os.waitpid(pid, 0)[1] != 0
assert os.waitpid(start(), 0)[1] == 0
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the child is forked")
def test_killed_at_random_moments(
    trained: Callable[..., Path], digits: Dataset, tmp_path: Path, whole: pd.DataFrame
) -> None:
    command = [sys.executable, "-c", KILLED, trained("mmp", "linear"), digits.folder, tmp_path / "out"]
    subprocess.run([str(word) for word in command], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    pd.testing.assert_frame_equal(read_results(tmp_path / "out").frame, whole, check_exact=True)
    assert not list((tmp_path / "out").rglob("*.partial"))
    kept = pd.concat([pq.read_table(path).to_pandas() for path in shards_of(tmp_path / "out")])
    assert not kept.duplicated(["id", "case", "prompting"]).any()


@pytest.mark.parametrize("harm", ["torn", "flipped", "empty", "foreign", "no parquet"])
def test_a_shard_that_cannot_be_used_is_named_and_made_again(
    trained: Callable[..., Path], digits: Dataset, tmp_path: Path, whole: pd.DataFrame, harm: str
) -> None:
    run(trained("mmp", "linear"), digits, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in shards_of(tmp_path)}
    assert len(before) == 5
    first, second = list(before)[:2]
    content = bytearray(first.read_bytes())
    if harm == "torn":
        first.write_bytes(content[:-100])
    elif harm == "flipped":
        content[len(content) // 3] ^= 0xFF
        first.write_bytes(content)
    elif harm == "empty":
        first.write_bytes(b"")
    elif harm == "foreign":
        table = pq.read_table(second)
        metadata = {b"mmrobust": table.schema.metadata[b"mmrobust"].replace(b'"identity": "', b'"identity": "0')}
        pq.write_table(table.replace_schema_metadata(metadata), first)
    else:
        first.write_text("id,logits\n")
    said: list[str] = []
    again = run(trained("mmp", "linear"), digits, tmp_path, said)
    line, _ = said
    assert line.startswith(str(first)) and line.endswith("its predictions are made again")
    aside = first.with_name(f"{first.name}.damaged")
    assert f"it is kept as {aside.name}" in line and aside.is_file()
    pd.testing.assert_frame_equal(again.frame, whole, check_exact=True)
    assert {path: path.stat().st_mtime_ns for path in shards_of(tmp_path)}.items() - before.items() == {
        (first, first.stat().st_mtime_ns)
    }


def test_a_shard_that_the_system_does_not_read_is_left_as_it_is(
    trained: Callable[..., Path], digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(trained("mmp", "linear"), digits, tmp_path)
    before = {path: path.read_bytes() for path in shards_of(tmp_path)}
    opened, unread = pq.ParquetFile, list(before)[2]
    failures = (OSError(errno.EIO, os.strerror(errno.EIO)), None), (pa.ArrowMemoryError("malloc"), WorkShare(1, 2))
    for failure, share in failures:

        def fails(path: Path, *, failure: Exception = failure, **how: object) -> pq.ParquetFile:
            if path == unread:
                raise failure
            return opened(path, **how)

        with monkeypatch.context() as patch:
            patch.setattr(pq, "ParquetFile", fails)
            with pytest.raises(ReadError, match="the system could not read it") as raised:
                run(trained("mmp", "linear"), digits, tmp_path, share=share)
            assert str(raised.value).startswith(str(unread))
            with pytest.raises(ReadError):
                rescore(tmp_path, CellChoice(), ScoringSettings())
    assert {path: path.read_bytes() for path in shards_of(tmp_path)} == before
    assert not list(tmp_path.rglob("*.damaged"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=48k", "none", str(folder)]
    if sys.platform != "linux" or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk is not permitted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk(trained: Callable[..., Path], digits: Dataset, small_disk: Path, whole: pd.DataFrame) -> None:
    with pytest.raises(DataError, match=r"disk: cannot be written \(.*No space left.*the same command continues"):
        run(trained("mmp", "linear"), digits, small_disk)
    kept = shards_of(small_disk)
    assert 0 < len(kept) < 5
    subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True)
    before = [path.stat().st_mtime_ns for path in kept]
    pd.testing.assert_frame_equal(run(trained("mmp", "linear"), digits, small_disk).frame, whole, check_exact=True)
    assert [path.stat().st_mtime_ns for path in kept] == before


def test_parts_make_the_table_of_the_whole(
    trained: Callable[..., Path], digits: Dataset, tmp_path: Path, whole: pd.DataFrame
) -> None:
    with pytest.raises(Unfinished, match=r"shard 2/2 is done, .* the last one writes the table"):
        run(trained("mmp", "linear"), digits, tmp_path, share=WorkShare(2, 2))
    results = run(trained("mmp", "linear"), digits, tmp_path, share=WorkShare(1, 2))
    pd.testing.assert_frame_equal(results.frame, whole, check_exact=True)
    assert len(shards_of(tmp_path)) == 5


def test_the_slurm_example(trained: Callable[..., Path], digits: Dataset, tmp_path: Path) -> None:
    """Its steps, one after the other, as an array of two would run them."""
    place = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "CHECKPOINT": str(trained("none", "linear")),
        "DATA": str(digits.folder),
        "OUT": str(tmp_path / "out"),
        "SLURM_ARRAY_TASK_COUNT": "2",
        "MMROBUST_EVAL_MISSING_RATE": "0,1",
    }
    for task in (2, 1):
        command = ["bash", str(EXAMPLES / "slurm_array.sh")]
        subprocess.run(command, check=True, capture_output=True, env={**place, "SLURM_ARRAY_TASK_ID": str(task)})
    assert set(read_results(tmp_path / "out").frame.missing_rate) == {0.0, 1.0}


def test_what_is_overwritten(trained: Callable[..., Path], digits: Dataset, tmp_path: Path) -> None:
    run(trained("none", "linear"), digits, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in shards_of(tmp_path)}
    with pytest.raises(UsageError, match=r"results\.parquet exists, and `--overwrite never` keeps it"):
        run(trained("none", "linear"), digits, tmp_path, overwrite="never")
    run(trained("none", "linear"), digits, tmp_path, overwrite="always")
    after = {path: path.stat().st_mtime_ns for path in shards_of(tmp_path)}
    assert before.keys() == after.keys() and all(after[path] > time for path, time in before.items())
    said: list[str] = []
    run(trained("none", "linear"), digits, tmp_path, said)
    assert "its predictions are there from before; --overwrite always makes them again" in said[-1]
    one_cell = Grid(("missing-text",), (0.0,), (0,))
    few = run(trained("none", "linear"), digits, tmp_path, said, grid=one_cell, overwrite="always")
    assert "earlier rows are dropped, since --overwrite always made only these cells again" in said[-1]
    assert set(few.frame["missing_rate"]) == {0.0} and set(few.frame["scenario"]) == {"missing-text"}  # rows, too
    run(trained("none", "linear"), digits, tmp_path, said, grid=Grid(("missing-text",), (0.0, 1.0), (0,)))
    size = digits.info.splits["test"]
    assert f"{size:,} of {2 * size:,} predictions are there from before" in said[-1]
    run(trained("none", "linear"), digits, tmp_path, said, grid=Grid(("missing-text",), (0.5, 1.0), (0,)))
    assert f"over rates of several runs: mmrobust score {tmp_path}" in said[-1]


BAD = [
    (lambda: WorkShare.parse("3/2"), r"--shard 3/2: shards count from 1/2 to 2/2"),
    (lambda: WorkShare.parse("0/2"), r"--shard 0/2: shards count from 1/2"),
    (lambda: WorkShare.parse("1of2"), r"--shard '1of2': give I/N, from 1/N to N/N"),
    (lambda: PredictionSettings(engine="rya"), r"unknown engine 'rya': did you mean 'ray'\? Known: local, ray"),
    (
        lambda: PredictionSettings(overwrite="only_missing"),
        r"unknown --overwrite 'only_missing': did you mean 'only-missing'",
    ),
    (lambda: PredictionSettings(ray_workers=2), r"--ray-address and --ray-workers go with --engine ray"),
    (lambda: PredictionSettings(engine="ray", ray_workers=0), r"--ray-workers 0: at least one is needed"),
    (
        lambda: PredictionSettings(share=WorkShare(1, 2), overwrite="always"),
        r"--shard goes with --overwrite only-missing, not with always",
    ),
]


@pytest.mark.parametrize(("make", "message"), BAD, ids=[message[:24] for _, message in BAD])
def test_settings_that_make_no_sense_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make()


def test_predictions_of_the_first_schema_are_brought_up_to_date(
    trained: Callable[..., Path], digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = run(trained("mmp", "linear"), digits, tmp_path)
    for path in shards_of(tmp_path):
        table = pq.read_table(path)
        metadata = {
            b"mmrobust": table.schema.metadata[b"mmrobust"].replace(b'schema_version": 2', b'schema_version": 1')
        }
        pq.write_table(table.drop_columns(["position", "natural"]).replace_schema_metadata(metadata), path)
    first, ids = {path: path.read_bytes() for path in shards_of(tmp_path)}, digits.split("test").ids
    for limit in (30, 1):  # a shard that --limit cuts stays as it is
        few = tmp_path / f"limit-{limit}"
        shutil.copytree(tmp_path / "predictions", few / "predictions")
        it = load_checkpoint(trained("mmp", "linear"))
        evaluate_models({"it": it}, digits, GRID, few, limit=limit)
        for path, content in first.items():
            whole = set(pq.read_table(path)["id"].to_pylist()) <= set(ids[:limit])
            assert ((few / "predictions" / path.name).read_bytes() != content) == whole
    monkeypatch.setattr(ClassifierModel, "predict", lambda *_, **__: pytest.fail("predicted again"))
    pd.testing.assert_frame_equal(run(trained("mmp", "linear"), digits, tmp_path).frame, now.frame, check_exact=True)
    assert all(pq.read_schema(path).get_field_index("position") >= 0 for path in shards_of(tmp_path))
    assert pa.__version__
