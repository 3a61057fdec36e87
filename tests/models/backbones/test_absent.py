"""Weights without a tokenizer or an image processor load; only what needs one fails, and says so."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from mmrobust.errors import CheckpointError
from mmrobust.models.backbone import Backbone
from mmrobust.models.backbones import load_backbone
from mmrobust.models.backbones.absent import IMAGE_PROCESSOR_FILES, TOKENIZER_FILES, Absent


@pytest.mark.parametrize("name", ["tiny-vilt", "tiny-clip"])
@pytest.mark.parametrize(
    ("files", "what", "works"),
    [(TOKENIZER_FILES, "tokenizer", "image"), (IMAGE_PROCESSOR_FILES, "image processor", "text")],
)
def test_only_what_is_lacking_fails(
    tiny: Callable[[str], Backbone], tmp_path: Path, name: str, files: tuple[str, ...], what: str, works: str
) -> None:
    tiny(name).save(tmp_path / "backbone")
    for file in files:
        (tmp_path / "backbone" / file).unlink(missing_ok=True)
    backbone = load_backbone(str(tmp_path / "backbone"), ("image", "text"))
    raw: dict[str, Any] = {"image": Image.new("RGB", (64, 64)), "text": "one"}
    assert isinstance(backbone.processor.encode(works, raw.pop(works)), torch.Tensor)
    for modality, value in raw.items():
        for use in (lambda m=modality, v=value: backbone.processor.encode(m, v), lambda m=modality: fill(backbone, m)):
            with pytest.raises(CheckpointError, match=rf"backbone: holds no {what}, so raw inputs cannot be encoded"):
                use()
    backbone.save(tmp_path / "again")
    assert not any((tmp_path / "again" / file).is_file() for file in files)


def fill(backbone: Backbone, modality: str) -> torch.Tensor:
    return backbone.processor.fill(modality, "ones")


def test_it_can_be_copied_and_sent_to_another_process() -> None:
    absent = Absent("tokenizer", "place")
    for twin in (copy.deepcopy(absent), pickle.loads(pickle.dumps(absent))):
        with pytest.raises(CheckpointError, match="place: holds no tokenizer"):
            twin("text")
        with pytest.raises(CheckpointError, match="import again with --processor"):
            _ = twin.pad_token_id
