"""The examples in Python, run as their docstrings say, on small data and short trainings."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from zipfile import ZipFile

import pandas as pd
import pytest
import torch

from mmrobust.data import Dataset
from mmrobust.models.backbones import FAMILIES
from mmrobust.models.backbones.tiny import TINY
from mmrobust.models.methods import METHODS

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def run(script: str, *arguments: object, folder: Path) -> str:
    """Run an example in ``folder``. Returns what it printed."""
    done = subprocess.run(
        [sys.executable, EXAMPLES / script, *map(str, arguments)],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    """Import an example as a module, and take back what it registers when the test is over."""
    kept = [(registry, dict(registry)) for registry in (METHODS, FAMILIES, TINY)]
    monkeypatch.syspath_prepend(str(EXAMPLES))
    yield importlib.import_module
    for registry, before in kept:
        registry.clear()
        registry.update(before)
    for name in ("own_method", "own_backbone"):
        sys.modules.pop(name, None)


def test_a_data_set_from_an_archive(tmp_path: Path) -> None:
    run("own_dataset/make_raw.py", "raw", "--samples", 40, folder=tmp_path)
    table = pd.read_csv(tmp_path / "raw" / "manifest.csv", dtype=str)
    with ZipFile(tmp_path / "digits.zip", "w") as archive:
        for name in table["id"][1:]:  # the first has no picture
            archive.write(tmp_path / "raw" / "images" / f"{name}.png", f"{name}.png")
    about = {
        row.id: {"text": None if pd.isna(row.text) else row.text, "label": row.label} for row in table.itertuples()
    }
    (tmp_path / "digits.json").write_text(json.dumps(about))

    printed = run("own_dataset/prepare.py", "digits.zip", "digits.json", "out", folder=tmp_path)
    dataset = Dataset(tmp_path / "out")
    assert str(dataset.info.splits) in printed
    samples = {sample.id: sample for name in dataset.splits for sample in dataset.split(name)}
    assert len(samples) == 40
    assert samples["digit-0000"].image is None
    assert samples["digit-0000"].text is None
    assert samples["digit-0003"].text == "sembra tre"


def test_raw_data_that_are_there_already_are_named_in_a_line(tmp_path: Path) -> None:
    run("own_dataset/make_raw.py", "raw", "--samples", 2, folder=tmp_path)
    again = [sys.executable, EXAMPLES / "own_dataset" / "make_raw.py", "raw"]
    done = subprocess.run(again, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == f"{Path('raw', 'images')}: is there already; name another folder\n"


def test_the_method_is_one_for_every_command(own, cli, trained, digits, tmp_path) -> None:
    method = own("own_method").CaseBias
    student = ("train", "--data", digits.folder, "--backbone", trained("full", "linear"), "--method", "bias")
    code, _, said = cli(*student, "--epochs", 1, "--out", tmp_path / "bias")
    assert code == 0, said
    held = json.loads((tmp_path / "bias" / "config.json").read_text())["method"]
    assert held == {"name": method.name, "depth": 6}
    grid = ("--missing-rate", "0,1", "--seeds", 1, "--limit", 8)
    code, printed, said = cli("eval", tmp_path / "bias", "--data", digits.folder, *grid, "--out", tmp_path / "results")
    assert code == 0, said
    assert "concat" in printed and "situation" in printed  # the two differ, as it knows the case
    code, _, said = cli(*student, "--method-set", "depht=3", "--out", tmp_path / "typo")
    assert (code, "did you mean 'depth'" in said) == (2, True)


def test_the_method_does_not_depend_on_the_batch(own, classifier, samples) -> None:
    own("own_method")
    built = classifier("tiny-vilt", "bias")
    one_by_one = samples("tiny-vilt", 3)
    collate = built.backbone.processor.collate
    for prompting in ("situation", "concat"):
        together = built(collate(one_by_one), "missing-text", prompting)
        alone = torch.cat([built(collate([sample]), "missing-text", prompting) for sample in one_by_one])
        torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_the_backbone_is_siglip(own, digits) -> None:
    backbone = own("own_backbone").tiny(digits.split("train")).eval()
    raw = next(sample for sample in digits.split("train") if sample.text)
    text = backbone.processor.encode("text", raw.text)
    image = torch.randn(3, 64, 64, generator=torch.Generator().manual_seed(0))
    inputs = backbone.processor.collate([{"text": text, "image": image}])
    with torch.inference_mode():
        parts = backbone.pooling().by_modality(backbone(inputs))
        theirs = {
            "text": backbone.model.text_model(input_ids=inputs["input_ids"]).pooler_output,
            "image": backbone.model.vision_model(pixel_values=inputs["pixel_values"]).pooler_output,
        }
    for modality, feature in theirs.items():
        torch.testing.assert_close(parts[modality], feature, atol=1e-5, rtol=0)


def test_the_backbone_is_one_for_every_command(own, cli, digits, tmp_path) -> None:
    own("own_backbone")
    full, prompts = tmp_path / "full", tmp_path / "prompts"
    for out, backbone, method in ((full, "tiny-siglip", "full"), (prompts, full, "mmp")):
        words = (
            "train",
            "--data",
            digits.folder,
            "--backbone",
            backbone,
            "--method",
            method,
            "--epochs",
            1,
            "--out",
            out,
        )
        code, _, said = cli(*words, "--modalities", "image,text")
        assert code == 0, said
    checks = "batch-independence,determinism,frozen-backbone"
    code, printed, said = cli("audit", prompts, "--data", digits.folder, "--limit", 8, "--only", checks)
    assert code == 0, printed + said


def test_the_outside_models_pass_an_audit(cli, digits, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for script in ("own_model.py", "own_model_sklearn.py"):
        run(script, digits.folder, folder=tmp_path)
    for model in ("own_model.py:model", "own_model_sklearn.py:model", "own_model_zero_shot.py:digits"):
        # The zero-shot one uses the case only where a picture is noisy, which the audit does not try.
        checks = "batch-independence,padding-independence,determinism,fill-leakage,calibration"
        code, printed, said = cli("audit", EXAMPLES / model, "--data", digits.folder, "--limit", 12, "--only", checks)
        assert code == 0, printed + said
        assert "PASS: 4 checks passed, 1 informational" in printed


def test_the_scripts_hand_over_to_the_command_line(tmp_path) -> None:
    assert "bias" in run("own_method.py", "train", "--help", folder=tmp_path)


def test_the_whole_way_from_python(tmp_path) -> None:
    printed = run("python_use.py", "work", "--limit", 24, "--epochs", 1, folder=tmp_path)
    assert "missing-text: " in printed
    assert "full against gaps: " in printed
    assert (tmp_path / "work" / "report.html").stat().st_size > 100_000
    assert (tmp_path / "work" / "results" / "gaps" / "results.parquet").is_file()
