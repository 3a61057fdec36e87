"""How much cheaper training is with a frozen backbone: ratios within one run, on the embedded or your own data.

    python benchmarks/training.py --data data/av-digits --backbone tiny-cavmae-deep [--batch-size 128] [--rounds 3]

Every method trains in every round, in turn, so that other load on the machine affects all of them; the median of the
rounds' ratios is printed. ``full`` fine-tunes; the others train on the frozen backbone; ``(off)`` stores none of the
frozen features. Each runs in its own process, to measure its memory.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import statistics
import tempfile
from pathlib import Path
from typing import Any

from mmrobust.training.caching import Cache
from mmrobust.training.loop import train
from mmrobust.training.recipe import PROMPT_THE_MISSING, SCRATCH, TASK
from mmrobust.training.settings import TrainSettings

CONTENDERS: dict[str, tuple[str, dict[str, Any], bool]] = {
    "full": ("full", {}, True),
    "adapter": ("adapter", {}, True),
    "lora": ("lora", {}, True),
    "ptm input": ("ptm", {"level": "input", "train_head": True}, True),
    "ptm attention": ("ptm", {"level": "attention", "train_head": True}, True),
    "ptm attention (off)": ("ptm", {"level": "attention", "train_head": True}, False),
    "none": ("none", {}, True),
    "none (off)": ("none", {}, False),
}


def epoch(settings: TrainSettings, cached: bool, out: Path, sender: Any) -> None:
    """Train, and return the cost. Frozen features are in files, so that the memory is that of the training."""
    config = train(settings, out, cache=Cache(on=cached, memory=0))
    sender.send(config.training["efficiency"])


def measure(settings: TrainSettings, cached: bool, out: Path) -> dict[str, Any]:
    """Cost of one epoch, in a new process."""
    context: Any = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["mmrobust.training.loop"])
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=epoch, args=(settings, cached, out, sender))
    process.start()
    costs: dict[str, Any] = receiver.recv()
    process.join()
    return costs


def main() -> None:
    """Measure, and print ratios to ``full``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--backbone", default="tiny-cavmae-deep")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--share", type=float, default=0.3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=list(CONTENDERS), choices=list(CONTENDERS))
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    # The median over epochs is used: in the first, samples are decoded.
    recipe = PROMPT_THE_MISSING.changed(epochs=3, batch_size=chosen.batch_size, share=chosen.share, loss=TASK)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        base = TrainSettings(
            chosen.data, chosen.backbone, "full", "linear", recipe, scenario="noisy-both", missing_rate=0.0
        )
        begin = dataclasses.replace(base, recipe=SCRATCH.changed(epochs=1, share=0.02, augment=False))
        train(begin, root / "backbone")
        seen: dict[str, list[dict[str, Any]]] = {name: [] for name in chosen.only}
        for number in range(chosen.rounds):
            for name in chosen.only:
                method, settings, cached = CONTENDERS[name]
                job = dataclasses.replace(
                    base, backbone=str(root / "backbone"), method=method, method_settings=settings
                )
                seen[name].append(measure(job, cached, root / f"{name}-{number}"))
    print(f"{'':22}{'ms/sample':>10}{'of full':>9}{'MiB':>8}{'of full':>9}{'once, s':>9}{'kept, MiB':>11}")
    for name, costs in seen.items():
        rows = [
            (cost["samples_per_second"], cost["peak_memory"] or 0, full["samples_per_second"], full["peak_memory"] or 1)
            for cost, full in zip(costs, seen.get("full", costs), strict=True)
        ]
        time, of_time = (statistics.median(v) for v in zip(*((1e3 / s, fs / s) for s, _, fs, _ in rows), strict=True))
        memory, of_memory = (statistics.median(v) for v in zip(*((m, m / fm) for _, m, _, fm in rows), strict=True))
        once, kept = costs[0]["cache_seconds"], costs[0]["cache_bytes"] / 2**20
        print(f"{name:22}{time:10.2f}{of_time:9.1%}{memory / 2**20:8.0f}{of_memory:9.1%}{once:9.1f}{kept:11.1f}")
    if chosen.json:
        chosen.json.write_text(json.dumps(seen, indent=2) + "\n")


if __name__ == "__main__":
    main()
