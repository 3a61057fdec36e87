"""The glance of a tiny backbone: what it sees of each modality, and that nothing is seen of a fill."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mmrobust.data.processor import FILLS
from mmrobust.errors import CheckpointError
from mmrobust.models.backbone import Backbone
from mmrobust.models.backbones import load_backbone
from mmrobust.models.backbones.tiny import BERT_ENDS, train_tokenizer
from mmrobust.models.glance import FILE, PART, AudioSight, ImageSight, TextSight, parts_of
from mmrobust.models.sequence import TokenSequence


@pytest.fixture
def words() -> Callable[[str], torch.Tensor]:
    """The simple features of a text, after a training on four texts."""
    texts = ["a sun", "a sunflower", "a moon", "a flower"]
    tokenizer = train_tokenizer(texts, BERT_ENDS)
    sight = TextSight(parts_of(tokenizer))
    encoded = [torch.tensor(tokenizer(text)["input_ids"]) for text in texts]
    sight.learn_rarity(encoded)

    def seen(text: str) -> torch.Tensor:
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        return sight(ids, torch.ones_like(ids).bool())[0]

    seen.vocabulary = tokenizer.get_vocab()  # type: ignore[attr-defined]  # for the tests below
    return seen


def test_of_a_text_it_sees_the_words_in_any_order_the_rarer_the_more(words: Any) -> None:
    found, vocabulary = words("a moon"), words.vocabulary
    torch.testing.assert_close(words("moon a"), found)
    torch.testing.assert_close(words("moon moon a"), found)
    torch.testing.assert_close(found.norm(), torch.tensor(1.0))
    assert found[vocabulary["moon"]] > found[vocabulary["a"]] > 0
    assert not words("").any() and not words("?").any()  # nothing, and nothing that training had


def test_of_a_word_it_sees_the_parts_too(words: Any) -> None:
    found, vocabulary = words("sunflower"), words.vocabulary
    rare = {word: found[vocabulary[word]].item() for word in ("sunflower", "sun", "flower")}
    assert rare["sunflower"] > rare["sun"] > 0 and rare["flower"] > 0
    ratio = rare["sun"] / rare["sunflower"]
    assert ratio == pytest.approx(
        PART * (1 + torch.log(torch.tensor(5 / 3)).item()) / (1 + torch.log(torch.tensor(5 / 2)).item())
    )


def test_of_a_picture_it_sees_16_by_16_pixels_without_mean_and_contrast() -> None:
    sight, picture = ImageSight(), torch.rand(2, 3, 64, 64)
    small = torch.nn.functional.avg_pool2d(picture, 4)
    small = (small - small.mean((2, 3), keepdim=True)).flatten(1)
    torch.testing.assert_close(sight(picture, None), small / small.norm(dim=1, keepdim=True))
    torch.testing.assert_close(sight(3 * picture - 1, None), sight(picture, None))


def test_padding_of_a_picture_is_not_seen() -> None:
    sight, picture = ImageSight(), torch.rand(1, 3, 48, 80)
    padded = torch.nn.functional.pad(picture, (0, 16, 0, 32), value=9.0)
    torch.testing.assert_close(sight(padded, torch.tensor([[48, 80]])), sight(picture, None))


def test_of_a_recording_it_sees_mean_and_deviation_of_each_mel_bin_without_padding() -> None:
    sight, bank = AudioSight(4), torch.randn(1, 10, 4)
    both = torch.cat([bank.mean(1), bank.std(1, correction=0)], dim=1) / 8**0.5
    torch.testing.assert_close(sight(bank, None), both)
    padded = torch.cat([bank, torch.full((1, 5, 4), 2.5)], dim=1)
    torch.testing.assert_close(sight(padded, None), both)


FAMILIES = ["tiny-vilt", "tiny-clip", "tiny-cavmae", "tiny-towers"]


@pytest.mark.parametrize("name", FAMILIES)
def test_a_fill_has_no_glance(name: str, tiny: Callable[[str], Backbone]) -> None:
    backbone = tiny(name)
    assert backbone.glance is not None
    assert set(backbone.glance.modalities) == set(backbone.modalities)
    for fill in FILLS:
        batch = backbone.processor.collate([{m: backbone.processor.fill(m, fill) for m in backbone.modalities}])
        for modality in backbone.modalities:
            assert not backbone.begin(modality, batch).glance[modality].any()


@pytest.mark.parametrize("name", FAMILIES)
def test_it_stands_behind_the_pooled_vectors_and_is_kept_in_the_folder(
    name: str, tiny: Callable[[str], Backbone], samples: Any, tmp_path: Path
) -> None:
    backbone = tiny(name).train(False)
    assert backbone.glance is not None
    drawn = samples("tiny-towers" if name == "tiny-clip" else name, 3)
    pooling, batch = backbone.pooling(), backbone.processor.collate(drawn)
    streams = backbone(batch)
    glances = [backbone.begin(m, batch).glance[m] for m in backbone.glance.modalities]
    assert pooling.pooled_with_glance(streams).shape[1] == pooling.pooled_size
    behind_BG = torch.cat(glances, dim=1)
    torch.testing.assert_close(pooling.pooled_with_glance(streams)[:, -behind_BG.shape[1] :], behind_BG)
    for modality, vector_BD in pooling.by_modality_with_glance(streams).items():
        assert vector_BD.shape[1] == pooling.modality_sizes[modality]
    backbone.save(tmp_path / "kept")
    loaded = load_backbone(str(tmp_path / "kept"), backbone.modalities).train(False)
    assert loaded.fingerprint() == backbone.fingerprint()
    torch.testing.assert_close(loaded.pooling().pooled_with_glance(loaded(batch)), pooling.pooled_with_glance(streams))


def test_a_glance_that_does_not_fit_its_backbone(tiny: Callable[[str], Backbone], tmp_path: Path) -> None:
    tiny("tiny-vilt").save(tmp_path)
    tensors = load_file(tmp_path / FILE)
    save_file({**tensors, "maps.of_image": torch.zeros(7, 10)}, tmp_path / FILE)
    with pytest.raises(CheckpointError, match=r"glance.safetensors: its weights do not fit the backbone's modalities"):
        load_backbone(str(tmp_path), ("image", "text"))


def test_a_backbone_without_one_is_as_before(tiny: Callable[[str], Backbone], samples: Any, tmp_path: Path) -> None:
    backbone = tiny("tiny-vilt").train(False)
    batch = backbone.processor.collate(samples("tiny-vilt", 2))
    backbone.save(tmp_path)
    (tmp_path / FILE).unlink()
    old = load_backbone(str(tmp_path), ("image", "text")).train(False)
    assert old.glance is None and old.pooling().pooled_size == 128
    assert old.weights().keys() == old.model.state_dict().keys()
    pooled_BD = backbone.pooling().pooled_with_glance(backbone(batch))
    torch.testing.assert_close(2 * pooled_BD[:, :128], old.pooling().pooled(old(batch)))


@pytest.mark.parametrize("masked", [False, True])
def test_a_sequence_is_stored_with_its_glance(masked: bool) -> None:
    glance = {"image": torch.randn(2, 3), "sound.left": torch.randn(2, 9)}
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2]) if masked else None
    sequence = TokenSequence(torch.randn(2, 5, 4), mask, (("image", 2), ("text", 3)), glance=glance)
    again = sequence.packed().unpacked()
    assert again.segments == sequence.segments and again.glance.keys() == glance.keys()
    for left, right in [(again.tokens_BLD, sequence.tokens_BLD), *((again.glance[m], glance[m]) for m in glance)]:
        torch.testing.assert_close(left, right)
