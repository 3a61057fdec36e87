"""`eval` of a tiny ViLT against the bare forward passes of its cases, in processor time, after start-up.

    python benchmarks/eval_overhead.py [--samples 1000] [--repeats 7] [--json FILE]

The bare passes get batches that are encoded and collated already, the same that the evaluation makes; the evaluation
reads, decodes, encodes, predicts, stores and scores the default grid of 198 cells; once more with inputs that an
earlier command has kept (`--cache`). The data are the pictures and texts of `digits`, over and over; so are the bare
passes those of the first thousand. One thread; all by turns, and the medians of their ratios.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import measuring
import torch

import mmrobust
from mmrobust.cases import Case, missing_cases
from mmrobust.data.dataset import Dataset
from mmrobust.data.encoded_split import EncodedSplit, group_by_length
from mmrobust.data.prepare.digits import prepare_digits
from mmrobust.data.selection import STRETCH_SAMPLES
from mmrobust.data.writing import SampleRow, write_dataset
from mmrobust.models.checkpoint import load_checkpoint
from mmrobust.models.classifier import Classifier
from mmrobust.runtime.devices import DEFAULT_BATCH_SIZE
from mmrobust.training.loop import train
from mmrobust.training.recipe import Recipe
from mmrobust.training.settings import TrainSettings

MODALITIES = ("image", "text")
SPLIT = "test"
AT_ONCE = 1000


def repeated(samples: int, folder: Path) -> Dataset:
    """So many samples of digits, over and over."""
    prepare_digits(folder / "digits")
    once = list(Dataset(folder / "digits").split("train"))
    rows = (
        SampleRow(SPLIT, f"s{i}", sample.label, **{modality: sample.media[modality] for modality in MODALITIES})
        for i, sample in enumerate(itertools.islice(itertools.cycle(once), samples))
    )
    about = {"task": "single-label", "headline_metric": "accuracy", "licence": "", "source": "digits"}
    write_dataset(folder / "data", rows, name="digits", modalities=MODALITIES, classes=once[0].info.classes, **about)
    return Dataset(folder / "data")


def bare(classifier: Classifier, data: Dataset, samples: int) -> Callable[[], None]:
    """The forward passes of an evaluation, on tensors that lie in memory: those of at most ``AT_ONCE`` samples."""
    processor = classifier.backbone.processor
    encoded = EncodedSplit(data.split(SPLIT), processor, classifier.modalities, classifier.fill)
    batches = []
    at_once = min(samples, AT_ONCE)
    for case in missing_cases(MODALITIES):
        for start in range(0, at_once, STRETCH_SAMPLES):
            positions = range(start, min(start + STRETCH_SAMPLES, at_once))
            inputs = encoded.samples(positions, Case.complete(MODALITIES))
            filled = encoded.samples(positions, case)
            for rows in group_by_length([processor.length(sample) for sample in inputs], DEFAULT_BATCH_SIZE):
                batches.append((processor.collate([filled[row] for row in rows]), case.name))

    def run() -> None:
        with torch.inference_mode():
            for _ in range(samples // at_once):
                for batch, case in batches:
                    classifier(batch, case)

    return run


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        data = repeated(given.samples, folder)
        keeping = Dataset(data.folder, cache=folder / "kept")
        settings = "tiny", "full", "linear", Recipe(epochs=1), MODALITIES
        train(TrainSettings(folder / "digits", *settings, missing_rate=0.0), folder / "it")
        checkpoint = load_checkpoint(folder / "it")
        run = bare(checkpoint.classifier, data, given.samples)
        for repeat in range(given.repeats + 1):
            started = time.process_time()
            run()
            between = time.process_time()
            mmrobust.evaluate(checkpoint, data, split=SPLIT, limit=given.samples, out=folder / f"out-{repeat}")
            then = time.process_time()
            mmrobust.evaluate(checkpoint, keeping, split=SPLIT, limit=given.samples, out=folder / f"kept-{repeat}")
            passes, whole, kept = between - started, then - between, time.process_time() - then
            rows.append((repeat, passes, whole, whole / passes, kept, kept / passes))
    title = f"{given.samples} samples × {len(missing_cases(MODALITIES))} cases, tiny ViLT, processor time"
    measured = rows[1:]  # the first run imports and fills caches
    columns = ("run", "passes alone, s", "evaluate, s", "ratio", "with kept inputs, s", "ratio")
    measuring.report(title, columns, measured, given.json)
    for name, column in (("evaluate", 3), ("with kept inputs", 5)):
        print(f"median ratio, {name}: {statistics.median(row[column] for row in measured):.3f}")


if __name__ == "__main__":
    main()
