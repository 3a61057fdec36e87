"""How fast pictures reach a model that takes no time, and what that costs the main process.

    python benchmarks/feeding.py SOURCE [--samples 1024] [--workers 2] [--json FILE]

SOURCE is a folder of pictures. Workers and a main process (or, with no workers, as many threads of it as
OMP_NUM_THREADS says) read, decode, encode, collate and hand them over as `eval` does: only what runs on the device is
left out. Beside it, one process decodes and encodes the same pictures and does nothing else. Processor time, by turns,
after start-up; the medians.

- *÷ bare*: decoding and encoding alone, as a share of all processor time. That is the throughput divided by cores ×
  one core's rate wherever no core waits, whatever else runs on the machine; *÷ bare, wall* is the same by the clock.
- *main*: milliseconds of the main process for each sample.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import measuring
import numpy as np
import torch
from transformers import CLIPImageProcessorPil, ViltImageProcessorPil

from mmrobust.data.dataset import Dataset
from mmrobust.data.encoded_split import EncodedSplit
from mmrobust.data.loading import Loader
from mmrobust.data.writing import SampleRow, write_dataset
from mmrobust.models.backbones.clip import ClipProcessor
from mmrobust.models.backbones.tiny import BERT_ENDS, train_tokenizer
from mmrobust.models.backbones.vilt import ViltProcessor
from mmrobust.models.prediction.predictor import Predictor
from mmrobust.runtime.machine import MemoryBudget, available_cores, own_threads

REPEATS = 5
KEY = ("complete", "situation")
MOST_TOKENS = 40


class Null(Predictor):
    """Predicts nothing, at once."""

    def _run(self, batch: Any, stretch: Any, advance: Any) -> None:
        del batch, stretch, advance


def pictures(source: Path, folder: Path, samples: int) -> Dataset:
    """A data set of the pictures in ``source``, over and over, each with its name as a text."""
    files = sorted(file for file in source.rglob("*") if file.suffix.lower() in (".png", ".jpg", ".jpeg"))
    rows = (
        SampleRow("test", f"s{i}", (0,), image=(file := files[i % len(files)]).read_bytes(), text=file.stem)
        for i in range(samples)
    )
    about = {"task": "single-label", "headline_metric": "accuracy", "licence": "", "source": str(source)}
    write_dataset(folder, rows, name="made", modalities=("image", "text"), classes=measuring.CLASSES, **about)
    return Dataset(folder)


def fed(encoded: EncodedSplit, null: Null, workers: int) -> tuple[float, float, float]:
    """Seconds of the main process, of its workers, and by the clock, for the samples of the split."""
    pool = encoded._loader._pool
    before = worker_seconds(pool) if workers else 0.0
    main, clock = time.process_time(), time.perf_counter()
    for _ in null.stretches({KEY: np.arange(len(encoded.split))}):
        pass
    main, clock = time.process_time() - main, time.perf_counter() - clock
    return main, worker_seconds(pool) - before if workers else 0.0, clock


def worker_seconds(pool: Any) -> float:
    """Processor time of the workers so far."""
    stats = [Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split() for process in pool.processes]
    return sum(int(stat[11]) + int(stat[12]) for stat in stats) / os.sysconf("SC_CLK_TCK")


def bare(split: Any, processor: Any) -> tuple[float, float]:
    """Seconds of one process that decodes and encodes: processor time, and by the clock."""
    loader = Loader(split, processor)
    cpu, clock = time.process_time(), time.perf_counter()
    for start in range(0, len(split), 32):
        list(loader.load([dict.fromkeys(range(start, min(start + 32, len(split))), ("image", "text"))]))
    return time.process_time() - cpu, time.perf_counter() - clock


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("--samples", type=int, default=1024)
    parser.add_argument("--workers", type=int, default=available_cores())
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as place:
        split = pictures(given.source, Path(place) / "data", given.samples).split("test")
        tokenizer = train_tokenizer((sample.text or "" for sample in split), BERT_ENDS)
        classifier = measuring.classifier_on(measuring.vilt())  # of which only the modalities are asked
        for name, processor in (
            ("ViLT, 384", ViltProcessor(tokenizer, ViltImageProcessorPil(), MOST_TOKENS)),
            ("CLIP, 224", ClipProcessor(tokenizer, CLIPImageProcessorPil(), MOST_TOKENS)),
        ):
            encoded = EncodedSplit(
                split, processor, ("image", "text"), "ones", workers=given.workers, memory=MemoryBudget(0)
            )
            null = Null(classifier, encoded, 64)
            list(null.stretches({KEY: np.arange(64 * max(1, given.workers))}))  # starts the workers
            found = []
            for _ in range(REPEATS):
                cpu, clock = bare(split, processor)
                main_s, worker_s, wall = fed(encoded, null, given.workers)
                cores = min(given.workers or own_threads(), available_cores())
                share, by_clock = cpu / (main_s + worker_s), clock / wall / cores
                each = [1000 * seconds / len(split) for seconds in (cpu, worker_s, main_s)]
                found.append((*each, share, by_clock))
            rows.append([name, *(statistics.median(column) for column in zip(*found, strict=True))])
            encoded.release()
    columns = ["images", "bare, ms", "workers, ms", "main, ms", "÷ bare", "÷ bare, wall"]
    by = f"{given.workers} workers" if given.workers else f"{own_threads()} threads"
    measuring.report(f"{given.samples} pictures, {by}", columns, rows, given.json)


if __name__ == "__main__":
    main()
