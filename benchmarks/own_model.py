"""`mmrobust.evaluate` on a model of one's own against its bare function, called on the same samples.

    python benchmarks/own_model.py [--samples 600] [--work sleep|compute] [--json FILE]

The function takes 5 ms a sample, asleep (as a remote model is) or computing on one core. The bare calls get samples
that are decoded already, in the batches that an evaluation makes; the evaluation reads, decodes, predicts, stores and
scores the default grid. The ratio of the two is the overhead. Other load slows down computing but not sleep: then look
at the processor time, too, most of which is decoding while the function sleeps. Pictures are 384 × 384 (JPEG), texts 60
to 120 words.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import measuring
import numpy as np

import mmrobust
from mmrobust.cases import Case
from mmrobust.data.dataset import Dataset
from mmrobust.data.decoded_split import DecodedSplit
from mmrobust.degradations import Noise

SECONDS = 0.005
BATCH = 32
REPEATS = 3
MODALITIES = ("image", "text")
CASES = ("complete", "missing-image", "missing-text")


def asleep() -> None:
    """Wait, as for another machine's answer."""
    time.sleep(SECONDS)


def computing(size: int) -> Callable[[], None]:
    """A function that multiplies matrices of this size."""
    matrix = np.random.default_rng(0).normal(size=(size, size)).astype(np.float32)

    def compute() -> None:
        matrix @ matrix

    return compute


def calibrated() -> Callable[[], None]:
    """A function that computes for about 5 ms of processor time."""

    def processor_seconds(size: int) -> float:
        work, started = computing(size), time.process_time()
        for _ in range(5):
            work()
        return (time.process_time() - started) / 5

    size = 128
    while processor_seconds(size) < SECONDS:
        size += 16
    return computing(size)


def model_of(work: Callable[[], None]) -> mmrobust.Model:
    """A model that does the work for each sample; its scores depend on the sample."""

    def predict(samples: list[dict[str, Any]], case: str | None) -> np.ndarray:
        scores = np.zeros((len(samples), len(measuring.CLASSES)))
        for row, sample in enumerate(samples):
            work()
            scores[row, len(sample["text"] or "") % len(measuring.CLASSES)] = 1
        return scores

    return mmrobust.Model(
        name="worker",
        version="1",
        modalities=MODALITIES,
        classes=measuring.CLASSES,
        task="single-label",
        predict=predict,
    )


def bare(model: mmrobust.Model, data: Dataset) -> Callable[[], None]:
    """The calls that an evaluation makes, on samples that lie in memory."""
    split = data.split("test")
    decoded = DecodedSplit(split, MODALITIES, {}, Noise())
    media: dict[int, dict[str, Any]] = {}
    for loaded in decoded.load([dict.fromkeys(range(len(split)), MODALITIES)]):
        media |= loaded
    batches = [
        [
            decoded.in_case(p, media[p], Case.parse(case, MODALITIES))
            for p in range(start, min(start + BATCH, len(split)))
        ]
        for case in CASES
        for start in range(0, len(split), BATCH)
    ]

    def call() -> None:
        for batch in batches:
            model.predict(batch, None)

    return call


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=600)
    parser.add_argument("--work", choices=("sleep", "compute"), default="sleep")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    model = model_of(asleep if given.work == "sleep" else calibrated())
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        data = measuring.image_text_data(Path(folder) / "data", given.samples)
        call = bare(model, data)
        mmrobust.evaluate(model, data, limit=BATCH)  # imports, caches
        for repeat in range(REPEATS):
            calls = measuring.seconds(call)
            out = Path(folder) / f"out-{repeat}"
            computed = time.process_time()
            whole = measuring.seconds(lambda out=out: mmrobust.evaluate(model, data, batch_size=BATCH, out=out))
            rows.append((repeat + 1, calls, whole, whole / calls, time.process_time() - computed))
    title = f"{given.samples} samples × {len(CASES)} cases, {given.work}, 5 ms a sample; 99 cells"
    measuring.report(
        title, ("run", "predict alone, s", "evaluate, s", "ratio", "evaluate, processor s"), rows, given.json
    )
    print(f"median ratio {sorted(row[3] for row in rows)[REPEATS // 2]:.3f}")


if __name__ == "__main__":
    main()
