"""The model card of an imported checkpoint: what it is, and where it comes from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml

from mmrobust.data.processor import FILLS
from mmrobust.models.checkpoint import CARD_FILE, CheckpointConfig
from mmrobust.storage.files import atomic_file

_CARD = """---
{front}---

# {title}

`{method}` on a {family} backbone with a `{head}` head, trained with the code of <{repository}> and imported by
mmrobust {version}.

| | |
| --- | --- |
| task | {task}, {classes} classes |
| modalities | {modalities} |
| trained on | {dataset} |
| file | `{file}` |
| its SHA-256 | `{sha256}` |
| a missing image is | {fill}, after the transform |

## Use

```bash
mmrobust eval {title} --data DIR --out DIR
```

Cases: {cases}.

## What to know

{remarks}
"""


def write_import_card(folder: Path, title: str, config: CheckpointConfig, remarks: Sequence[str]) -> None:
    """Write the card into the checkpoint ``folder``.

    Args:
        folder: where.
        title: what the checkpoint is called.
        config: of the checkpoint; its ``training`` says where it was imported from.
        remarks: one sentence each.
    """
    origin = config.training["imported"]
    front = {
        "library_name": "mmrobust",
        "tags": ["multimodal", "missing-modality", config.method["name"], config.head["name"], "imported"],
        "metrics": [config.headline_metric],
    }
    text = _CARD.format(
        front=yaml.safe_dump(front, sort_keys=False),
        title=title,
        method=config.method["name"],
        family=config.backbone["family"],
        head=config.head["name"],
        repository=origin["repository"],
        version=config.versions["mmrobust"],
        task=config.task,
        classes=len(config.classes),
        modalities=" + ".join(config.modalities),
        dataset=config.dataset["name"],
        file=origin["file"],
        sha256=origin["sha256"],
        fill=FILLS[config.fill],
        cases=", ".join(f"`{case}`" for case in config.cases),
        remarks="\n".join(f"- {remark}" for remark in remarks),
    )
    with atomic_file(folder / CARD_FILE) as partial:
        partial.write_text(text, encoding="utf-8")
