"""A training that is killed, and one that several processes share, end with the weights of an undisturbed one."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from mmrobust.data import Dataset
from mmrobust.training.loop import train
from mmrobust.training.recipe import Recipe
from mmrobust.training.settings import TrainSettings
from mmrobust.training.trainer import StepRecord

STEPS = 12  # three epochs of four batches


@dataclass
class KillsAt:
    """Kills its own process after so many steps."""

    left: int

    def __call__(self, tick: StepRecord) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_killed_at_any_step_it_resumes_to_the_same_weights(
    digits: Dataset, trained: Callable[..., Path], tmp_path: Path
) -> None:
    settings = TrainSettings(
        data=digits.folder,
        backbone=str(trained("full", "linear")),
        method="mmp",
        head="prototype",
        recipe=Recipe(epochs=3, batch_size=16, lr=5e-3),
        modalities=("image", "text"),
        method_settings={"length": 2, "layers": [3], "init": "normal"},
    )
    train(settings, tmp_path / "whole")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["mmrobust.training.loop"])
    draws, kills = random.Random(0), 0
    while True:
        arguments = {"resume": True, "on_step": KillsAt(draws.randrange(3, STEPS - 3))}
        process = context.Process(target=train, args=(settings, tmp_path / "killed"), kwargs=arguments)
        process.start()
        process.join()
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
        kills += 1
        assert kills < 50
    assert kills >= 2
    whole, killed = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "killed"))
    assert whole.keys() == killed.keys() and all(torch.equal(whole[name], killed[name]) for name in whole)


def test_two_processes_train_what_one_does(
    cli: Callable[..., Any], digits: Dataset, trained: Callable[..., Path], tmp_path: Path
) -> None:
    """A case's prompts are none of the other cases' steps, in which one process lets them be."""
    modalities = ("audio", "image")
    teacher = trained("full", "linear", modalities)
    common = ["--data", digits.folder, "--backbone", teacher, "--method", "ptm", "--epochs", 2, "--batch-size", 16]
    command = [*map(str, common), "--modalities", ",".join(modalities), "--quiet", "--device", "cpu", "--out"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", str(port)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    assert cli("train", *command, tmp_path / "one").code == 0
    two = subprocess.run(
        [*launcher, "-m", "mmrobust", "train", *command, str(tmp_path / "two")],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert two.returncode == 0, two.stderr[-2000:]
    assert two.stdout.count("parameters trained") == 1  # the first process speaks for both
    single, shared = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    for name, tensor in single.items():
        torch.testing.assert_close(shared[name], tensor, rtol=1e-4, atol=1e-5)
