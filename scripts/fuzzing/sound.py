"""Valid inputs to damage: a small data set, checkpoints trained on it, results, tables, a manifest, media."""

from __future__ import annotations

import contextlib
import csv
import io
import shutil
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image

from mmrobust.cli import app
from mmrobust.data.dataset import Dataset

RECIPE = """method: mmp
head: prototype
backbone: full
modalities: [image, text]
scenario: missing-both
missing_rate: 0.7
epochs: 1
batch_size: 8
lr: 0.01
betas: [0.9, 0.98]
schedule: linear
method_settings: {length: 2, init: normal}
head_settings: {scale: 4.0}
"""
STUDY = """about: a small one
data: [digits]
backbone: full
methods:
  none: {}
  mmp: {settings: {length: 2, init: normal}, recipe: {lr: 0.01}, heads: [linear]}
heads: [linear, prototype]
under: [{scenario: missing-text, missing_rate: 0.5}]
seeds: [0]
recipe: {epochs: 1, batch_size: 8}
evaluate: {scenarios: [missing-text], missing_rates: "0,1", seeds: 1, promptings: [situation]}
contrast: {axis: head, of: prototype, against: linear}
"""
GATES = """fail = ["accuracy:-0.01", "accuracy@missing-image/1.0:-2%"]

[[rule]]
metric = "accuracy"
scenario = "missing-text"
rate = 1.0
floor = 0.1
"""


def build(folder: Path) -> None:
    """Make the valid inputs in ``folder`` with the commands that a user would run."""
    folder.mkdir(parents=True)

    def run(*arguments: object) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            code = app.run([str(argument) for argument in (*arguments, "--quiet")])
        if code:
            raise RuntimeError(f"the sound inputs cannot be made: {arguments}")

    data = folder / "digits"
    run("data", "prepare", "digits", "--out", data, "--limit", 12)
    train = ("train", "--data", data, "--epochs", 1, "--batch-size", 8, "--device", "cpu")
    run(*train, "--backbone", "tiny", "--method", "full", "--out", folder / "full")
    run(*train, "--backbone", "tiny", "--method", "full", "--modalities", "audio,image", "--out", folder / "av")
    prompts = ("--method", "mmp", "--head", "prototype", "--prompt-length", 2, "--method-set", "init=normal")
    run(*train, "--backbone", folder / "full", *prompts, "--out", folder / "mmp")
    for checkpoint, out in (("mmp", "results"), ("full", "other")):
        grid = ("--missing-rate", "0,1", "--seeds", 1, "--device", "cpu")
        run("eval", folder / checkpoint, "--data", data, *grid, "--out", folder / out)
    table = ("data", "missing-table", data, "--scenario", "missing-both", "--missing-rate", 0.5)
    for ending in ("csv", "parquet", "pt"):
        run(*table, "--modalities", "image,text", "--out", folder / f"table.{ending}")
    for name, text in (("recipe.yaml", RECIPE), ("study.yaml", STUDY), ("gates.toml", GATES)):
        (folder / name).write_text(text, encoding="utf-8")
    _manifest(folder / "raw", Dataset(data))
    _media(folder / "media")


def _manifest(folder: Path, dataset: Dataset) -> None:
    """Write a manifest as a spreadsheet would, with an image, a recording and a text in each row."""
    folder.mkdir()
    with (folder / "manifest.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("id", "image", "audio", "text", "label", "split"))
        for sample in dataset.split("test"):
            for ending, data in (("png", sample.image), ("wav", sample.audio)):
                (folder / f"{sample.id}.{ending}").write_bytes(data or b"")
            label = dataset.info.classes[sample.label[0]]
            split = ("train", "validation", "test")[sample.label[0] % 3]
            rows.writerow((sample.id, f"{sample.id}.png", f"{sample.id}.wav", sample.text, label, split))


def _media(folder: Path) -> None:
    """Write an image and a recording in every format that Pillow and soundfile support."""
    folder.mkdir()
    Image.init()
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    for kind in sorted(Image.SAVE):
        for mode in ("RGB", "L", "P", "1", "RGBA", "I;16", "F"):
            buffer = io.BytesIO()
            try:
                Image.fromarray(pixels).convert("L" if mode == "I;16" else mode).convert(mode).save(buffer, kind)
            except Exception:  # this format has no such mode, or no encoder here
                continue
            (folder / f"{kind}-{mode.replace(';', '')}.image").write_bytes(buffer.getvalue())
            break
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(2000) / 8000)
    for kind in sorted({*soundfile.available_formats()} - {"SD2"}):  # SD2 writes a second file, into this folder
        for subtype in list(soundfile.available_subtypes(kind))[:4]:
            buffer = io.BytesIO()
            try:
                soundfile.write(buffer, tone, 8000, format=kind, subtype=subtype)
            except Exception:
                continue
            if buffer.getvalue():
                (folder / f"{kind}-{subtype}.audio").write_bytes(buffer.getvalue())


def take(sound: Path, folder: Path, *names: str) -> None:
    """Link valid inputs into a case's folder; a case replaces a link before it damages the file."""
    for name in names:
        if (sound / name).is_dir():
            shutil.copytree(sound / name, folder / name, copy_function=_link)
        else:
            _link(str(sound / name), str(folder / name))


def _link(source: str, target: str) -> str:
    Path(target).hardlink_to(source)
    return target


def put(path: Path, data: bytes) -> None:
    """Replace ``path`` by a file with ``data``."""
    path.unlink(missing_ok=True)
    path.write_bytes(data)
