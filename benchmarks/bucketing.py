"""Texts padded to the longest of a batch of similar lengths, against texts padded to 512 and to 1024.

    python benchmarks/bucketing.py

Complete samples, MMP's input prompts; the same forward pass over batches of 32 that are collated in advance.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import measuring
import torch
from measuring import seconds
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from mmrobust.cases import Case
from mmrobust.data.encoded_split import EncodedSplit, group_by_length
from mmrobust.runtime.machine import MemoryBudget

BATCH = 32


def main() -> None:
    """Measure and report."""
    asked = measuring.arguments(__doc__, samples=128)
    classifier = measuring.classifier_on(measuring.vilt(), "mmp", length=16, depth=3, init="normal")
    with tempfile.TemporaryDirectory() as folder:
        split = measuring.image_text_data(Path(folder) / "data", asked.samples).split("test")
        processor = classifier.backbone.processor
        encoded = EncodedSplit(split, processor, classifier.modalities, classifier.fill, memory=MemoryBudget(2**40))
        samples = encoded.samples(range(len(split)), Case.complete(classifier.modalities))

        def collated(padded: int) -> list[dict[str, Tensor]]:
            lengths = [processor.length(sample) for sample in samples] if not padded else [()] * len(samples)
            batches = [processor.collate([samples[i] for i in rows]) for rows in group_by_length(lengths, BATCH)]
            for batch in batches:
                for name in ("input_ids", "attention_mask"):
                    batch[name] = F.pad(batch[name], (0, max(0, padded - batch[name].shape[1])))
            return batches

        rows = []
        with torch.inference_mode():
            for name, padded in (("bucketed", 0), ("padded to 512", 512), ("padded to 1024", 1024)):
                batches = collated(padded)
                classifier(batches[0])  # warm
                tokens = sum(batch["input_ids"].numel() for batch in batches)
                taken = seconds(lambda batches=batches: [classifier(batch) for batch in batches])
                rows.append((name, tokens, taken, taken / rows[0][2] if rows else 1.0))
    title = f"{asked.samples} complete samples: ViLT 192 × 6, texts of 60 to 120 tokens"
    measuring.report(title, ("texts", "text tokens run", "seconds", "÷ bucketed"), rows, asked.json)


if __name__ == "__main__":
    main()
