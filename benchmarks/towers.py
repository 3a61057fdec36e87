"""Frozen encoders that run once: training and evaluation on towers of three modalities, with a real text encoder.

    python benchmarks/towers.py DATA --encoder text=ID|FOLDER [--modalities image,audio,text] [--epochs 15]

DATA is a prepared data set. The joint stream is trained on complete samples (`--method full`), then a head on the
frozen backbone with 70 % of the samples missing something. Ratios within the run: an epoch that reads the kept outputs
of the encoders ÷ one that runs them (wall clock), and an evaluation of every combination ÷ one of complete samples
alone (processor time).
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import mmrobust
from mmrobust.data.dataset import Dataset
from mmrobust.training.feature_cache import Cache
from mmrobust.training.loop import train
from mmrobust.training.settings import TrainOptions


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--encoder", action="append", default=[], metavar="NAME=ID|FOLDER")
    parser.add_argument("--modalities", default="image,audio,text")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    modalities = tuple(given.modalities.split(","))
    encoders = dict(each.split("=", 1) for each in given.encoder)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        full = TrainOptions(
            method="full", backbone="towers", encoders=encoders, modalities=modalities, recipe={"epochs": given.epochs}
        )
        train(full.resolve(given.data, seed=0), Path(scratch) / "full")
        epochs = {}
        for name, kept in (("kept", True), ("run", False)):
            head = TrainOptions(
                method="none",
                backbone=str(Path(scratch) / "full"),
                modalities=modalities,
                scenario="missing-any",
                missing_rate=0.7,
                recipe={"epochs": 3},
            )
            config = train(head.resolve(given.data, seed=0), Path(scratch) / name, cache=Cache(on=kept))
            efficiency = config.training["efficiency"]
            epochs[name] = efficiency["samples_per_epoch"] / efficiency["samples_per_second"]
            found[f"once_{name}"] = efficiency["cache_seconds"]
        model, data = mmrobust.load(Path(scratch) / "kept"), Dataset(given.data)
        lost = itertools.chain.from_iterable(itertools.combinations(modalities, n) for n in range(1, len(modalities)))
        names = ["+".join(f"missing-{name}" for name in some) for some in lost]
        started = time.process_time()
        mmrobust.evaluate(model, data, scenarios=[names[0]], rates=[0.0], seeds=1)
        complete = time.process_time() - started
        started = time.process_time()
        table = mmrobust.evaluate(model, data, scenarios=names, rates=[0.0, 1.0], seeds=1)
        every = time.process_time() - started
    found |= {"epoch_kept": epochs["kept"], "epoch_run": epochs["run"], "one_case": complete, "all_cases": every}
    values = table[(table.metric == "accuracy") & (table.prompting == "situation")]
    print("| case | accuracy |\n| --- | ---: |")
    print(f"| complete | {100 * values[values.missing_rate == 0].value.iloc[0]:.1f} |")
    for row in values[values.missing_rate == 1].itertuples():
        print(f"| {row.scenario} | {100 * row.value:.1f} |")
    print(f"\nan epoch with kept outputs {epochs['kept']:.2f} s, once {found['once_kept']:.1f} s; ", end="")
    print(f"with running encoders {epochs['run']:.2f} s: ratio {epochs['kept'] / epochs['run']:.3f}")
    print(f"eval of complete samples {complete:.1f} s, of all {len(names) + 1} cases {every:.1f} s: ", end="")
    print(f"ratio {every / complete:.2f}")
    if given.json:
        given.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
