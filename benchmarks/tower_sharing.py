"""All cases and promptings at once, sharing common computations, against each on its own.

    python benchmarks/tower_sharing.py

Three cases and two promptings of every sample, on the tiny backbones (the embedded digits; random weights). Samples are
encoded in advance, and both run in batches of 32, three times by turns; the medians.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

import measuring
import numpy as np
from measuring import seconds

from mmrobust.cases import PROMPTINGS
from mmrobust.data.dataset import Dataset
from mmrobust.data.encoded_split import EncodedSplit
from mmrobust.data.prepare.digits import prepare_digits
from mmrobust.models.backbones.tiny import TINY, make_tiny
from mmrobust.models.prediction.predictor import Predictor
from mmrobust.runtime.machine import MemoryBudget

BATCH, REPEATS = 32, 3
PAIRS = (
    ("tiny-clip", "none", "linear", {}),
    ("tiny-clip", "lora", "prototype", {}),
    ("tiny-clip", "mmp", "linear", {}),
    ("tiny-clip", "dcp", "linear", {}),
    ("tiny-cavmae", "none", "linear", {}),
    ("tiny-cavmae", "ptm", "linear", {}),
    ("tiny-cavmae", "mmp", "linear", {}),
    ("tiny-vilt", "none", "prototype", {}),
    ("tiny-vilt", "mmp", "linear", {}),
    ("tiny-vilt", "mmp", "linear", {"layers": [3]}),
)


def main() -> None:
    """Measure and report."""
    asked = measuring.arguments(__doc__, samples=256)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        prepare_digits(Path(folder) / "data", limit=asked.samples)
        data = Dataset(Path(folder) / "data")
        for name, method, head, settings in PAIRS:
            family, _ = TINY[name]
            backbone = make_tiny(name, family.modalities, data.split("train"), 0)
            classifier = measuring.classifier_on(backbone, method, head, **settings)
            encoded = EncodedSplit(
                data.split("test"),
                backbone.processor,
                classifier.modalities,
                classifier.fill,
                memory=MemoryBudget(2**40),
            )
            everyone = np.arange(len(encoded.split))
            plan = {(case, prompting): everyone for case in classifier.cases for prompting in PROMPTINGS}

            def shared(classifier=classifier, encoded=encoded, plan=plan) -> None:
                for _ in Predictor(classifier, encoded, BATCH).stretches(plan):
                    pass

            def apart(classifier=classifier, encoded=encoded, plan=plan) -> None:
                for key, positions in plan.items():
                    for _ in Predictor(classifier, encoded, BATCH).stretches({key: positions}):
                        pass

            shared()  # warm up, and encode everything
            turns = [(seconds(shared), seconds(apart)) for _ in range(REPEATS)]
            together, alone = (statistics.median(times) for times in zip(*turns, strict=True))
            told = "".join(f", {key} {value}" for key, value in settings.items())
            rows.append((f"{name}, {method} + {head}{told}", alone, together, alone / together))
    title = f"{len(everyone)} samples, 3 cases, 2 promptings"
    measuring.report(title, ("model", "apart, s", "shared, s", "times faster"), rows, asked.json)


if __name__ == "__main__":
    main()
