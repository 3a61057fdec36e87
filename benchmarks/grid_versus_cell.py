"""A whole grid of 165 cells against one cell as the papers' code does it, and against our engine cell by cell.

    python benchmarks/grid_versus_cell.py

3 scenarios × 11 rates × 5 seeds on a ViLT of hidden 192, 6 layers, image 384, patch 32, texts of 60 to 120 tokens, with
MMP's input prompts, 16 on each of the layers 0 to 2. :func:`papers_cell` does what the papers' code does: every text
padded to 512, prompts gathered sample by sample, attention written out. Its inputs are already decoded and collated;
the grid reads, decodes, predicts and scores (with confidence intervals). The weights are the same, and the logits are
checked to be the same.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import measuring
import numpy as np
import torch
from measuring import seconds
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

import mmrobust
from mmrobust.cases import Case
from mmrobust.data.encoded_split import EncodedSplit
from mmrobust.data.selection import select_samples
from mmrobust.evaluation.plan import DrawnGrid
from mmrobust.models.classifier import Classifier
from mmrobust.models.prediction.predictor import Predictor
from mmrobust.runtime.machine import MemoryBudget
from mmrobust.scenarios.draws import missing_table
from mmrobust.scenarios.grid import DEFAULT_RATES, Grid
from mmrobust.scenarios.scenario import Scenario, scenario_names

PADDED = 512
BATCH = 32
SEEDS = 5
LEVELS = {"length": 16, "depth": 3, "init": "normal"}


@torch.inference_mode()
def papers_cell(classifier: Classifier, batches: list[dict[str, Any]]) -> Tensor:
    """Logits of one cell as the papers' code makes them."""
    model, method = classifier.backbone.model, classifier.method
    prompts = {case: method.tokens["joint"][case] for case in classifier.cases}
    logits = []
    for batch in batches:
        text, image = (classifier.backbone.embed(modality, batch) for modality in ("text", "image"))
        x = torch.cat([text.tokens_BLD, image.tokens_BLD], 1)
        mask = torch.cat([text.mask_BL, torch.ones(image.tokens_BLD.shape[:2], dtype=torch.bool)], 1)
        chosen = torch.stack([prompts[case] for case in batch["cases"]])  # [B, layers, P, D], sample by sample
        for index, layer in enumerate(model.encoder.layer):
            if index < chosen.shape[1]:
                x = torch.cat([chosen[:, index], x], 1)
                mask = torch.cat([torch.ones(len(x), chosen.shape[2], dtype=torch.bool), mask], 1)
            attention = layer.attention.attention
            normed = layer.layernorm_before(x)
            query, key, value = (
                part(normed).unflatten(-1, (measuring.HEADS, -1)).transpose(1, 2)
                for part in (attention.query, attention.key, attention.value)
            )
            weights = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
            weights = weights.masked_fill(~mask[:, None, None], float("-inf")).softmax(-1)
            x = x + layer.attention.output((weights @ value).transpose(1, 2).flatten(2), None)
            x = x + layer.output.dense(layer.intermediate(layer.layernorm_after(x)))
        first = classifier.pooling.norm(x)[:, LEVELS["depth"] * LEVELS["length"] :]
        logits.append(classifier.head.dense(classifier.pooling.pooler(first)))
    return torch.cat(logits)


def papers_batches(encoded: EncodedSplit, table: dict[str, str]) -> list[dict[str, Any]]:
    """The samples in their cases, in order, every text padded to 512."""
    batches = []
    for start in range(0, len(encoded.split), BATCH):
        positions = range(start, min(start + BATCH, len(encoded.split)))
        cases = [table[encoded.split.ids[p]] for p in positions]
        samples = [
            encoded.samples([p], Case.parse(case, encoded.modalities))[0]
            for p, case in zip(positions, cases, strict=True)
        ]
        inputs: dict[str, Any] = encoded.processor.collate(samples)
        for name in ("input_ids", "attention_mask"):
            inputs[name] = F.pad(inputs[name], (0, PADDED - inputs[name].shape[1]))
        batches.append({**inputs, "cases": cases})
    return batches


def main() -> None:
    """Measure and report."""
    asked = measuring.arguments(__doc__, samples=128)
    classifier = measuring.classifier_on(measuring.vilt(), "mmp", **LEVELS)
    with tempfile.TemporaryDirectory() as folder:
        data = measuring.image_text_data(Path(folder) / "data", asked.samples)
        split, processor = data.split("test"), classifier.backbone.processor
        encoded = EncodedSplit(split, processor, classifier.modalities, classifier.fill, memory=MemoryBudget(2**40))
        scenarios = scenario_names(classifier.modalities)

        scenario = Scenario.parse("missing-both", classifier.modalities)
        batches = papers_batches(encoded, missing_table(split.ids, scenario, 0.7, 0))
        papers_cell(classifier, batches[:1])  # warm
        one_cell = seconds(lambda: papers_cell(classifier, batches))
        check(classifier, encoded, batches, papers_cell(classifier, batches))

        def grid(*prompting: str) -> float:
            return seconds(
                lambda: mmrobust.evaluate(classifier, data, seeds=SEEDS, prompting=prompting, batch_size=BATCH)
            )

        situation, both = grid("situation"), grid("situation", "concat")

        cells = [
            Grid((name,), (rate,), (seed,), ("situation",))
            for name in scenarios
            for rate in DEFAULT_RATES
            for seed in range(SEEDS)
        ]

        samples = select_samples(encoded.split.dataset, encoded.split.name)

        def cell_by_cell() -> None:
            for cell in cells[:: asked.every]:
                plan = DrawnGrid.draw(cell, samples, classifier.modalities).plan(cell.promptings)
                for _ in Predictor(classifier, encoded, BATCH).stretches(plan):
                    pass

        each = seconds(cell_by_cell) * len(cells) / len(cells[:: asked.every])
    title = f"{len(cells)} cells, {asked.samples} samples: ViLT 192 × 6, mmp 16 × 3"
    columns = ("what", "seconds", "÷ one cell, papers' way")
    rows = [
        ("one cell, the papers' way", one_cell, 1.0),
        ("all cells, situation", situation, situation / one_cell),
        ("all cells, situation and concat", both, both / one_cell),
        ("all cells one by one, our engine", each, each / one_cell),
        ("  ÷ all cells, situation", each / situation, ""),
    ]
    measuring.report(title, columns, rows, asked.json)


def check(classifier: Classifier, encoded: EncodedSplit, batches: list[dict[str, Any]], logits: Tensor) -> None:
    """Check that both give the same logits."""
    cases = [case for batch in batches for case in batch["cases"]]
    plan = {(case, "situation"): np.flatnonzero([c == case for c in cases]) for case in sorted(set(cases))}
    for stretch in Predictor(classifier, encoded, BATCH).stretches(plan):
        for positions, ours in stretch.values():
            np.testing.assert_allclose(ours, logits[positions].numpy(), rtol=0, atol=1e-4)


if __name__ == "__main__":
    main()
