"""Files as the papers' code writes them, and tokenizers small enough for the recorded models."""

from __future__ import annotations

import functools
import json
import sys
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from mmrobust.data import Dataset


class ModelCheckpoint:
    """Pickles by the name of Lightning's class."""

    __module__ = "pytorch_lightning.callbacks.model_checkpoint"


def _lightning(state: Mapping[str, torch.Tensor], hyper_parameters: dict[str, Any]) -> dict[str, Any]:
    """What Lightning 1.1 puts beside the weights; it keys the callbacks' states by the callbacks' classes."""
    return {
        "epoch": 19,
        "global_step": 1200,
        "pytorch-lightning_version": "1.1.4",
        "callbacks": {ModelCheckpoint: {"monitor": "val/the_metric", "best_model_score": torch.tensor(0.4)}},
        "optimizer_states": [{"state": {0: {"step": 3, "exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 0.01}]}],
        "lr_schedulers": [{"last_epoch": 3}],
        "state_dict": dict(state),
        "hparams_name": "config",
        "hyper_parameters": hyper_parameters,
    }


@pytest.fixture(scope="session")
def lightning() -> Callable[..., dict[str, Any]]:
    """(state dict, hyper-parameters) → a Lightning 1.1 checkpoint."""
    return _lightning


@pytest.fixture(scope="session")
def save() -> Callable[[Any, Path], Path]:
    """``torch.save`` where Lightning's classes are there to be named; the reader has none of it."""

    def write(value: Any, file: Path) -> Path:
        parts = ModelCheckpoint.__module__.split(".")
        packages = {".".join(parts[:end]): types.ModuleType(parts[end - 1]) for end in range(1, 4)}
        packages[ModelCheckpoint.__module__].ModelCheckpoint = ModelCheckpoint  # type: ignore[attr-defined]
        with pytest.MonkeyPatch.context() as patch:
            for name, module in packages.items():
                patch.setitem(sys.modules, name, module)
            torch.save(value, file)
        return file

    return write


@pytest.fixture(scope="session")
def written(golden: Any, save: Callable[..., Path]) -> Callable[..., list[str]]:
    """(golden folder, layout, where) → the arguments FILE and, where the file carries no settings, --config."""

    def write(name: str, layout: str, folder: Path) -> list[str]:
        recorded = golden(name)
        state = recorded.weights
        if layout == "lightning":
            return [str(save(_lightning(state, {"config": recorded.config}), folder / "last.ckpt"))]
        if layout == "flat lightning":
            return [str(save(_lightning(state, recorded.config), folder / "last.ckpt"))]
        if layout == "module":
            state = {f"module.{key}": tensor for key, tensor in state.items()}
        config = folder / "args.json"
        config.write_text(json.dumps(recorded.config))
        return [str(save(state, folder / "model.pth")), "--config", str(config)]

    return write


def _tokenizer(digits: Dataset, folder: Path, ends: tuple[str, str], size: int = 200) -> Path:
    """A folder with a word tokenizer of ``size`` tokens, of which the last two open and close a text."""
    words = sorted({word for s in digits.split("train") for word in (s.text or "").lower().split() if word.isalnum()})
    vocabulary = ["[PAD]", "[UNK]", *words][: size - 2]
    vocabulary += [f"[unused{index}]" for index in range(size - 2 - len(vocabulary))]
    ids = {word: index for index, word in enumerate([*vocabulary, *ends])}
    made = Tokenizer(models.WordLevel(ids, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.BertProcessing((ends[1], ids[ends[1]]), (ends[0], ids[ends[0]]))
    PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]", cls_token=ends[0], sep_token=ends[1]
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def make_tokenizer(digits: Dataset) -> Callable[..., Path]:
    """(folder, opening and closing token, size) → the folder, with a tokenizer of that size."""
    return functools.partial(_tokenizer, digits)


@pytest.fixture(scope="session")
def tokenizers(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Kind of checkpoint → folder of a tokenizer that fits the recorded model."""
    folder = tmp_path_factory.mktemp("tokenizers")
    return {
        "mmp": _tokenizer(digits, folder / "mmp", ("[CLS]", "[SEP]")),
        "dcp": _tokenizer(digits, folder / "dcp", ("<|startoftext|>", "<|endoftext|>")),
    }
