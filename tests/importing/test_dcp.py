"""Every key of the released code's DCP is accounted for: a foreign or missing one is named."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import CLIPConfig, CLIPModel

from mmrobust.errors import CheckpointError, UsageError
from mmrobust.importing.dcp import import_dcp


@pytest.fixture(scope="module")
def weights(shared: Path) -> dict[str, torch.Tensor]:
    file = shared / "golden" / "dcp" / "weights.safetensors"
    if not file.is_file():
        pytest.skip(f"{file} is not there: the recorded tensors lie beside the repository")
    return load_file(file)


def test_sizes_come_from_the_tensors(weights: dict[str, torch.Tensor]) -> None:
    clip, _, sizes, _ = import_dcp(weights, "food101")
    assert (sizes.length, sizes.depth, sizes.classes, sizes.projection) == (6, 3, 101, 40)
    assert (sizes.image_size, sizes.patch_size, sizes.positions, sizes.vocabulary) == (64, 16, 16, 200)
    assert (sizes.vision_width, sizes.vision_layers, sizes.text_width, sizes.text_layers) == (64, 4, 48, 4)
    model = CLIPModel(CLIPConfig(**sizes.clip_config(head_dim=16)))
    assert set(model.state_dict()) == set(clip)
    assert sizes.clip_config(head_dim=16)["vision_config"]["num_attention_heads"] == 4


def test_every_missing_weight_is_named(weights: dict[str, torch.Tensor]) -> None:
    allowed = ("dynamic.", "food101_", "hatememes_")
    for key in weights:
        rest = {name: tensor for name, tensor in weights.items() if name != key}
        if key.startswith(allowed):
            import_dcp(rest, "mmimdb")
            continue
        with pytest.raises(CheckpointError) as raised:
            import_dcp(rest, "mmimdb")
        assert key in str(raised.value)


def test_a_foreign_weight_is_named(weights: dict[str, torch.Tensor]) -> None:
    with pytest.raises(CheckpointError, match=r"weight model\.extra \(and 1 more\) is none of DCP's"):
        import_dcp(weights | {"model.extra": torch.zeros(1), "model.more": torch.zeros(1)})


def test_an_unknown_task_is_refused(weights: dict[str, torch.Tensor]) -> None:
    with pytest.raises(UsageError, match="unknown head 'mmimdbs': did you mean 'mmimdb'"):
        import_dcp(weights, "mmimdbs")


def test_dynamic_prompts_of_forks_are_read(weights: dict[str, torch.Tensor]) -> None:
    forked = {}
    for name, tensor in weights.items():
        kind, _, rest = name.partition(".")
        tower, _, case = rest.partition(".")
        theirs = f"model.{tower}_encoder.transformer.resblocks.0.prompts_dynamic_{case}"
        forked[theirs if kind == "dynamic" else name] = tensor
    ours, read = import_dcp(weights), import_dcp(forked)
    assert not read.remarks
    assert all(torch.equal(ours.trained[name], tensor) for name, tensor in read.trained.items())


def test_dynamic_prompts_that_were_never_saved_are_drawn_and_remarked_on(weights: dict[str, torch.Tensor]) -> None:
    saved = {name: tensor for name, tensor in weights.items() if not name.startswith("dynamic.")}
    first, second = import_dcp(saved), import_dcp(saved)
    assert set(first.trained) == set(import_dcp(weights).trained)
    assert all(torch.equal(first.trained[name], tensor) for name, tensor in second.trained.items())
    (remark,) = first.remarks
    assert "holds no dynamic prompts for image/complete" in remark
    assert "neither trains nor saves them" in remark
