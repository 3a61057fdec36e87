"""The mapping of DCP's checkpoints: every tensor finds its place, or is named."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import CLIPConfig, CLIPModel

from mmrobust.errors import CheckpointError, UsageError
from mmrobust.models.importing.dcp import from_dcp

SETTINGS = {"head_dim": 16}


@pytest.fixture
def weights(golden: Any) -> dict[str, torch.Tensor]:
    return golden("dcp").weights


def test_sizes_come_from_the_tensors(weights: dict[str, torch.Tensor]) -> None:
    imported = from_dcp(weights, SETTINGS, "food101")
    assert imported.method == {"name": "dcp", "length": 6, "depth": 3}
    assert (imported.classes, imported.task, imported.headline_metric) == (101, "single-label", "accuracy")
    assert imported.sizes["projection_dim"] == 40
    assert imported.sizes["text_config"] == {
        "hidden_size": 48,
        "intermediate_size": 192,
        "num_hidden_layers": 4,
        "num_attention_heads": 3,
        "vocab_size": 200,
        "max_position_embeddings": 16,
        "bos_token_id": 198,
        "eos_token_id": 199,
        "pad_token_id": 199,
    }
    assert imported.sizes["vision_config"] == {
        "hidden_size": 64,
        "intermediate_size": 256,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_channels": 3,
        "image_size": 64,
        "patch_size": 16,
    }
    CLIPModel(CLIPConfig(**imported.sizes)).load_state_dict(imported.backbone)


def test_heads_are_64_wide_as_in_the_reference_unless_settings_say_otherwise(weights: dict[str, torch.Tensor]) -> None:
    with pytest.raises(CheckpointError, match=r"head_dim 64 does not divide the width 48 of model\.text_encoder"):
        from_dcp(weights, {}, "mmimdb")


def test_names_of_data_parallel_are_understood(weights: dict[str, torch.Tensor]) -> None:
    wrapped = {f"module.{name}": tensor for name, tensor in weights.items()}
    plain, found = (from_dcp(state, SETTINGS, "mmimdb") for state in (weights, wrapped))
    assert plain.backbone.keys() == found.backbone.keys() and plain.trained.keys() == found.trained.keys()


def test_every_missing_weight_is_named(weights: dict[str, torch.Tensor]) -> None:
    allowed = ("dynamic.", "food101_", "hatememes_")
    for key in weights:
        rest = {name: tensor for name, tensor in weights.items() if name != key}
        if key.startswith(allowed):
            from_dcp(rest, SETTINGS, "mmimdb")
            continue
        with pytest.raises(CheckpointError) as raised:
            from_dcp(rest, SETTINGS, "mmimdb")
        assert f"weight {key} is missing" in str(raised.value)


def test_a_foreign_weight_is_named(weights: dict[str, torch.Tensor]) -> None:
    foreign = {"model.extra": torch.zeros(1), "model.more": torch.zeros(1)}
    with pytest.raises(CheckpointError, match=r"weight model\.extra is not known \(1 more\)"):
        from_dcp(weights | foreign, SETTINGS, "mmimdb")


def test_a_head_must_be_chosen_where_there_are_several(weights: dict[str, torch.Tensor]) -> None:
    with pytest.raises(CheckpointError, match="heads for mmimdb, food101, hatememes; choose one"):
        from_dcp(weights, SETTINGS)
    with pytest.raises(UsageError, match="unknown --head-from 'mmimdbs': did you mean 'mmimdb'"):
        from_dcp(weights, SETTINGS, "mmimdbs")


def test_dynamic_prompts_of_forks_are_read(weights: dict[str, torch.Tensor]) -> None:
    forked = {}
    for name, tensor in weights.items():
        kind, _, rest = name.partition(".")
        tower, _, case = rest.partition(".")
        theirs = f"model.{tower}_encoder.transformer.resblocks.0.prompts_dynamic_{case}"
        forked[theirs if kind == "dynamic" else name] = tensor
    ours, read = from_dcp(weights, SETTINGS, "mmimdb"), from_dcp(forked, SETTINGS, "mmimdb")
    assert not read.remarks
    assert all(torch.equal(ours.trained[name], tensor) for name, tensor in read.trained.items())


def test_dynamic_prompts_that_were_never_saved_are_drawn_and_remarked_on(weights: dict[str, torch.Tensor]) -> None:
    saved = {name: tensor for name, tensor in weights.items() if not name.startswith("dynamic.")}
    first, second = (from_dcp(saved, SETTINGS, "mmimdb") for _ in range(2))
    assert set(first.trained) == set(from_dcp(weights, SETTINGS, "mmimdb").trained)
    assert all(torch.equal(first.trained[name], tensor) for name, tensor in second.trained.items())
    (remark,) = first.remarks
    assert "holds no dynamic prompts for image/complete" in remark
    assert "neither trains nor saves them" in remark
