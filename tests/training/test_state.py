"""The state of a training is never taken for absent or damaged because the system does not read it."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mmrobust.errors import CheckpointError, ReadError
from mmrobust.training.state import EpochRecord, StateStore, TrainingState


@pytest.fixture
def store(tmp_path: Path) -> StateStore:
    """The state after one epoch of a training of one weight."""
    made = StateStore(tmp_path / "out", "it")
    weights, optimizer = trained()
    record = EpochRecord(1, 0.5, 0.5, 0.7, 1e-3, 1.0, 1.0)
    made.save(TrainingState([record], 1, {"w": weights["w"].detach()}), weights, optimizer)
    return made


def trained() -> tuple[dict[str, nn.Parameter], torch.optim.Optimizer]:
    weight = nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([weight])
    weight.sum().backward()
    optimizer.step()
    return {"w": weight}, optimizer


@pytest.mark.parametrize("fused", [False, True])
def test_the_optimizer_goes_on_where_it_puts_its_state_itself(store: StateStore, fused: bool) -> None:
    """On a GPU it is fused, and has its step counter there: here on a device without values."""
    weight = nn.Parameter(torch.ones(3, device="meta"))
    optimizer = torch.optim.AdamW([weight])
    optimizer.defaults["fused"] = fused
    store.load({"w": weight}, optimizer)
    placed = {key: tensor.device.type for key, tensor in optimizer.state[weight].items()}
    assert placed == {"step": "meta" if fused else "cpu", "exp_avg": "meta", "exp_avg_sq": "meta"}


@pytest.mark.parametrize("number", [errno.EIO, errno.EMFILE, errno.EACCES, errno.ESTALE, errno.ENOMEM])
def test_a_folder_that_the_system_does_not_list_is_not_empty(
    store: StateStore, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fails(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "iterdir", fails)
        for use in (lambda: store.load(*trained()), store.remove_empty):
            with pytest.raises(ReadError):
                use()
    assert store.load(*trained()).epoch == 1


def test_weights_that_the_system_does_not_read_are_no_reason_to_start_again(
    store: StateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> None:  # as safetensors, whatever the reason that it could not open a file
        raise FileNotFoundError("No such file or directory: weights.safetensors")

    with monkeypatch.context() as patch:
        patch.setattr("mmrobust.storage.weights.load_file", fails)
        with pytest.raises(ReadError, match="may well be intact") as raised:
            store.load(*trained())
        assert "remove" not in str(raised.value)
    (store.folder / "epoch-00001" / "weights.safetensors").write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match="to start again"):
        store.load(*trained())
