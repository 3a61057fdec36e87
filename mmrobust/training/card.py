"""The model card: the ``README.md`` of a checkpoint, for people."""

from __future__ import annotations

from pathlib import Path

import yaml

from mmrobust.data.processor import FILLS
from mmrobust.models.checkpoint import CARD_FILE, CheckpointConfig
from mmrobust.storage.files import atomic_file
from mmrobust.training.recipe import CASE_WISE
from mmrobust.training.state import TrainingState

_CARD = """---
{front}---

# {title}

`{method}` on a {family} backbone with a `{head}` head, trained by mmrobust {version} on **{dataset}**.

| | |
| --- | --- |
| task | {task}, {classes} classes |
| modalities | {modalities} |
| backbone | `{backbone}` (weights {fingerprint}) |
| trained parameters | {trained:,} of {all:,} |
| trained under | {under}, seed {seed} |
| epochs | {epochs}, the best was {best_epoch} |
| {metric} on validation, under the same | **{validation:.4f}** |
| a missing image is | {fill}, after the transform |

## Use

```python
import mmrobust

classifier = mmrobust.load("{name}")
logits = classifier.logits([sample], case="complete")  # sample: {{{sample}}}
```

Cases: {cases}. Evaluate over missing rates with `mmrobust eval {name} --data DIR --out DIR`.

## Limits

The validation figure is of one seed and one missing rate. Nothing is known of inputs that are degraded in another way
than those above.
"""

_RAW = {"image": "PIL image", "text": "str", "audio": "(waveform, rate)"}


def write_card(folder: Path, config: CheckpointConfig, state: TrainingState) -> None:
    """Write the card into the checkpoint ``folder``."""
    best = state.records[state.best_epoch - 1]
    front = {
        "library_name": "mmrobust",
        "tags": ["multimodal", "missing-modality", config.method["name"], config.head["name"]],
        "metrics": [config.headline_metric],
    }
    text = _CARD.format(
        front=yaml.safe_dump(front, sort_keys=False),
        title=folder.resolve().name,
        name=folder.resolve().name,
        method=config.method["name"],
        head=config.head["name"],
        family=config.backbone["family"],
        backbone=config.backbone["id"],
        fingerprint=config.backbone["fingerprint"][:12],
        version=config.versions["mmrobust"],
        dataset=config.dataset["name"],
        task=config.task,
        classes=len(config.classes),
        modalities=" + ".join(config.modalities),
        trained=config.training["trained_parameters"],
        all=config.training["all_parameters"],
        under=(
            f"every case in turn, noise profile {config.training['noise_profile']}"
            if config.training["recipe"]["batching"] == CASE_WISE
            else f"{config.training['scenario']} at a missing rate of {config.training['missing_rate']:g}"
        ),
        seed=config.training["seed"],
        epochs=state.epoch,
        best_epoch=best.epoch,
        metric=config.headline_metric,
        validation=best.validation,
        fill=FILLS[config.fill],
        sample=", ".join(f'"{m}": {_RAW[m]}' for m in config.modalities),
        cases=", ".join(f"`{case}`" for case in config.cases),
    )
    with atomic_file(folder / CARD_FILE) as partial:
        partial.write_text(text, encoding="utf-8")
