"""CLIP equals the library's own, prompts keep its causal order, and a tower that nothing looks at is not run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel

from mmrobust.data import Dataset
from mmrobust.models.backbones import load_backbone
from mmrobust.models.backbones.clip import ClipBackbone, ClipProcessor
from mmrobust.models.backbones.tiny import make_tiny
from mmrobust.models.layers import Prompts

SOT, EOT, VOCABULARY, POSITIONS = 58, 59, 60, 12


def random_clip(seed: int, eos_token_id: int = EOT, act: str = "quick_gelu") -> ClipBackbone:
    """A CLIP of a random shape whose every weight is random, norms and biases too; its processor is never asked."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*choices: int) -> int:
        return choices[int(torch.randint(len(choices), (), generator=generator))]

    common = {"hidden_act": act, "layer_norm_eps": 10.0 ** -draw(5, 6)}
    text = {"hidden_size": draw(24, 32), "intermediate_size": draw(40, 64), "num_attention_heads": draw(2, 4)}
    vision = {"hidden_size": draw(16, 48), "intermediate_size": draw(32, 56), "num_attention_heads": draw(1, 2)}
    config = CLIPConfig(
        projection_dim=draw(8, 20),
        text_config=common
        | text
        | {"num_hidden_layers": draw(1, 3), "vocab_size": VOCABULARY, "max_position_embeddings": POSITIONS}
        | {"eos_token_id": eos_token_id, "bos_token_id": SOT, "pad_token_id": 0},
        vision_config=common | vision | {"num_hidden_layers": draw(1, 2), "image_size": 32, "patch_size": draw(8, 16)},
    )
    model = CLIPModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return ClipBackbone(model, ClipProcessor(None, None, POSITIONS), "random")


def inputs(seed: int, lengths: list[int], pad: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.full((len(lengths), max(lengths)), pad)
    for row, length in zip(ids, lengths, strict=True):
        row[:length] = torch.randint(3, SOT, (length,), generator=generator)
        row[0], row[length - 1] = SOT, EOT
    return {
        "input_ids": ids,
        "attention_mask": (torch.arange(ids.shape[1]) < torch.tensor(lengths)[:, None]).long(),
        "pixel_values": torch.randn(len(lengths), 3, 32, 32, generator=generator),
    }


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    lengths=st.lists(st.integers(2, POSITIONS), min_size=1, max_size=4),
    eos=st.sampled_from([EOT, 2]),
    act=st.sampled_from(["quick_gelu", "gelu"]),
    pad=st.sampled_from([0, EOT]),
)
def test_features_are_those_of_the_library(seed: int, lengths: list[int], eos: int, act: str, pad: int) -> None:
    backbone, batch = random_clip(seed, eos, act), inputs(seed, lengths, pad)
    model = backbone.model
    with torch.inference_mode():
        parts = backbone.pooling().by_modality(backbone(batch))
        image = model.get_image_features(batch["pixel_values"]).pooler_output
        text = model.get_text_features(batch["input_ids"], attention_mask=batch["attention_mask"]).pooler_output
        pooled = backbone.pooling().pooled(backbone(batch))
    torch.testing.assert_close(parts["image"], image, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(parts["text"], text, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(pooled, torch.cat([image, text], 1), atol=1e-5, rtol=1e-5)


def test_the_layers_before_the_pooling_are_those_of_the_library_too() -> None:
    backbone, batch = random_clip(3), inputs(3, [12, 5, 2])
    with torch.inference_mode():
        streams = backbone(batch)
        text = backbone.model.text_model(batch["input_ids"], attention_mask=batch["attention_mask"])
        ours = backbone.model.text_model.final_layer_norm(streams["text"].tokens_BLD)
    real = batch["attention_mask"].bool()
    torch.testing.assert_close(ours[real], text.last_hidden_state[real], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("keys", [False, True], ids=["tokens", "keys-and-values"])
def test_text_sees_every_prompt_and_nothing_to_its_right(keys: bool) -> None:
    """The first token moves with the last prompt; a prompt, and a token, moves with nothing that lies right of it."""
    backbone, batch = random_clip(5), inputs(5, [9, 4])
    width, count = backbone.width["text"], 3

    def run(prompts_PD: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        added = Prompts(keys_PD=prompts_PD, values_PD=prompts_PD) if keys else Prompts(tokens_PD=prompts_PD)

        def source(stream: str, layer: int, sequence: object) -> Prompts | None:
            return added if layer == 0 else None

        with torch.inference_mode():
            return backbone(batch | {"input_ids": ids}, source, ["image"])["text"].tokens_BLD

    prompts_PD, ids = torch.randn(count, width), batch["input_ids"]
    before = run(prompts_PD, ids)
    ahead = 0 if keys else count
    last_prompt = prompts_PD.clone()
    last_prompt[-1] = torch.randn(width)
    moved = (run(last_prompt, ids) - before).abs().amax(-1)[0] > 1e-6
    assert moved[ahead:].all()
    assert keys or not moved[: count - 1].any()
    other = ids.clone()
    other[:, 3] = 7
    moved = (run(prompts_PD, other) - before).abs().amax(-1)[0] > 1e-6
    assert moved.tolist() == [i >= ahead + 3 for i in range(ahead + 9)]


def test_a_tower_that_nothing_looks_at_is_not_run() -> None:
    backbone, batch = random_clip(1), inputs(1, [4, 6])
    both = backbone(batch)
    for modality, input_name, other in (("image", "pixel_values", "text"), ("text", "input_ids", "image")):
        given = {k: v for k, v in batch.items() if k in (input_name, "attention_mask")}
        alone = backbone(given, missing=[other])
        assert list(alone) == [modality]
        torch.testing.assert_close(alone[modality].tokens_BLD, both[modality].tokens_BLD)
    size = backbone.model.config.projection_dim
    pooled = backbone.pooling().pooled(backbone(batch, missing=["image"]))
    assert pooled.shape == (2, 2 * size)
    assert not pooled[:, :size].any()
    torch.testing.assert_close(pooled[:, size:], backbone.pooling().pooled(both)[:, size:])


def test_families_whose_streams_meet_run_everything(digits: Dataset) -> None:
    backbone = make_tiny("tiny-vilt", ("image", "text"), digits.split("train"), 0)
    assert backbone.modalities_to_run(["image"]) == backbone.modalities


def test_tiny_image_and_text_is_still_vilt(digits: Dataset) -> None:
    assert make_tiny("tiny", ("image", "text"), digits.split("train"), 0).family == "vilt"


def test_a_folder_gives_the_same_backbone_again(digits: Dataset, tmp_path: Path) -> None:
    backbone = make_tiny("tiny-clip", ("image", "text"), digits.split("train"), 0)
    backbone.save(tmp_path)
    again = load_backbone(str(tmp_path), ("image", "text"))
    assert (again.family, again.fingerprint()) == ("clip", backbone.fingerprint())
    text = "Nine, or six?"
    assert again.processor.encode("text", text).tolist() == backbone.processor.encode("text", text).tolist()
    torch.testing.assert_close(again.processor.fill("image", "ones"), torch.ones(3, 64, 64))
    assert isinstance(again.processor.image_processor, CLIPImageProcessorPil)


def test_a_text_is_padded_to_the_longest_of_its_batch_and_cut_to_the_position_table(digits: Dataset) -> None:
    backbone = make_tiny("tiny-clip", ("image", "text"), digits.split("train"), 0)
    processor, image = backbone.processor, torch.zeros(3, 64, 64)
    end = backbone.model.config.text_config.eos_token_id
    texts = [processor.encode("text", text) for text in ("", "seven", "seven " * 500)]
    assert [len(texts[0]), len(texts[2])] == [2, 128]
    assert [int(text[-1]) for text in texts] == [end] * 3
    batch = processor.collate([{"text": text, "image": image} for text in texts[:2]])
    assert batch["input_ids"].shape == (2, len(texts[1]))
    assert batch["attention_mask"].sum(1).tolist() == [len(text) for text in texts[:2]]


def test_a_folder_laid_out_as_openai_published_it(tmp_path: Path) -> None:
    """vocab.json and merges.txt, an image processor of whole numbers, and the wrong ``eos_token_id`` of old configs."""
    letters = [chr(code) for code in range(33, 127)]
    tokens = [*letters, *(letter + "</w>" for letter in letters), "se", "ve", "seve", "seven</w>"]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    seven, start, end = len(tokens) - 3, len(tokens) - 2, len(tokens) - 1
    merges = ["#version: 0.2", "s e", "v e", "se ve", "seve n</w>"]
    images = {"feature_extractor_type": "CLIPFeatureExtractor", "size": 32, "crop_size": 32}
    (tmp_path / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(tokens)}))
    (tmp_path / "merges.txt").write_text("\n".join(merges) + "\n")
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "CLIPTokenizer", "do_lower_case": true}')
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(images))
    tower = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {"vocab_size": len(tokens), "max_position_embeddings": 10, "bos_token_id": 0, "eos_token_id": 2}
    vision = {"image_size": 32, "patch_size": 16}
    CLIPModel(CLIPConfig(text_config=tower | text, vision_config=tower | vision)).save_pretrained(tmp_path)

    backbone = load_backbone(str(tmp_path), ("image", "text"))
    processor = backbone.processor
    texts = [processor.encode("text", text) for text in ("Seven seven", "", "seven " * 50)]
    assert [text.tolist() for text in texts[:2]] == [[start, seven, seven, end], [start, end]]
    assert texts[2].tolist() == [start, *[seven] * 8, end]
    batch = processor.collate([{"text": text, "image": processor.fill("image", "ones")} for text in texts])
    with torch.inference_mode():
        ours = backbone.pooling().by_modality(backbone(batch))["text"]
        theirs = backbone.model.get_text_features(batch["input_ids"], attention_mask=batch["attention_mask"])
    torch.testing.assert_close(ours, theirs.pooler_output, atol=1e-5, rtol=1e-5)
