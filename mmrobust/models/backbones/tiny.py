"""``--backbone tiny`` and ``towers``: backbones built for a training, the tiny ones without pretrained weights.

Their weights are random (seeded) until ``--method full`` has trained them. The tokenizer and the mean and standard
deviation of the filter bank are computed from the training split.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any, TypeVar

import numpy as np
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import CLIPConfig, CLIPModel, PreTrainedTokenizerFast, ViltConfig, ViltImageProcessorPil, ViltModel

from mmrobust.data.dataset import Split
from mmrobust.data.decoding import decode
from mmrobust.errors import UsageError, check_name, unknown_name
from mmrobust.models.backbone import Backbone, check_modalities
from mmrobust.models.backbones import LINEAR, TINY_TOWERS, TOWERS
from mmrobust.models.backbones import TINY as TINY_ENCODER
from mmrobust.models.backbones.cavmae import CavMaeBackbone, CavMaeProcessor
from mmrobust.models.backbones.cavmae_model import CavMaeConfig, CavMaeModel
from mmrobust.models.backbones.clip import ClipBackbone, ClipProcessor
from mmrobust.models.backbones.filterbank import AudioSettings, log_mel_filterbank
from mmrobust.models.backbones.pretrained_encoder import load_encoder
from mmrobust.models.backbones.processors import square_images
from mmrobust.models.backbones.tower_inputs import FeaturesInput, FilterbankInput, SquareImages, TextInput
from mmrobust.models.backbones.towers import TowersBackbone, tiny_grid
from mmrobust.models.backbones.towers_model import Encoder, JointSizes, Linear, TinyText
from mmrobust.models.backbones.vilt import ViltBackbone, ViltProcessor
from mmrobust.models.glance import AudioSight, Glance, ImageSight, Sight, TextSight, parts_of

B = TypeVar("B", bound=Backbone)

IMAGE_SIZE = 64
PATCH_SIZE = 16
HIDDEN_SIZE = 128
LAYERS = 4
HEADS = 4
DROPOUT = 0.1
DEEP_LAYERS = 12
"""As in the released CAV-MAE: 11 for each modality and one joint layer."""
TEXT_LENGTH = 128
VOCABULARY = 8000
AUDIO = {"sampling_rate": 8_000, "mel_bins": 64}
LEAST_FRAMES, MOST_FRAMES = 96, 512
"""Frames of a filter bank, of 10 ms: as many as nine of ten recordings have, within these limits."""
STATISTICS_SAMPLES = 512
"""Number of recordings from which the mean and standard deviation of the filter bank are computed."""
_SIZES = {
    "hidden_size": HIDDEN_SIZE,
    "intermediate_size": 4 * HIDDEN_SIZE,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
}
BERT_ENDS = ("[CLS]", "[SEP]")
CLIP_ENDS = ("<|startoftext|>", "<|endoftext|>")


def make_tiny(name: str, modalities: Sequence[str], train: Split, seed: int) -> Backbone:
    """The tiny backbone ``name`` (one of :data:`TINY`, or ``tiny``: the family that fits), with random weights.

    Where no family of two modalities fits, it is ``tiny-towers``.

    Raises:
        UsageError: no such name, or the family takes other modalities.
    """
    if name == "tiny":
        name = fitting_tiny(modalities, train.info.kinds)
    if name == TINY_TOWERS:
        return make_towers(modalities, train, seed, source=TINY_TOWERS)
    if name not in TINY:
        raise unknown_name("tiny backbone", name, (*TINY, TINY_TOWERS))
    family, build = TINY[name]
    check_modalities(family, modalities, name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return with_glance(build(train), train)


def fitting_tiny(modalities: Sequence[str], kinds: Mapping[str, str]) -> str:
    """The tiny backbone that ``tiny`` means for these modalities, whose ``kinds`` are by name."""
    usual = all(kinds.get(modality, modality) == modality for modality in modalities)
    fitting = (tiny for tiny, (family, _) in TINY.items() if usual and set(family.modalities) == set(modalities))
    return next(fitting, TINY_TOWERS)


def make_towers(
    modalities: Sequence[str],
    train: Split,
    seed: int,
    encoders: Mapping[str, str] | None = None,
    sizes: JointSizes | None = None,
    source: str = TOWERS,
) -> TowersBackbone:
    """``towers`` for these modalities of a data set, with a random joint stream.

    Args:
        modalities: in order.
        train: the split from which small encoders take their tokenizer and the statistics of recordings.
        seed: of the random weights.
        encoders: modality → Hub id or folder of a model of ``transformers``, or ``tiny``, which is the default: a small
            encoder of our own. Features have none: they are standardised, and mapped linearly.
        sizes: of the joint stream.
        source: what the backbone is called.

    Raises:
        UsageError: an encoder for a modality that is not there, or for features.
        CheckpointError: an encoder cannot be loaded.
    """
    encoders, kinds = encoders or {}, {modality: train.info.kinds[modality] for modality in modalities}
    for modality, encoder in encoders.items():
        check_name("modality in --encoder", modality, kinds)
        if kinds[modality] == "features" and encoder != LINEAR:
            raise UsageError(f"--encoder {modality}={encoder}: features need no encoder; they are mapped linearly")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        built: dict[str, Encoder] = {}
        for modality, kind in kinds.items():
            encoder = encoders.get(modality, TINY_ENCODER)
            if kind != "features" and encoder != TINY_ENCODER:
                built[modality] = load_encoder(kind, encoder, encoder, modality)
            else:
                built[modality] = _tiny_encoder(modality, kind, train)
        return with_glance(TowersBackbone(kinds, built, sizes or JointSizes(), source), train)


def with_glance(backbone: B, train: Split) -> B:
    """``backbone`` with an untrained glance, if a small network of our own reads each of its modalities."""
    sights: dict[str, Sight] = {}
    for modality in backbone.modalities:
        if isinstance(backbone, TowersBackbone) and backbone.model.encoder(modality).name != TINY_ENCODER:
            return backbone
        processor: Any = backbone.processor
        if isinstance(backbone, TowersBackbone):
            processor = backbone.processor.inputs[modality]
        kind = train.info.kinds[modality]
        if kind == "text":
            sights[modality] = text = TextSight(parts_of(processor.tokenizer))
            text.learn_rarity(backbone.processor.encode(modality, each) for each in _texts(train, modality))
        else:
            sights[modality] = ImageSight() if kind == "image" else AudioSight(processor.audio.mel_bins)
    backbone.glance = Glance(sights, len(train.info.classes))
    if not isinstance(backbone, TowersBackbone):
        backbone.model.config.glance = True  # which says on the Hub that there is a file
    return backbone


def _tiny_encoder(modality: str, kind: str, train: Split) -> Encoder:
    """A small encoder of our own for a modality of a data set, with random weights; features have none."""
    if kind == "features":
        facts = train.info.features[modality]
        return Linear(FeaturesInput(facts.mean, facts.std, facts.steps))
    if kind == "text":
        tokenizer = train_tokenizer(_texts(train, modality), BERT_ENDS)
        return TinyText(TextInput(tokenizer, TEXT_LENGTH), len(tokenizer))
    if kind == "image":
        return tiny_grid(kind, SquareImages(IMAGE_SIZE))
    audio = _audio_settings(train, modality)
    return tiny_grid(kind, FilterbankInput(audio))


def _tiny_vilt(train: Split) -> Backbone:
    tokenizer = train_tokenizer(_texts(train), BERT_ENDS)
    config = ViltConfig(
        **_SIZES,
        vocab_size=len(tokenizer),
        hidden_dropout_prob=DROPOUT,
        max_position_embeddings=TEXT_LENGTH,
        image_size=IMAGE_SIZE,
        patch_size=PATCH_SIZE,
        pad_token_id=tokenizer.pad_token_id,
    )
    images = ViltImageProcessorPil(size={"shortest_edge": IMAGE_SIZE}, size_divisor=PATCH_SIZE)
    return ViltBackbone(ViltModel(config), ViltProcessor(tokenizer, images, TEXT_LENGTH), "tiny-vilt")


def _tiny_cavmae(train: Split, fusion: bool = False, deep: bool = False) -> Backbone:
    audio = _audio_settings(train)
    config = CavMaeConfig(
        audio_frames=audio.frames,
        mel_bins=audio.mel_bins,
        image_size=IMAGE_SIZE,
        patch_size=PATCH_SIZE,
        hidden_size=HIDDEN_SIZE,
        num_specific_layers=DEEP_LAYERS - 1 if deep else LAYERS - 1,
        num_joint_layers=1,
        num_attention_heads=HEADS,
        hidden_dropout_prob=DROPOUT,
        fusion=fusion,
    )
    processor = CavMaeProcessor(audio, square_images(IMAGE_SIZE))
    return CavMaeBackbone(CavMaeModel(config), processor, f"tiny-cavmae{'-fusion' * fusion}{'-deep' * deep}")


def _tiny_clip(train: Split) -> Backbone:
    tokenizer = train_tokenizer(_texts(train), CLIP_ENDS)
    tower = {**_SIZES, "attention_dropout": DROPOUT}
    text = {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": TEXT_LENGTH,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.cls_token_id,
        "eos_token_id": tokenizer.sep_token_id,
    }
    config = CLIPConfig(
        text_config={**tower, **text},
        vision_config={**tower, "image_size": IMAGE_SIZE, "patch_size": PATCH_SIZE},
        projection_dim=HIDDEN_SIZE,
    )
    processor = ClipProcessor(tokenizer, square_images(IMAGE_SIZE), TEXT_LENGTH)
    return ClipBackbone(CLIPModel(config), processor, "tiny-clip")


def _texts(train: Split, modality: str = "text") -> Iterable[str]:
    return (text for sample in train if isinstance(text := sample.media.get(modality), str))


def _audio_settings(train: Split, modality: str = "audio") -> AudioSettings:
    """The filter bank of a data set: its length, mean and standard deviation, by the first training recordings."""
    sounds = islice((sample for sample in train if sample.media.get(modality) is not None), STATISTICS_SAMPLES)
    decoded = (decode(sample, modality) for sample in sounds)
    banks = [log_mel_filterbank(wave, rate, AUDIO["sampling_rate"], AUDIO["mel_bins"]) for wave, rate in decoded]
    frames = np.concatenate(banks) if banks else np.zeros((0, 1))
    mean, std = (float(frames.mean()), float(frames.std())) if frames.size else (0.0, 1.0)
    longest = np.quantile([len(bank) for bank in banks] or [0], 0.9)
    patches = -(-min(max(longest, LEAST_FRAMES), MOST_FRAMES) // PATCH_SIZE)
    return AudioSettings(**AUDIO, frames=int(patches) * PATCH_SIZE, mean=mean, std=std)


def train_tokenizer(texts: Iterable[str], ends: tuple[str, str]) -> PreTrainedTokenizerFast:
    """A lower-casing byte-pair tokenizer, trained on ``texts``, with the family's start and end token, ``ends``.

    It is not WordPiece because the library's WordPiece trainer gives a different vocabulary at every call.
    """
    special = ["[PAD]", "[UNK]", *ends]
    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, min_frequency=1, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    start, end = ((token, special.index(token)) for token in ends)
    tokenizer.post_processor = processors.BertProcessing(end, start)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=TEXT_LENGTH,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token=ends[0],
        sep_token=ends[1],
    )


TINY: dict[str, tuple[type[Backbone], Callable[[Split], Backbone]]] = {
    "tiny-vilt": (ViltBackbone, _tiny_vilt),
    "tiny-clip": (ClipBackbone, _tiny_clip),
    "tiny-cavmae": (CavMaeBackbone, _tiny_cavmae),
    "tiny-cavmae-fusion": (CavMaeBackbone, partial(_tiny_cavmae, fusion=True)),
    "tiny-cavmae-deep": (CavMaeBackbone, partial(_tiny_cavmae, deep=True)),
}
"""Name → (family, function that builds it from the training split)."""
