"""Prove mmrobust on a GPU: what no CPU can show, in one table, in under eight minutes.

    python scripts/gpu_smoke.py [--device cuda] [--out FOLDER]

Every backbone × method × head gives the logits and gradients of the CPU, alone as in a batch, without waiting for the
device; dropout under checkpointing, attention kernels, halved batches and overlapping copies are looked at; then the
commands run on the embedded data: training, kill and resume, eval in different batches, with workers and Ray, compile,
audit, torchrun, energy, throughput. Nothing is fetched; without Ray or a reader of the energy, these are left out. Exit
code 1 if a check fails. ``--device cpu`` tries the script itself: what needs a GPU is then left out.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from mmrobust.cases import PROMPTINGS, missing_cases
from mmrobust.configuration import from_mapping
from mmrobust.data.dataset import Dataset
from mmrobust.data.encoded_split import EncodedSplit
from mmrobust.data.prepare.digits import prepare_digits
from mmrobust.errors import UsageError
from mmrobust.models.backbones.tiny import TINY, make_tiny
from mmrobust.models.classifier import Classifier
from mmrobust.models.heads import HEADS, head_class
from mmrobust.models.methods import method_class
from mmrobust.models.prediction.predictor import Predictor
from mmrobust.runtime.devices import BatchSize, resolve_device, resolve_dtype
from mmrobust.training.objective import loss

ROOT = Path(__file__).resolve().parents[1]
BACKBONES: dict[str, tuple[str, dict[str, Any]]] = {
    "vilt": ("tiny-vilt", {}),
    "clip": ("tiny-clip", {}),
    "cavmae": ("tiny-cavmae", {}),
    "cavmae, average": ("tiny-cavmae", {"missing_path": "average"}),
    "cavmae, fusion": ("tiny-cavmae-fusion", {}),
    "towers": ("tiny-towers", {}),
}
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "none": ("none", {}),
    "full": ("full", {}),
    "mmp, input": ("mmp", {"length": 4}),
    "mmp, attention": ("mmp", {"length": 4, "level": "attention"}),
    "msp": ("msp", {"length": 2}),
    "ptm": ("ptm", {"length": 2, "level": "both", "train_head": True}),
    "dcp": ("dcp", {"length": 6}),
    "maple": ("maple", {}),
    "lora": ("lora", {"rank": 2}),
    "adapter": ("adapter", {}),
}
CLASSES = ("a", "b", "c")
SAMPLES = 4
LOGITS, GRADIENTS, BFLOAT16 = 1e-4, 5e-3, 1.0
"""How far float32 logits and gradients, and bfloat16 logits, may be from the CPU's float32, relative to the largest."""
EPOCHS = ("--epochs", "2", "--seed", "0")


class Smoke:
    """The checks, each a method that raises where something is wrong and returns what was seen."""

    def __init__(self, device: str, folder: Path) -> None:
        self.device, self.folder = torch.device(device), folder
        self.on_gpu = self.device.type == "cuda"
        resolve_dtype("float32", resolve_device(device))  # as commands do: no TF32
        prepare_digits(folder / "digits")
        prepare_digits(folder / "few", limit=60)
        self.few = Dataset(folder / "few")

    # Models against the CPU

    def build(self, backbone: str, method: str = "none", head: str = "linear") -> Classifier:
        """A classifier with random weights, also where trainings begin at zero."""
        (tiny, settings), (name, chosen) = BACKBONES[backbone], METHODS[method]
        modalities = TINY[tiny][0].modalities if tiny in TINY else self.few.info.modalities
        made = make_tiny(tiny, modalities, self.few.split("train"), seed=0)
        made.configure(settings)
        method_cls, head_cls = method_class(name), head_class(head)
        torch.manual_seed(0)
        classifier = Classifier(
            made,
            method_cls,
            from_mapping(method_cls.config_class, chosen, name),
            head_cls,
            from_mapping(head_cls.config_class, {}, head),
            classes=list(CLASSES),
            task="single-label",
            cases=missing_cases(made.modalities),
        )
        with torch.no_grad():
            for parameter in classifier.trained().values() if name != "full" else ():
                parameter.add_(torch.randn_like(parameter) * 0.2)
        return classifier.train(False)

    def inputs(self, classifier: Classifier, chosen: Iterable[int] = range(SAMPLES)) -> dict[str, Tensor]:
        """A batch of real samples."""
        encoded = EncodedSplit(self.few.split("train"), classifier.backbone.processor, classifier.modalities, "ones")
        complete = missing_cases(classifier.modalities)[0]
        return dict(classifier.backbone.processor.collate(encoded.samples(chosen, complete)))

    def combinations(self) -> str:
        """Every backbone × method × head that there is."""
        worst: Counter[str] = Counter()
        waits: Counter[str] = Counter()
        ran = 0
        for backbone, method, head in itertools.product(BACKBONES, METHODS, HEADS):
            try:
                classifier = self.build(backbone, method, head)
            except UsageError:  # a method that the family has not
                continue
            for what, off in self._against_cpu(classifier, waits):
                if off > {"bfloat16": BFLOAT16, "gradients": GRADIENTS}.get(what, LOGITS):
                    raise AssertionError(f"{backbone} × {method} × {head}: {what} off by {off:.1e}")
                worst[what] = max(worst[what], off)
            ran += 1
        if waits:
            raise AssertionError(f"forward or backward passes wait for the device: {dict(waits)}")
        return f"{ran} combinations; " + ", ".join(f"{what} {off:.0e}" for what, off in worst.items())

    def _against_cpu(self, classifier: Classifier, waits: Counter[str]) -> Iterator[tuple[str, float]]:
        keys = list(itertools.product(classifier.cases, PROMPTINGS))
        batch = self.inputs(classifier)
        with torch.inference_mode():
            expected = [classifier(batch, *key) for key in keys]
        gradients = self._gradients(classifier, batch)
        classifier.to(self.device)
        moved = self._moved(batch)
        with torch.inference_mode():
            yield "logits", max(_off(classifier(moved, *key), own) for key, own in zip(keys, expected, strict=True))
            single = [self._moved(self.inputs(classifier, [place])) for place in range(SAMPLES)]
            yield "alone", _off(torch.cat([classifier(one, *keys[0]) for one in single]), expected[0])
        own = self._gradients(classifier, moved)
        yield "gradients", float((own - gradients).norm() / gradients.norm().clamp(min=1e-9))
        classifier.dtype, targets = "bfloat16", self._targets()
        if self.on_gpu:
            torch.cuda.set_sync_debug_mode("warn")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            with torch.inference_mode():
                low = [classifier(moved, *key) for key in keys]
            self._backward(classifier, moved, targets)
        if self.on_gpu:
            torch.cuda.set_sync_debug_mode("default")
        waits.update(f"{Path(w.filename).name}:{w.lineno}" for w in caught if "synchroniz" in str(w.message))
        yield "bfloat16", max(_off(logits, own) for logits, own in zip(low, expected, strict=True))

    def _moved(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: tensor.to(self.device) for name, tensor in batch.items()}

    def _targets(self) -> Tensor:
        return torch.eye(len(CLASSES))[torch.arange(SAMPLES) % len(CLASSES)].to(self.device)

    def _backward(self, classifier: Classifier, batch: dict[str, Tensor], targets: Tensor) -> None:
        classifier.zero_grad()
        told = classifier.told("complete", PROMPTINGS[0])
        with classifier.autocast():
            features = classifier.features(batch, told)
        logits, own = classifier.learn(features, "complete", targets)
        (loss(logits, targets, classifier.task, 0.1) + own).backward()

    def _gradients(self, classifier: Classifier, batch: dict[str, Tensor]) -> Tensor:
        self._backward(classifier, batch, self._targets().to(next(iter(batch.values())).device))
        parts = [p.grad.flatten().cpu() for p in classifier.trained().values() if p.grad is not None]
        return torch.cat(parts)

    def checkpointing(self) -> str:
        """The backward pass draws the dropout that the forward pass drew."""
        classifier = self.build("vilt", "full").to(self.device).train(True)
        batch = self._moved(self.inputs(classifier))
        found = []
        for on in (False, True):
            classifier.backbone.checkpointing = on
            torch.manual_seed(0)
            classifier.zero_grad()
            classifier(batch).square().sum().backward()
            found.append(torch.cat([p.grad.flatten() for p in classifier.parameters() if p.grad is not None]))
        off = float((found[0] - found[1]).norm() / found[0].norm())
        assert off < 1e-4, f"gradients are off by {off:.1e}"
        return f"gradients off by {off:.0e}"

    def kernels(self) -> str:
        """A fused attention kernel takes every family."""
        from torch.nn.attention import SDPBackend, sdpa_kernel

        can: dict[str, list[str]] = {}
        for name in ("vilt", "clip", "cavmae"):
            classifier = self.build(name, "mmp, input").to(self.device)
            classifier.dtype = "bfloat16"
            batch = self._moved(self.inputs(classifier))
            can[name] = []
            for kernel in (SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.CUDNN_ATTENTION):
                try:
                    with sdpa_kernel(kernel), torch.inference_mode():
                        classifier(batch)
                    can[name].append(kernel.name.removesuffix("_ATTENTION").lower())
                except RuntimeError:
                    continue
        assert all(can.values()), f"no fused kernel: {can}"
        return str(can)

    def halving(self) -> str:
        """What does not fit is run in halves, to the same logits, and the memory is given back."""
        classifier = self.build("cavmae", "mmp, input").to(self.device)
        encoded = EncodedSplit(self.few.split("train"), classifier.backbone.processor, classifier.modalities, "ones")
        plan = {(case, PROMPTINGS[0]): np.arange(60) for case in classifier.cases}
        whole, fuse = Predictor(classifier, encoded, 64)(plan), classifier.backbone.fuse

        def limited(alone: Any, *rest: Any) -> Any:
            if len(next(iter(alone.values())).tokens_BLD) > 16:
                torch.empty(1 << 44, device=self.device)
            return fuse(alone, *rest)

        classifier.backbone.fuse = limited  # type: ignore[method-assign]
        before, size = torch.cuda.memory_allocated(), BatchSize(64)
        halved = Predictor(classifier, encoded, size)(plan)
        classifier.backbone.fuse = fuse  # type: ignore[method-assign]
        off = max(float(np.abs(whole[key] - halved[key]).max()) for key in plan)
        left = torch.cuda.memory_allocated() - before
        assert size.now == 16 and off < LOGITS and left < 2**22, f"batches of {size.now}, off {off:.1e}, left {left}"
        return f"batches of {size.now}, logits off by {off:.0e}"

    def streams(self) -> str:
        """Whether batches are copied while others are computed; it is said, and fails nothing."""
        classifier = self.build("cavmae").to(self.device)
        encoded = EncodedSplit(self.few.split("train"), classifier.backbone.processor, classifier.modalities, "ones")
        with torch.profiler.profile() as profile:
            Predictor(classifier, encoded, 8)({("complete", PROMPTINGS[0]): np.arange(60)})
        trace = self.folder / "trace.json"
        profile.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text())["traceEvents"]
        of = {
            kind: {event["args"].get("stream") for event in events if event.get("cat") == kind}
            for kind in ("gpu_memcpy", "kernel")
        }
        return "copies have a stream of their own" if of["gpu_memcpy"] - of["kernel"] else "copies share the stream"

    # Commands

    def command(self, *words: object, limit: float = 120) -> str:
        """Run ``mmrobust``; its last line."""
        return self.program("-m", "mmrobust", *words, limit=limit)

    def program(self, *words: object, limit: float = 120) -> str:
        """Run Python with these arguments; the last line that it prints."""
        done = subprocess.run(
            [sys.executable, *map(str, words)], cwd=ROOT, capture_output=True, text=True, timeout=limit, check=False
        )
        said = (done.stdout + done.stderr).strip().splitlines() or [""]
        assert done.returncode == 0, f"exit code {done.returncode}: {said[-1][:200]}"
        return said[-1]

    def train(self, name: str, *words: object, backbone: object = "tiny-vilt") -> Path:
        """Train into the folder of that name."""
        out = self.folder / name
        where = ("--data", self.folder / "digits", "--device", self.device, "--backbone", backbone, "--out", out)
        self.command("train", *where, *EPOCHS, *words)
        return out

    def trainings(self) -> str:
        """Each way to train that a GPU could break."""
        full = self.train("full", "--method", "full")
        with ThreadPoolExecutor(2) as pool:
            started = [
                pool.submit(self.train, "on-full", "--method", "mmp", "--head", "prototype", backbone=full),
                pool.submit(self.train, "lora", "--method", "lora", "--recipe-set", "accumulate=2"),
                pool.submit(self.train, "dcp", "--method", "dcp", "--recipe-set", "clip=1", backbone="tiny-clip"),
                pool.submit(
                    self.train, "towers", "--method", "full", "--modalities", "image,text,audio", backbone="tiny"
                ),
            ]
            for training in started:
                training.result()
        efficiency = json.loads((full / "config.json").read_text())["training"]["efficiency"]
        if self.on_gpu:
            assert efficiency["peak_memory"], efficiency
        energy = efficiency["energy_joules"]
        used = "no counter of energy" if energy is None else f"{energy:.0f} J"
        return f"{efficiency['samples_per_second']:,.0f} samples/s, {used}"

    def curves(self) -> str:
        """Checkpointing, and a kill and a resume, give the curve of an undisturbed training."""
        # Small steps: at usual ones, a rounding of 1e-7 in a gradient moves the loss by 1e-3 after four epochs.
        words = ("--method", "full", "--dtype", "float32", "--epochs", "4", "--lr", "1e-4")
        with ThreadPoolExecutor(2) as pool:
            told = {"whole": words, "checkpointed": (*words, "--recipe-set", "checkpointing=true")}
            whole, again = pool.map(lambda name: self.train(name, *told[name]), told)
        out = self.folder / "torn"
        where = ("--data", self.folder / "digits", "--device", self.device, "--backbone", "tiny-vilt", "--out", out)
        line = [sys.executable, "-m", "mmrobust", "train", *map(str, (*where, *EPOCHS, *words))]
        torn = subprocess.Popen(line, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.monotonic() + 90
        while torn.poll() is None and not list(out.glob(".training/**/*.json")) and time.monotonic() < until:
            time.sleep(0.05)
        torn.send_signal(signal.SIGKILL)
        torn.wait()
        self.train("torn", *words, "--resume")
        losses = [pd.read_parquet(folder / "training.parquet").train_loss.to_numpy() for folder in (whole, again, out)]
        off = [float(np.abs(own - losses[0]).max() / np.abs(losses[0]).max()) for own in losses[1:]]
        assert max(off) < 5e-4, f"checkpointed off by {off[0]:.1e}, resumed by {off[1]:.1e}"
        return f"checkpointed off by {off[0]:.0e}, resumed by {off[1]:.0e}"

    def evaluations(self) -> str:
        """Batch sizes, workers, Ray and the compiler change nothing that counts."""
        wanted = ("--seeds", 1, "--missing-rate", "0,0.5,1", "--device", self.device, "--data", self.folder / "digits")
        ways: dict[str, tuple[object, ...]] = {
            "64": ("--batch-size", 64, "--dtype", "float32"),
            "workers": ("--batch-size", 64, "--dtype", "float32", "--workers", 4),
            "7": ("--batch-size", 7, "--dtype", "float32"),
            "auto": (),
            "compiled": ("--dtype", "float32", "--compile"),
        }
        if importlib.util.find_spec("ray"):
            ways["ray"] = ("--batch-size", 64, "--dtype", "float32", "--engine", "ray")
        values = {}
        with ThreadPoolExecutor(2) as pool:  # a command mostly imports libraries
            of = {name: (*wanted, *way, "--out", self.folder / f"eval-{name}") for name, way in ways.items()}
            list(pool.map(lambda words: self.command("eval", self.folder / "on-full", *words, limit=300), of.values()))
        for name in ways:
            values[name] = pd.read_parquet(self.folder / f"eval-{name}" / "results.parquet").value.to_numpy(float)
        off = {name: float(np.nanmax(np.abs(own - values["64"]))) for name, own in values.items()}
        assert off["workers"] == off.get("ray", 0) == 0 and max(off.values()) <= 0.02, off
        return ", ".join(f"{name} {worst:.3f}" for name, worst in off.items() if name != "64")

    def audit(self) -> str:
        """The audit passes."""
        where = ("--data", self.folder / "digits", "--device", self.device)
        return self.command("audit", self.folder / "on-full", *where)

    def torchrun(self) -> str:
        """One process for each GPU."""
        count = torch.cuda.device_count() if self.on_gpu else 2
        launch = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", count, "-m", "mmrobust", "train")
        where = ("--data", self.folder / "digits", "--backbone", "tiny-vilt", "--out", self.folder / "several")
        device = () if self.on_gpu else ("--device", "cpu")
        self.program(*launch, *where, *device, "--method", "mmp", *EPOCHS, limit=180)
        return f"{count} processes"

    def throughput(self) -> str:
        """The share of the peak of matrix products."""
        file = self.folder / "throughput.json"
        self.program("benchmarks/gpu_throughput.py", "--json", file, limit=300)
        rows = json.loads(file.read_text())["figures"]
        return ", ".join(f"{row['model']} in {row['batch']} {row['% of the matmul peak']:.0f} %" for row in rows)


def _off(found: Tensor, expected: Tensor) -> float:
    """The largest difference, relative to the largest value, if that is above 1."""
    return float((found.cpu().float() - expected.float()).abs().max() / expected.abs().max().clamp(min=1))


def main() -> int:
    """Run every check, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    folder = given.out or Path(tempfile.mkdtemp(prefix="mmrobust-smoke-"))
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder / "compiled")
    began = time.monotonic()
    smoke = Smoke(given.device, folder)
    checks: list[Callable[[], str]] = [
        smoke.combinations,
        smoke.checkpointing,
        *((smoke.kernels, smoke.halving, smoke.streams) if smoke.on_gpu else ()),
        smoke.trainings,
        smoke.curves,
        smoke.evaluations,
        smoke.audit,
        smoke.torchrun,
        *((smoke.throughput,) if smoke.on_gpu else ()),
    ]
    failed = 0
    for check in checks:
        started = time.monotonic()
        try:
            verdict, said = "PASS", check()
        except Exception as error:  # the other checks are wanted all the same
            verdict, said = "FAIL", " ".join(str(error).split())[:300] or type(error).__name__
            (folder / f"{check.__name__}.txt").write_text(traceback.format_exc())
            failed += 1
        print(f"{verdict}  {check.__name__:<14} {time.monotonic() - started:6.1f} s  {said}", flush=True)
    passed = f"{len(checks) - failed} of {len(checks)} passed"
    print(f"{passed} in {time.monotonic() - began:.0f} s on {given.device}; {folder}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
