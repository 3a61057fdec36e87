"""Shared code of the benchmarks: timing, reporting, the machine, and a synthetic data set and ViLT."""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import ViltConfig, ViltImageProcessorPil, ViltModel

from mmrobust.cases import missing_cases
from mmrobust.data.dataset import Dataset
from mmrobust.data.writing import SampleRow, write_dataset
from mmrobust.models.backbone import Backbone
from mmrobust.models.backbones.tiny import BERT_ENDS, train_tokenizer
from mmrobust.models.backbones.vilt import ViltBackbone, ViltProcessor
from mmrobust.models.classifier import Classifier
from mmrobust.models.heads import head_class
from mmrobust.models.methods import method_class
from mmrobust.storage.provenance import versions

THREADS = 2
CLASSES = tuple(f"class-{index}" for index in range(10))
WORDS = tuple(f"{first}{vowel}{last}" for first in "bdfgklmnprst" for vowel in "aeiou" for last in "lmnrst")
TEXT_TOKENS = (60, 120)
IMAGE_SIZE, PATCH_SIZE, HIDDEN_SIZE, LAYERS, HEADS, POSITIONS = 384, 32, 192, 6, 3, 1024


def arguments(description: str | None, samples: int) -> argparse.Namespace:
    """Parse the arguments that several benchmarks share."""
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    parser.add_argument("--samples", type=int, default=samples)
    parser.add_argument("--threads", type=int, default=THREADS)
    parser.add_argument("--cpu-time", action="store_true", help="measure processor time, for a machine with other load")
    parser.add_argument(
        "--every", type=int, default=1, help="of the cells run one by one, run only every N-th, and scale"
    )
    parser.add_argument("--json", type=Path, help="file for the figures, as JSON")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    _clock.append(time.process_time if given.cpu_time else time.perf_counter)
    return given


_clock: list[Callable[[], float]] = [time.perf_counter]


def seconds(work: Callable[[], Any]) -> float:
    """Time ``work``."""
    started = _clock[-1]()
    work()
    return _clock[-1]() - started


def machine() -> dict[str, Any]:
    """Cores, memory and versions of the machine."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gib": round(memory, 1),
        "load": round(os.getloadavg()[0], 1),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "versions": {name: versions()[name] for name in ("python", "torch", "transformers", "mmrobust")},
    }


def report(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], file: Path | None) -> None:
    """Print the figures as a table and, if ``file`` is given, write them as JSON with the machine."""
    texts = [[f"{value:.2f}" if isinstance(value, float) else str(value) for value in row] for row in rows]
    widths = [max(len(line[i]) for line in [list(columns), *texts]) for i in range(len(columns))]
    where = machine()
    print(title)
    for line in [list(columns), *texts]:
        first, *others = (
            text.ljust(w) if i == 0 else text.rjust(w) for i, (text, w) in enumerate(zip(line, widths, strict=True))
        )
        print("  ".join([first, *others]))
    print(f"{where['cores']} cores, {where['threads']} threads, {where['memory_gib']} GiB, load {where['load']}")
    if file is not None:
        figures = [dict(zip(columns, row, strict=True)) for row in rows]
        file.write_text(json.dumps({"title": title, "figures": figures, "machine": where}, indent=2) + "\n")


def image_text_data(folder: Path, samples: int) -> Dataset:
    """Pictures of 384 × 384 and texts of 60 to 120 tokens, [CLS] and [SEP] included."""
    draws = np.random.default_rng(0)
    rows = []
    for index in range(samples):
        pixels = draws.integers(0, 256, (12, 12, 3), dtype=np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC).save(file, "JPEG")
        words = draws.choice(WORDS, draws.integers(TEXT_TOKENS[0] - 2, TEXT_TOKENS[1] - 1))
        label = (int(draws.integers(len(CLASSES))),)
        rows.append(SampleRow("test", f"s{index}", label, image=file.getvalue(), text=" ".join(words)))
    about = {"task": "single-label", "headline_metric": "accuracy", "licence": "", "source": "made at random"}
    write_dataset(folder, rows, name="made", modalities=("image", "text"), classes=CLASSES, **about)
    return Dataset(folder)


def vilt() -> Backbone:
    """A ViLT of hidden 192, six layers, images of 384, patches of 32, with random weights."""
    tokenizer = train_tokenizer([" ".join(WORDS)] * 20, BERT_ENDS)
    config = ViltConfig(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN_SIZE,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=4 * HIDDEN_SIZE,
        max_position_embeddings=POSITIONS,
        image_size=IMAGE_SIZE,
        patch_size=PATCH_SIZE,
        pad_token_id=tokenizer.pad_token_id,
    )
    images = ViltImageProcessorPil(size={"shortest_edge": IMAGE_SIZE}, size_divisor=PATCH_SIZE)
    return ViltBackbone(ViltModel(config), ViltProcessor(tokenizer, images, POSITIONS), "benchmark")


def classifier_on(backbone: Backbone, method: str = "none", head: str = "linear", **settings: Any) -> Classifier:
    """A classifier with random prompts and head."""
    method_cls, head_cls = method_class(method), head_class(head)
    classifier = Classifier(
        backbone,
        method_cls,
        method_cls.config_class(**settings),
        head_cls,
        head_cls.config_class(),
        classes=CLASSES,
        task="single-label",
        cases=missing_cases(backbone.modalities),
    )
    with torch.no_grad():
        for parameter in classifier.method.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return classifier
