"""Checkpoints of released versions still load, and give the numbers that they gave."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mmrobust.models.checkpoint import load_checkpoint

V0_1 = Path(__file__).parents[1] / "historic_checkpoints" / "v0.1"
INPUTS = {
    "pixel_values": torch.sin(torch.arange(3 * 3 * 64 * 64) / 7).reshape(3, 3, 64, 64),
    "pixel_mask": torch.ones(3, 64, 64, dtype=torch.int64),
    "input_ids": (torch.arange(27) * 7 % 36 + 4).reshape(3, 9),
    "attention_mask": torch.ones(3, 9, dtype=torch.int64),
}


@pytest.mark.parametrize("name", ["default", "several"])
def test_a_prototype_head_of_0_1_is_what_it_was(name: str) -> None:
    recorded = load_file(V0_1 / "logits.safetensors")
    checkpoint = load_checkpoint(V0_1 / name)
    assert checkpoint.fingerprint == json.loads((V0_1 / "fingerprints.json").read_text())[name]
    head = checkpoint.classifier.head.config
    assert (head.normalise, head.prototype_loss, head.margins) == ("joint", 0.0, {})
    assert head.learned_scale is (name == "default")
    with torch.inference_mode():
        for case in ("complete", "missing-image", "missing-text"):
            for prompting in ("situation", "concat"):
                logits = checkpoint.classifier(INPUTS, case, prompting)
                torch.testing.assert_close(logits, recorded[f"{name}.{case}.{prompting}"], rtol=0, atol=5e-6)
