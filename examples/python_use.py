"""Everything from Python, without the command line: train, classify, evaluate, report, check.

    python examples/python_use.py work
    python examples/python_use.py work --limit 40 --epochs 1      # a quick look

`mmrobust.load` and `mmrobust.evaluate` are the public API; the other imports are what the commands themselves use.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import mmrobust
from mmrobust.data import Dataset
from mmrobust.data.decoding import decode_image
from mmrobust.data.prepare.digits import prepare_digits
from mmrobust.evaluation.evaluate import evaluate_models
from mmrobust.gate.check import check_files
from mmrobust.gate.rules import parse_rule
from mmrobust.models.checkpoint import load_checkpoint
from mmrobust.report import FORMATS
from mmrobust.report.report import build_report
from mmrobust.scenarios.grid import make_grid
from mmrobust.training.loop import train
from mmrobust.training.recipe import default_recipe
from mmrobust.training.settings import TrainSettings


def train_two(data: Path, folder: Path, epochs: int) -> tuple[Path, Path]:
    """Train a model on complete inputs, and a head on top of it with missing inputs."""
    full, gaps = folder / "full", folder / "gaps"
    for out, method, backbone in ((full, "full", "tiny"), (gaps, "none", str(full))):
        recipe = dataclasses.replace(default_recipe(method, backbone), epochs=epochs)
        rate = 0.0 if method == "full" else 0.7
        settings = TrainSettings(data, backbone, method, "linear", recipe, ("image", "text"), missing_rate=rate)
        train(settings, out)
    return full, gaps


def main() -> None:
    """Do all of it in one folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--limit", type=int, help="use only the first N samples of each split")
    parser.add_argument("--epochs", type=int, default=10)
    arguments = parser.parse_args()
    work: Path = arguments.folder

    prepare_digits(work / "data", limit=arguments.limit)
    dataset = Dataset(work / "data")
    full, gaps = train_two(work / "data", work / "checkpoints", arguments.epochs)

    # One sample, complete and without its text.
    classifier = mmrobust.load(gaps)
    (sample,) = dataset.split("test").read([0])
    picture = decode_image(sample.image, sample.id)
    for case, text in (("complete", sample.text), ("missing-text", None)):
        logits = classifier.logits([{"image": picture, "text": text}], case=case)
        print(f"{case}: {classifier.classes[int(logits.argmax())]} (truth: {dataset.info.classes[sample.label[0]]})")

    # A small grid in memory, as a pandas.DataFrame.
    table = mmrobust.evaluate(classifier, dataset, rates=(0.0, 0.5, 1.0), seeds=2, prompting=["situation"])
    accuracy = table[table["metric"] == "accuracy"]
    print(accuracy.pivot_table(index="scenario", columns="missing_rate", values="value").round(3))

    # Evaluate into folders, with predictions and provenance, as `mmrobust eval` does; then make a page and a verdict.
    results = {}
    for name, folder in (("full", full), ("gaps", gaps)):
        checkpoint = load_checkpoint(folder)
        grid = make_grid(checkpoint.classifier.modalities, None, (0.0, 0.5, 1.0), 2, ("situation",))
        out = work / "results" / name
        results[name] = evaluate_models({name: checkpoint}, dataset, grid, out)
    (work / "report.html").write_text(FORMATS["html"](build_report(results.values())), encoding="utf-8")
    verdict = check_files(work / "results" / "full", work / "results" / "gaps", [parse_rule("accuracy:-0.02")])
    print("full against gaps:", verdict.value, f"({len(verdict.failures)} cells are worse)")


if __name__ == "__main__":
    main()
