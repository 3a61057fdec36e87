"""ViLT as a stream against ``transformers.ViltModel``, which draws the order of patches at random: only what does not
depend on that order is compared."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import ViltConfig, ViltModel

from mmrobust.errors import UsageError
from mmrobust.models.backbones.vilt import BLOCK_EPS, JOINT, ViltBackbone, ViltSettings, stretch_text_positions

close = {"rtol": 0, "atol": 1e-5}


def models(seed: int, layers: int, heads: int) -> tuple[ViltModel, ViltBackbone]:
    """Theirs and ours, with the same weights."""
    torch.manual_seed(seed)
    config = ViltConfig(
        vocab_size=50,
        hidden_size=8 * heads,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=48,
        max_position_embeddings=16,
        image_size=48,
        patch_size=16,
        hidden_dropout_prob=0.0,
    )
    theirs, ours = ViltModel(config).eval(), ViltModel(config).eval()
    for name, weight in theirs.named_parameters():
        torch.nn.init.normal_(weight, mean=float("orm.weight" in name), std=0.3)
    ours.load_state_dict(theirs.state_dict())
    for module in theirs.modules():  # the library builds every norm with the text embeddings' eps
        if isinstance(module, torch.nn.LayerNorm) and module is not theirs.embeddings.text_embeddings.LayerNorm:
            module.eps = BLOCK_EPS
    return theirs, ViltBackbone(ours, None, "random")  # type: ignore[arg-type]  # the inputs are encoded already


def batch(lengths: list[int], sizes: list[tuple[int, int]]) -> dict[str, torch.Tensor]:
    """Texts of these lengths and images of these sizes, padded to the largest."""
    rows, columns = (max(size[axis] for size in sizes) for axis in (0, 1))
    inputs = {
        "input_ids": torch.randint(1, 50, (len(lengths), max(lengths))),
        "attention_mask": torch.zeros(len(lengths), max(lengths), dtype=torch.long),
        "pixel_values": torch.zeros(len(sizes), 3, rows, columns),
        "pixel_mask": torch.zeros(len(sizes), rows, columns, dtype=torch.long),
    }
    for row, (length, (height, width)) in enumerate(zip(lengths, sizes, strict=True)):
        inputs["attention_mask"][row, :length] = 1
        inputs["pixel_values"][row, :, :height, :width] = torch.randn(3, height, width)
        inputs["pixel_mask"][row, :height, :width] = 1
    return inputs


BATCHES = {
    "unpadded": ([7, 7, 7], [(48, 48)] * 3),
    "texts of different lengths": ([3, 16, 9], [(48, 48)] * 3),
    "larger images": ([5, 5], [(64, 96)] * 2),
    "images of different sizes": ([7, 4, 16, 2], [(48, 64), (64, 32), (32, 32), (96, 16)]),
}


@torch.no_grad()
def agree(seed: int, layers: int, heads: int, lengths: list[int], sizes: list[tuple[int, int]]) -> None:
    theirs, ours = models(seed, layers, heads)
    inputs = batch(lengths, sizes)
    expected = theirs(**inputs)
    streams = ours(inputs)
    torch.testing.assert_close(ours.pooling().pooled(streams), expected.pooler_output, **close)
    seen = inputs["attention_mask"].bool()
    text = ours.model.layernorm(streams[JOINT].segment("text"))
    torch.testing.assert_close(text[seen], expected.last_hidden_state[:, : seen.shape[1]][seen], **close)
    cls = ours.pooling().by_modality(streams)["image"]
    torch.testing.assert_close(cls, expected.last_hidden_state[:, seen.shape[1]], **close)


@pytest.mark.parametrize("name", BATCHES)
@pytest.mark.parametrize(("layers", "heads"), [(1, 2), (3, 4)])
def test_our_forward_is_the_librarys(name: str, layers: int, heads: int) -> None:
    agree(0, layers, heads, *BATCHES[name])


SIDES = st.sampled_from([16, 32, 48, 64])


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    samples=st.lists(st.tuples(st.integers(1, 16), st.tuples(SIDES, SIDES)), min_size=1, max_size=5),
)
def test_our_forward_is_the_librarys_whatever_the_sizes(seed: int, samples: list[Any]) -> None:
    agree(seed, 2, 2, [length for length, _ in samples], [size for _, size in samples])


def test_text_positions_are_stretched_as_in_mmp() -> None:
    table = torch.randn(40, 24)
    as_released = torch.nn.functional.interpolate(table.view(1, 1, 40, 24), size=(1024, 24), mode="bilinear").squeeze()
    torch.testing.assert_close(stretch_text_positions(table, 1024), as_released)


@torch.no_grad()
def test_longer_texts_run_on_stretched_positions_and_the_weights_stay() -> None:
    theirs, ours = models(0, 2, 2)
    before = ours.fingerprint()
    ours.processor = SimpleNamespace()  # type: ignore[assignment]  # only its length is set
    ours.configure({"max_text_length": 50})
    assert ours.processor.max_length == 50
    longer = ViltModel(ViltConfig(**{**theirs.config.to_dict(), "max_position_embeddings": 50})).eval()
    positions = "embeddings.text_embeddings.position_embeddings.weight"
    state = theirs.state_dict()
    longer.load_state_dict({**state, positions: stretch_text_positions(state[positions], 50)})
    inputs = batch([50, 31], [(48, 48)] * 2)
    expected, found = ViltBackbone(longer, None, "longer"), ours  # type: ignore[arg-type]
    torch.testing.assert_close(found(inputs)[JOINT].tokens_BLD[:, 0], expected(inputs)[JOINT].tokens_BLD[:, 0], **close)
    assert ours.fingerprint() == before


@pytest.mark.parametrize(("length", "expected"), [(0, 128), (20, 20), (300, 300)])
def test_texts_are_cut_at_the_length_that_was_asked_for(tiny: Any, length: int, expected: int) -> None:
    backbone = tiny("tiny-vilt")
    backbone.configure({"max_text_length": length})
    assert len(backbone.processor.encode("text", "seven " * 400)) == expected


def test_a_length_without_room_for_the_marks_is_refused() -> None:
    with pytest.raises(UsageError, match="max_text_length 1 must be 2 or more"):
        ViltSettings(max_text_length=1)
