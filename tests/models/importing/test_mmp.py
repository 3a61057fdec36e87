"""The mapping of MMP's checkpoints: every tensor finds its place, or is named."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mmrobust.errors import CheckpointError, UsageError
from mmrobust.models.importing.mmp import from_mmp


@pytest.fixture
def recorded(golden: Any) -> Any:
    return golden("mmp_input")


def test_sizes_and_settings_are_read_off(recorded: Any) -> None:
    imported = from_mmp(recorded.weights, recorded.config, "food101")
    assert imported.sizes == {
        "vocab_size": 200,
        "hidden_size": 64,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "intermediate_size": 256,
        "max_position_embeddings": 12,
        "type_vocab_size": 2,
        "modality_type_vocab_size": 2,
        "num_channels": 3,
        "patch_size": 16,
        "image_size": 64,
        "hidden_dropout_prob": 0.1,
    }
    assert imported.method == {"name": "mmp", "level": "input", "length": 16, "depth": 3, "layers": []}
    assert imported.head == {"name": "mlp"} and imported.classes == 101


def test_every_value_arrives_once(recorded: Any) -> None:
    imported = from_mmp(recorded.weights, recorded.config, "mmimdb")
    pooler = [name for name in imported.backbone if name.startswith("pooler")]
    arrived = [*imported.backbone.values(), *imported.trained.values(), *imported.aside.values()]
    doubled = sum(imported.backbone[name].numel() for name in pooler)
    assert sum(t.numel() for t in arrived) - doubled == sum(t.numel() for t in recorded.weights.values())


def test_names_of_data_parallel_are_understood(recorded: Any) -> None:
    wrapped = {f"module.{name}": tensor for name, tensor in recorded.weights.items()}
    plain, found = (from_mmp(state, recorded.config, "mmimdb") for state in (recorded.weights, wrapped))
    assert plain.backbone.keys() == found.backbone.keys() and plain.trained.keys() == found.trained.keys()


def test_position_ids_of_older_libraries_are_set_aside(recorded: Any) -> None:
    state = {**recorded.weights, "text_embeddings.position_ids": torch.arange(12)[None]}
    assert "text_embeddings.position_ids" in from_mmp(state, recorded.config, "mmimdb").aside


def test_prompted_layers_that_are_not_the_first_are_kept(recorded: Any) -> None:
    imported = from_mmp(recorded.weights, {**recorded.config, "prompt_layers": [0, 2, 3]}, "mmimdb")
    assert imported.method["layers"] == [0, 2, 3]


def test_a_weight_that_is_not_known_is_named(recorded: Any) -> None:
    state = {**recorded.weights, "itm_score.fc.weight": torch.zeros(2, 64)}
    with pytest.raises(CheckpointError, match=r"weight itm_score\.fc\.weight is not known"):
        from_mmp(state, recorded.config, "mmimdb")


@pytest.mark.parametrize(
    "name",
    [
        "complete_prompt",
        "missing_img_prompt",
        "pooler.dense.bias",
        "transformer.blocks.2.attn.qkv.bias",
        "transformer.pos_embed",
        "mmimdb_classifier.1.weight",
        "text_embeddings.LayerNorm.weight",
    ],
)
def test_a_weight_that_is_missing_is_named(recorded: Any, name: str) -> None:
    state = {key: tensor for key, tensor in recorded.weights.items() if key != name}
    with pytest.raises(CheckpointError, match=f"weight {name} is missing"):
        from_mmp(state, recorded.config, "mmimdb")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"prompt_type": "input"}, "set num_heads in a --config"),
        ({"num_heads": 5, "prompt_type": "input"}, "num_heads 5 does not divide the hidden size 64"),
        ({"num_heads": 4}, "set prompt_type"),
        ({"num_heads": 4, "prompt_type": "both"}, "prompt_type 'both'"),
        ({"num_heads": 4, "prompt_type": "input", "prompt_layers": [0]}, "name 1 layers, the prompts have 3"),
    ],
)
def test_a_setting_that_no_tensor_tells_is_asked_for(recorded: Any, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(CheckpointError, match=said):
        from_mmp(recorded.weights, settings, "mmimdb")


def test_a_head_must_be_chosen_where_there_are_several(recorded: Any) -> None:
    with pytest.raises(CheckpointError, match="heads for mmimdb, food101, hatememes; choose one with --head-from"):
        from_mmp(recorded.weights, recorded.config)
    one = {n: t for n, t in recorded.weights.items() if not n.startswith(("food101", "hatememes"))}
    assert from_mmp(one, recorded.config).classes == 23
    with pytest.raises(CheckpointError, match="no head for food101, only for mmimdb"):
        from_mmp(one, recorded.config, "food101")
    with pytest.raises(CheckpointError, match=r"has no head \("):
        from_mmp({n: t for n, t in one.items() if not n.startswith("mmimdb")}, recorded.config)
    with pytest.raises(UsageError, match="did you mean 'mmimdb'"):
        from_mmp(one, recorded.config, "imdb")
