"""The mapping of CAV-MAE's checkpoints: every tensor finds its place, or is named."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mmrobust.errors import CheckpointError
from mmrobust.models.backbones.cavmae_model import CavMaeConfig, CavMaeModel
from mmrobust.models.importing.cavmae import from_cavmae


@pytest.fixture
def recorded(golden: Any) -> Any:
    return golden("cavmae")


def test_sizes_are_read_off_and_the_weights_fit(recorded: Any) -> None:
    imported = from_cavmae(recorded.weights, recorded.config)
    assert imported.sizes == {
        "audio_frames": 64,
        "mel_bins": 128,
        "image_size": 64,
        "patch_size": 16,
        "num_channels": 3,
        "hidden_size": 40,
        "num_specific_layers": 10,
        "num_joint_layers": 2,
        "num_attention_heads": 4,
        "mlp_ratio": 4.0,
    }
    CavMaeModel(CavMaeConfig(**imported.sizes)).load_state_dict(imported.backbone)
    assert imported.trained.keys() == {"head.norm.weight", "head.norm.bias", "head.dense.weight", "head.dense.bias"}
    assert imported.classes == 10 and all(name.startswith("fusion_block.") for name in imported.aside)


def test_every_value_arrives_once(recorded: Any) -> None:
    imported = from_cavmae({f"module.{name}": t for name, t in recorded.weights.items()}, recorded.config)
    arrived = [*imported.backbone.values(), *imported.trained.values(), *imported.aside.values()]
    assert sum(t.numel() for t in arrived) == sum(t.numel() for t in recorded.weights.values())


def test_a_weight_that_is_not_known_is_named(recorded: Any) -> None:
    with pytest.raises(CheckpointError, match="weight decoder_embed is not known"):
        from_cavmae({**recorded.weights, "decoder_embed": torch.zeros(1)}, recorded.config)


@pytest.mark.parametrize("name", ["pos_embed_a", "blocks_v.3.norm1_a.bias", "mlp_head.1.bias", "norm_v.weight"])
def test_a_weight_that_is_missing_is_named(recorded: Any, name: str) -> None:
    state = {key: tensor for key, tensor in recorded.weights.items() if key != name}
    with pytest.raises(CheckpointError, match=f"weight {name} is missing"):
        from_cavmae(state, recorded.config)


def test_positions_that_make_no_square_are_refused(recorded: Any) -> None:
    state = {**recorded.weights, "pos_embed_v": torch.zeros(1, 15, 40)}
    with pytest.raises(CheckpointError, match="pos_embed_v holds 15 image positions"):
        from_cavmae(state, recorded.config)


def test_the_number_of_heads_is_asked_for(recorded: Any) -> None:
    with pytest.raises(CheckpointError, match="set num_heads"):
        from_cavmae(recorded.weights, {})
