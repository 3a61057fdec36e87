"""The Ray engine: the same table as the local one, a killed worker notwithstanding."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from mmrobust.data import Dataset
from mmrobust.errors import UsageError
from mmrobust.evaluation.evaluate import evaluate_models
from mmrobust.evaluation.plan import PredictionSettings
from mmrobust.models.checkpoint import load_checkpoint
from mmrobust.models.own.own_model import OwnModel
from mmrobust.models.own.source import Source
from mmrobust.models.prediction import predictor as run_module
from mmrobust.runtime.ray_cluster import SPARE_CPUS
from mmrobust.scenarios.grid import Grid
from mmrobust.storage.results import Results

GRID = Grid(("missing-text", "missing-both"), (0.0, 0.5, 1.0), (0, 1))


def workers_of(ancestor: int) -> list[int]:
    """The processes under ``ancestor`` in which Ray runs a copy of the model."""
    parents, named = {}, []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                stat, command = (process / "stat").read_text(), (process / "cmdline").read_bytes()
            except OSError:
                continue
            parents[int(process.name)] = int(stat.rpartition(")")[2].split()[1])
            if b"MapBatches(_Worker)" in command:
                named.append(int(process.name))

    def below(pid: int) -> bool:
        return pid == ancestor or (pid in parents and below(parents[pid]))

    return [pid for pid in named if below(pid)]


def test_a_killed_worker_costs_nothing_but_time(
    trained: Callable[..., Path], digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_ray = pytest.importorskip("mmrobust.evaluation.on_ray")
    pytest.importorskip("ray.data")
    if not Path("/proc/self/stat").exists():
        pytest.skip("finds Ray's workers in /proc")
    for module in (run_module, on_ray):
        monkeypatch.setattr(module, "STRETCH_SAMPLES", 12)
    checkpoint = load_checkpoint(trained("mmp", "prototype"))
    killed: list[int] = []
    bars: list[tuple[str, int | None]] = []
    done = [0]

    @contextmanager
    def progress(description: str, total: int | None) -> Iterator[Callable[[int], None]]:
        bars.append((description, total))

        def advance(units: int) -> None:
            if description == "predict":
                done[0] += units
                if not killed:
                    killed.append(workers_of(os.getpid())[0])
                    os.kill(killed[0], signal.SIGKILL)

        yield advance

    def run(name: str, running: PredictionSettings, progress: Callable[..., object]) -> Results:
        return evaluate_models({"it": checkpoint}, digits, GRID, tmp_path / name, settings=running, progress=progress)

    def quiet(description: str, total: int | None) -> object:
        from mmrobust.runtime.progress import no_progress

        return no_progress(description, total)

    ray = run("ray", PredictionSettings(batch_size=8, engine="ray", ray_workers=2), progress)
    assert killed
    assert bars[0] == ("predict", done[0]) and [name for name, _ in bars] == ["predict", "scoring"]
    local = run("local", PredictionSettings(batch_size=8), quiet)
    pd.testing.assert_frame_equal(ray.frame, local.frame, check_exact=True)


ON_GPU = """
import os
from mmrobust import Model
from mmrobust.runtime.machine import own_threads

def predict(samples, case):
    shares = [own_threads(), len(os.environ["CUDA_VISIBLE_DEVICES"])]
    return [shares + [0.0] * 8 for _ in samples]

model = Model(
    name="shares", version="1", modalities=("image", "text"), classes=CLASSES, task="single-label", predict=predict,
    device="cuda",
)
"""


def test_a_worker_with_a_gpu_has_a_share_of_the_cores(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray hands out GPUs that it is told of; the model needs none. A call has several stretches."""
    pytest.importorskip("ray.data")
    import ray

    on_ray = pytest.importorskip("mmrobust.evaluation.on_ray")
    monkeypatch.setattr(on_ray, "STRETCH_SAMPLES", 2)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    (tmp_path / "on_gpu.py").write_text(ON_GPU.replace("CLASSES", repr(list(digits.info.classes))))
    source = Source.parse(f"{tmp_path / 'on_gpu.py'}:model")
    assert source is not None
    models = {"it": OwnModel(source.load(), source)}
    ray.init(address="local", num_cpus=8 + SPARE_CPUS, num_gpus=2, include_dashboard=False, log_to_driver=False)
    try:
        found = evaluate_models(models, digits, GRID, tmp_path / "out", settings=PredictionSettings(engine="ray"))
    finally:
        ray.shutdown()
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    here = evaluate_models(models, digits, GRID, tmp_path / "here")
    pd.testing.assert_frame_equal(found.frame, here.frame, check_exact=True)
    for kept in (tmp_path / "out" / "predictions").rglob("*.parquet"):
        logits = np.stack(pq.read_table(kept)["logits"].to_numpy())
        assert set(map(tuple, logits[:, :2])) == {(4.0, 1.0)}


def test_a_cluster_that_is_not_there_is_said(trained: Callable[..., Path], digits: Dataset, tmp_path: Path) -> None:
    pytest.importorskip("ray.data")
    running = PredictionSettings(engine="ray", ray_address="127.0.0.1:1")
    with pytest.raises(UsageError, match=r"--ray-address 127\.0\.0\.1:1: no Ray cluster answers"):
        evaluate_models({"it": load_checkpoint(trained("none", "linear"))}, digits, GRID, tmp_path, settings=running)
