"""The model card: the ``README.md`` of a checkpoint, for people."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml

from mmrobust.data.processor import FILLS
from mmrobust.models.checkpoint import CARD_FILE, CheckpointConfig
from mmrobust.storage.files import atomic_file
from mmrobust.storage.tasks import REGRESSION

_CARD = """---
{front}---

# {title}

`{method}` on a {family} backbone with a `{head}` head, {made}.

| | |
| --- | --- |
| task | {task}, {classes} |
| modalities | {modalities} |
{rows}
| a missing image is | {fill}, after the transform |

## Use

{rest}
"""

_TRAINED = {
    "made": "trained by mmrobust {version} on **{dataset}**",
    "rows": """| backbone | `{backbone}` (weights {fingerprint}) |
| trained parameters | {trained_parameters:,} of {all_parameters:,} |
| trained under | {under}, seed {seed} |
| epochs | {epochs}, the best was {best_epoch} |
| {metric} on validation, under the same | **{validation:.4f}** |""",
    "rest": """```python
import mmrobust

classifier = mmrobust.load("{title}")
logits = classifier.logits([sample], case="complete")  # sample: {{{sample}}}
```

Cases: {cases}. Evaluate over missing rates with `mmrobust eval {title} --data DIR --out DIR`.

## Limits

The validation figure is of one seed and one missing rate. Nothing is known of inputs that are degraded in another way
than those above.""",
}

_IMPORTED = {
    "made": "trained with the code of <{repository}> and imported by\nmmrobust {version}",
    "rows": """| trained on | {dataset} |
| file | `{file}` |
| its SHA-256 | `{sha256}` |""",
    "rest": """```bash
mmrobust eval {title} --data DIR --out DIR
```

Cases: {cases}.

## What to know

{remarks}""",
}

_RAW = {"image": "PIL image", "text": "str", "audio": "(waveform, rate)", "features": "array"}
"""Kind → what a sample has of it."""


def write_card(folder: Path, title: str, config: CheckpointConfig, remarks: Sequence[str] = ()) -> None:
    """Write the card of a checkpoint called ``title``; the ``remarks``, one sentence each, are for an imported one."""
    training, origin = config.training, config.training.get("imported")
    tags = ["multimodal", "missing-modality", config.method["name"], config.head["name"], *["imported"] * bool(origin)]
    kinds = {modality: tower["kind"] for modality, tower in config.backbone.get("towers", {}).items()}
    front = {"library_name": "mmrobust", "tags": tags, "metrics": [config.headline_metric]}
    values = {
        **training,
        **(origin or {}),
        "front": yaml.safe_dump(front, sort_keys=False),
        "title": title,
        "version": config.versions["mmrobust"],
        "method": config.method["name"],
        "head": config.head["name"],
        "family": config.backbone["family"],
        "backbone": config.backbone["id"],
        "fingerprint": config.backbone["fingerprint"][:12],
        "dataset": config.dataset["name"],
        "task": config.task,
        "classes": f"of {config.classes[0]}" if config.task == REGRESSION else f"{len(config.classes)} classes",
        "modalities": " + ".join(config.modalities),
        "sample": ", ".join(f'"{m}": {_RAW[kinds.get(m, m)]}' for m in config.modalities),
        "cases": ", ".join(f"`{case}`" for case in config.cases),
        "fill": FILLS[config.fill],
        "metric": config.headline_metric,
        "remarks": "\n".join(f"- {remark}" for remark in remarks),
    }
    if not origin:
        values["under"] = (
            f"every case in turn, noise profile {training['noise_profile']}"
            if training["recipe"]["batching"] == "case-wise"
            else f"{training['scenario']} at a missing rate of {training['missing_rate']:g}"
        )
    parts = {name: part.format(**values) for name, part in (_IMPORTED if origin else _TRAINED).items()}
    text = _CARD.format(**values, **parts)
    with atomic_file(folder / CARD_FILE) as partial:
        partial.write_text(text, encoding="utf-8")
