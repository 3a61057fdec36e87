"""The default recipe of a tiny backbone against what a linear probe sees in each modality.

    python benchmarks/small_backbone.py DATA [DATA …] [--modalities image,text] [--seeds 0,1,2]

Each DATA is a prepared data set of classes. A row each: scikit-learn's logistic regression on the words of the texts
(tf-idf), on pictures of 16 × 16 pixels, on the mean and deviation over time of 64 log mel bins, on all of them
together, and `train --backbone tiny --method full` with its default settings. Accuracy on the complete test split, and
the seconds of the training.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from mmrobust.cases import Case
from mmrobust.data.dataset import Dataset
from mmrobust.data.decoding import decode
from mmrobust.data.encoded_split import EncodedSplit
from mmrobust.models.backbones.filterbank import log_mel_filterbank
from mmrobust.models.checkpoint import load_checkpoint
from mmrobust.models.prediction.predictor import Predictor
from mmrobust.training.loop import train
from mmrobust.training.settings import TrainOptions

PENALTY = 10.0
"""scikit-learn's ``C``."""


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--modalities")
    parser.add_argument("--seeds", default="0,1,2")
    given = parser.parse_args()
    print("| data | probe or backbone | accuracy | seconds |\n| --- | --- | ---: | ---: |")
    for folder in given.data:
        data = Dataset(folder)
        modalities = tuple(given.modalities.split(",")) if given.modalities else data.info.modalities
        seen = {split: _features(data, split, modalities) for split in ("train", "test")}
        labels = {split: [label[0] for label in data.split(split).labels] for split in ("train", "test")}
        together = [
            np.concatenate(columns, axis=1) for columns in zip(*(_both(seen, m) for m in modalities), strict=True)
        ]
        columns = {modality: _both(seen, modality) for modality in modalities} | {"together": together}
        for name, (training, test) in columns.items():
            probe = LogisticRegression(C=PENALTY, max_iter=3000).fit(training, labels["train"])
            print(f"| {folder.name} | probe, {name} | {100 * probe.score(test, labels['test']):.1f} | |", flush=True)
        found, seconds = zip(*(_trained(data, modalities, int(seed)) for seed in given.seeds.split(",")), strict=True)
        accuracy = f"{100 * np.mean(found):.1f} ± {100 * np.std(found):.1f}"
        print(f"| {folder.name} | tiny, {' + '.join(modalities)} | {accuracy} | {np.mean(seconds):.0f} |", flush=True)


def _features(data: Dataset, split: str, modalities: tuple[str, ...]) -> dict[str, Any]:
    """Modality → its texts, or its features [N, F]."""
    samples = list(data.split(split))
    found: dict[str, Any] = {}
    for modality in modalities:
        media = [decode(sample, modality) for sample in samples]
        kind = data.info.kinds[modality]
        if kind == "image":
            small = [
                np.asarray(each.convert("RGB").resize((16, 16), Image.Resampling.BILINEAR)) / 255 for each in media
            ]
            media = np.stack(small).reshape(len(small), -1)
        elif kind == "audio":
            banks = [log_mel_filterbank(wave, rate, 8_000, 64) for wave, rate in media]
            media = np.stack([np.concatenate([bank.mean(0), bank.std(0)]) for bank in banks])
        found[modality] = media
    return found


def _both(seen: dict[str, dict[str, Any]], modality: str) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """The features of a modality in the training and in the test split."""
    training, test = seen["train"][modality], seen["test"][modality]
    if isinstance(training, list):
        words = TfidfVectorizer().fit(training)
        return words.transform(training).toarray(), words.transform(test).toarray()
    scaler = StandardScaler(with_std=training.shape[1] == 128).fit(training)  # pixels have one unit already
    return scaler.transform(training), scaler.transform(test)


def _trained(data: Dataset, modalities: tuple[str, ...], seed: int) -> tuple[float, float]:
    """Test accuracy, complete, of the default recipe, and the seconds of its training."""
    with tempfile.TemporaryDirectory() as scratch:
        options = TrainOptions(method="full", backbone="tiny", modalities=modalities)
        start = time.perf_counter()
        train(options.resolve(data.folder, seed=seed), Path(scratch) / "full")
        seconds = time.perf_counter() - start
        classifier = load_checkpoint(Path(scratch) / "full").classifier
    split = data.split("test")
    encoded = EncodedSplit(split, classifier.backbone.processor, classifier.modalities, classifier.fill)
    key = (Case.complete(classifier.modalities).name, "situation")
    logits = Predictor(classifier, encoded)({key: np.arange(len(split.ids))})[key]
    return float(np.mean(logits.argmax(1) == [label[0] for label in split.labels])), seconds


if __name__ == "__main__":
    main()
