"""``mmrobust import``: a file of the papers' code goes in, a checkpoint that gives the recorded logits comes out."""

from __future__ import annotations

import hashlib
import itertools
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from PIL import Image

import mmrobust
from mmrobust.data import Dataset
from mmrobust.data.prepare.digits import CLASSES
from mmrobust.data.writing import SampleRow, write_dataset
from mmrobust.errors import CheckpointError
from mmrobust.models.checkpoint import CheckpointConfig

KINDS = {"mmp_input": "mmp", "mmp_attention": "mmp", "dcp": "dcp"}
CODES = {"complete": 0, "missing-text": 1, "missing-image": 2}
TASKS = {
    "mmimdb": ("multi-label", "macro_f1", 23),
    "food101": ("single-label", "accuracy", 101),
    "hatememes": ("binary", "auroc", 2),
}
LAYOUTS = {"mmimdb": "lightning", "food101": "module", "hatememes": "plain"}
"""Each head is read from a file of another layout."""
MODES = {
    "multimodal": ("fill", "complete"),
    "audioonly": ("single", "missing-image"),
    "videoonly": ("single", "missing-audio"),
    "missingaudioonly": ("average", "missing-image"),
    "missingvideoonly": ("average", "missing-audio"),
}
"""CAV-MAE's mode → (missing path, case)."""

close = {"rtol": 0, "atol": 1e-5}


def of_case(io: dict[str, torch.Tensor], name: str, case: str) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Which recorded samples are in ``case``, and their inputs."""
    rows = torch.nonzero(io["in.missing_type"] == CODES[case])[:, 0]
    ids, pixels = io["in.text_ids"][rows], io["in.image"][rows]
    if KINDS[name] == "dcp":
        return rows, {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": pixels}
    mask = (pixels.sum(1) != 0).long()
    attended = io["in.text_masks"][rows]
    return rows, {"input_ids": ids, "attention_mask": attended, "pixel_values": pixels, "pixel_mask": mask}


@pytest.mark.parametrize("head", TASKS)
@pytest.mark.parametrize("name", KINDS)
def test_the_logits_are_the_recorded_ones(
    cli: Callable[..., Any], golden: Any, written: Callable[..., list[str]], tmp_path: Path, name: str, head: str
) -> None:
    out = tmp_path / "checkpoint"
    file = written(name, LAYOUTS[head], tmp_path)
    code, printed, err = cli("import", KINDS[name], *file, "--head-from", head, "--out", out)
    assert code == 0, err
    task, metric, classes = TASKS[head]
    assert f"{head}: {classes} {task} classes" in printed and len(printed.strip().splitlines()) == 1

    config = CheckpointConfig.read(out)
    assert (config.task, config.headline_metric) == (task, metric)
    assert config.classes == [str(index) for index in range(classes)] and not config.classes_named
    classifier, io = mmrobust.load(out), golden(name).io
    for case in CODES:
        rows, inputs = of_case(io, name, case)
        with torch.inference_mode():
            torch.testing.assert_close(classifier(inputs, case), io[f"out.{head}_logits"][rows], **close)


@pytest.mark.parametrize("layout", ["plain", "module", "flat lightning"])
def test_cav_mae_gives_the_recorded_logits_in_every_mode(
    cli: Callable[..., Any], golden: Any, written: Callable[..., list[str]], tmp_path: Path, layout: str
) -> None:
    out = tmp_path / "checkpoint"
    code, _, err = cli("import", "cav-mae", *written("cavmae", layout, tmp_path), "--out", out)
    assert code == 0, err
    assert "dataset_mean and dataset_std unknown" in err and "does not use: fusion_block (" in err
    classifier, io = mmrobust.load(out), golden("cavmae").io
    inputs = {"audio_values": io["in.audio"], "pixel_values": io["in.image"]}
    for mode, (path, case) in MODES.items():
        classifier.backbone.configure({"missing_path": path})
        with torch.inference_mode():
            torch.testing.assert_close(classifier(inputs, case), io[f"out.{mode}"], **close)


def test_cav_maes_args_json_sets_the_filter_bank_and_the_task(
    cli: Callable[..., Any], golden: Any, save: Callable[..., Path], tmp_path: Path
) -> None:
    recorded = golden("cavmae")
    args = {
        "num_heads": 4,
        "dataset": "audioset",
        "dataset_mean": -4.2,
        "dataset_std": 3.5,
        "metrics": "mAP",
        "wa": None,
    }
    (tmp_path / "args.json").write_text(json.dumps(args))
    file, out = save(recorded.weights, tmp_path / "best.pth"), tmp_path / "out"
    code, printed, err = cli("import", "cav-mae", file, "--config", tmp_path / "args.json", "--out", out)
    assert code == 0 and "dataset_mean" not in err
    assert "audioset: 10 multi-label classes" in printed
    config, processor = CheckpointConfig.read(out), mmrobust.load(out).backbone.processor
    assert (config.headline_metric, config.dataset["name"]) == ("map", "audioset")
    assert (processor.audio.mean, processor.audio.std, processor.audio.frames) == (-4.2, 3.5, 64)
    assert tuple(processor.image_processor.image_mean) == (0.485, 0.456, 0.406)
    for change, said in [
        ({"metrics": "f1"}, "metrics = 'f1' is none of acc, mAP"),
        ({"dataset_std": 0}, "dataset_std = 0.0 must be above 0"),
        ({"dataset_mean": "low"}, "dataset_mean = 'low' is not a number"),
        ({"mel_bins": 48}, "mel_bins 48 in patches of 16 do not divide the 32 positions"),
    ]:
        (tmp_path / "args.json").write_text(json.dumps(args | change))
        refused(cli, said, "cav-mae", file, "--config", tmp_path / "args.json", "--out", tmp_path / "no")


def test_the_folder_says_where_it_comes_from(
    cli: Callable[..., Any], written: Callable[..., list[str]], tmp_path: Path
) -> None:
    (file,) = written("mmp_input", "lightning", tmp_path)
    out = tmp_path / "mmp-food"
    assert cli("import", "mmp", file, "--head-from", "food101", "--out", out).code == 0
    sha256 = hashlib.sha256(Path(file).read_bytes()).hexdigest()
    origin = CheckpointConfig.read(out).training["imported"]
    repository = "https://github.com/YiLunLee/missing_aware_prompts"
    assert origin == {"kind": "mmp", "repository": repository, "file": "last.ckpt", "sha256": sha256}
    card = (out / "README.md").read_text()
    assert "# mmp-food" in card and sha256 in card and repository in card and "holds no tokenizer" in card
    assert not [path for path in tmp_path.iterdir() if "partial" in path.name]
    assert "backbone" in {path.name for path in out.iterdir()}


def test_what_the_references_configuration_says_of_the_training_is_kept(
    cli: Callable[..., Any], golden: Any, save: Callable[..., Path], lightning: Any, tmp_path: Path
) -> None:
    recorded = golden("mmp_input")
    settings = recorded.config | {"missing_type": {"train": "both"}, "missing_ratio": {"train": 0.7}, "seed": 3}
    file = save(lightning(recorded.weights, {"config": settings}), tmp_path / "last.ckpt")
    assert cli("import", "mmp", file, "--head-from", "mmimdb", "--out", tmp_path / "out").code == 0
    training = CheckpointConfig.read(tmp_path / "out").training
    assert (training["scenario"], training["missing_rate"], training["seed"]) == ("missing-both", 0.7, 3)


def test_a_config_goes_before_what_the_file_says(
    cli: Callable[..., Any], written: Callable[..., list[str]], tmp_path: Path
) -> None:
    (tmp_path / "level.json").write_text('{"prompt_type": "attention"}')
    command = ["import", "mmp", *written("mmp_input", "lightning", tmp_path), "--head-from", "mmimdb"]
    assert cli(*command, "--config", tmp_path / "level.json", "--out", tmp_path / "out").code == 0
    assert CheckpointConfig.read(tmp_path / "out").method["level"] == "attention"


# Evaluation of an imported folder


@pytest.fixture(scope="module")
def named_digits(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits under other class names than an imported checkpoint's numbers."""
    folder = tmp_path_factory.mktemp("data") / "named"
    rows = [
        SampleRow(split, s.id, s.label, image=s.image, image_path="x", audio=s.audio, audio_path="y", text=s.text)
        for split in digits.splits
        for s in itertools.islice(digits.split(split), 24)
    ]
    about = {"task": "single-label", "headline_metric": "accuracy", "licence": "", "source": ""}
    names = [f"digit {digit}" for digit in CLASSES]
    write_dataset(folder, rows, name="named", modalities=("image", "text", "audio"), classes=names, **about)
    return folder


@pytest.fixture(scope="module")
def ten_classes(golden: Any, save: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """(golden folder) → the arguments of an import whose head of food101 has ten classes."""
    folder = tmp_path_factory.mktemp("ten")

    def write(name: str) -> list[str]:
        recorded = golden(name)
        last = "food101_classifier.3" if KINDS[name] == "mmp" else "food101_classifier"
        state = recorded.weights | {f"{last}.{k}": recorded.weights[f"{last}.{k}"][:10] for k in ("weight", "bias")}
        (folder / f"{name}.json").write_text(json.dumps(recorded.config))
        file = save(state, folder / f"{name}.pth")
        return [KINDS[name], str(file), "--config", str(folder / f"{name}.json"), "--head-from", "food101"]

    return write


@pytest.mark.parametrize("name", ["mmp_attention", "dcp"])
def test_eval_runs_on_an_imported_folder(
    cli: Callable[..., Any],
    ten_classes: Any,
    tokenizers: dict[str, Path],
    named_digits: Path,
    tmp_path: Path,
    name: str,
) -> None:
    out = tmp_path / "checkpoint"
    code, _, err = cli("import", *ten_classes(name), "--processor", tokenizers[KINDS[name]], "--out", out)
    assert code == 0 and "tokenizer" not in err
    evaluation = ["--data", named_digits, "--missing-rate", "0,1", "--seeds", 1, "--limit", 12, "--device", "cpu"]
    code, _, err = cli("eval", out, *evaluation, "--out", tmp_path / "grid")
    assert code == 0, err
    results = pd.read_parquet(tmp_path / "grid" / "results.parquet")
    assert set(results["scenario"]) == {"missing-image", "missing-text", "missing-both"}
    assert set(results["prompting"]) == {"situation", "concat"} and results["value"].between(0, 1).all()

    classifier = mmrobust.load(out)
    sample = {"image": Image.new("RGB", (64, 64), "red"), "text": "a digit"}
    logits = {case: classifier.logits([sample], case) for case in classifier.cases}
    assert not torch.equal(logits["complete"], logits["missing-text"])


def test_eval_runs_on_an_imported_cav_mae(
    cli: Callable[..., Any], written: Callable[..., list[str]], named_digits: Path, tmp_path: Path
) -> None:
    out = tmp_path / "checkpoint"
    assert cli("import", "cav-mae", *written("cavmae", "plain", tmp_path), "--out", out).code == 0
    evaluation = ["--data", named_digits, "--missing-rate", "0,1", "--seeds", 1, "--limit", 6, "--device", "cpu"]
    code, _, err = cli("eval", out, *evaluation, "--out", tmp_path / "grid")
    assert code == 0, err


def test_prompt_the_missing_keeps_the_head_of_an_imported_cav_mae(
    cli: Callable[..., Any], written: Callable[..., list[str]], named_digits: Path, tmp_path: Path
) -> None:
    full, out = tmp_path / "full", tmp_path / "ptm"
    assert cli("import", "cav-mae", *written("cavmae", "plain", tmp_path), "--out", full).code == 0
    training = ["--data", named_digits, "--modalities", "audio,image", "--method", "ptm", "--prompt-length", 2]
    code, _, err = cli("train", *training, "--backbone", full, "--epochs", 1, "--device", "cpu", "--out", out)
    assert code == 0, err
    kept, theirs = (mmrobust.load(folder).head.state_dict() for folder in (out, full))
    assert all(torch.equal(kept[name], tensor) for name, tensor in theirs.items())
    assert CheckpointConfig.read(out).classes_named


def test_another_number_of_classes_or_another_task_is_refused(
    cli: Callable[..., Any], written: Callable[..., list[str]], named_digits: Path, tmp_path: Path
) -> None:
    for head, said in {"food101": "101 single-label classes", "mmimdb": "23 multi-label classes"}.items():
        out = tmp_path / head
        assert cli("import", "dcp", *written("dcp", "plain", tmp_path), "--head-from", head, "--out", out).code == 0
        code, _, err = cli("eval", out, "--data", named_digits, "--out", tmp_path / "grid")
        assert code == 2 and f"knows {said}" in err and "has 10 single-label classes" in err


def test_classes_that_have_names_must_still_be_the_data_sets(
    cli: Callable[..., Any], trained: Callable[..., Path], named_digits: Path, tmp_path: Path
) -> None:
    """Digits' classes are called 0 to 9 too, but by those who know."""
    code, _, err = cli("eval", trained("full", "linear"), "--data", named_digits, "--out", tmp_path / "grid")
    assert code == 2 and "knows 10 single-label classes (0, 1, 2 …)" in err


@pytest.mark.parametrize("name", ["mmp_input", "dcp"])
def test_without_a_tokenizer_only_raw_inputs_are_out_of_reach(
    cli: Callable[..., Any],
    ten_classes: Any,
    tokenizers: dict[str, Path],
    named_digits: Path,
    tmp_path: Path,
    name: str,
) -> None:
    out = tmp_path / "checkpoint"
    code, _, err = cli("import", *ten_classes(name), "--out", out)
    assert code == 0 and "holds no tokenizer" in err and "--processor" in err
    classifier = mmrobust.load(out)
    sample = {"image": Image.new("RGB", (64, 64)), "text": "one"}
    with pytest.raises(CheckpointError, match=r"backbone: holds no tokenizer, so raw inputs cannot be encoded"):
        classifier.logits([sample])
    code, printed, err = cli("eval", out, "--data", named_digits, "--limit", 4, "--out", tmp_path / "grid")
    assert (code, printed) == (2, "") and "import again with --processor" in err
    assert len(err.strip().splitlines()) == 1

    from transformers import AutoTokenizer  # the way out that the message names

    AutoTokenizer.from_pretrained(tokenizers[KINDS[name]]).save_pretrained(out / "backbone")
    assert mmrobust.load(out).logits([sample]).shape == (1, 10)


def test_dcp_without_its_dynamic_prompts_is_imported_with_a_remark(
    cli: Callable[..., Any], golden: Any, save: Callable[..., Path], lightning: Any, tmp_path: Path
) -> None:
    recorded = golden("dcp")
    state = {name: tensor for name, tensor in recorded.weights.items() if not name.startswith("dynamic.")}
    file = save(lightning(state, {"config": recorded.config}), tmp_path / "last.ckpt")
    code, _, err = cli("import", "dcp", file, "--head-from", "hatememes", "--out", tmp_path / "out")
    assert code == 0
    assert (
        "last.ckpt: holds no dynamic prompts for image/complete" in err and "expect figures close but not equal" in err
    )
    assert "holds no dynamic prompts" in (tmp_path / "out" / "README.md").read_text()
    code, _, err = cli("import", "dcp", file, "--head-from", "hatememes", "--out", tmp_path / "quiet", "--quiet")
    assert (code, err) == (0, "")


# What is refused


def refused(cli: Callable[..., Any], said: str, *arguments: object) -> None:
    """The import is refused with that one line, and nothing is left behind."""
    out = Path(str(arguments[-1]))
    before = sorted(out.parent.iterdir())
    code, printed, err = cli("import", *arguments)
    assert (code, printed) == (2, ""), err
    assert said in err and len(err.strip().splitlines()) == 1, err
    assert sorted(out.parent.iterdir()) == before


def test_files_that_are_not_what_they_should_be(
    cli: Callable[..., Any], golden: Any, written: Callable[..., list[str]], save: Callable[..., Path], tmp_path: Path
) -> None:
    (whole,) = written("mmp_input", "lightning", tmp_path)
    weights = golden("mmp_input").weights
    cut = tmp_path / "cut.ckpt"
    cut.write_bytes(Path(whole).read_bytes()[:400_000])
    text = tmp_path / "text.pth"
    text.write_text("it is no checkpoint")
    (tmp_path / "empty.pth").write_bytes(b"")
    (tmp_path / "cut.safetensors").write_bytes(b"\xff" * 20)
    torch.save(weights, tmp_path / "legacy.pth", _use_new_zipfile_serialization=False)
    (tmp_path / "cut-legacy.pth").write_bytes((tmp_path / "legacy.pth").read_bytes()[:300_000])
    script = tmp_path / "script.pt"
    with zipfile.ZipFile(script, "w") as archive:  # what a TorchScript archive is known by
        for name in ("constants.pkl", "version", "data.pkl"):
            archive.writestr(f"script/{name}", b"3")
    for file, saying in [
        (cut, "was not written by PyTorch or is truncated"),
        (tmp_path / "cut-legacy.pth", "was not written by PyTorch or is truncated"),
        (text, "was not written by PyTorch or is truncated (Unsupported operand"),
        (tmp_path / "empty.pth", "was not written by PyTorch or is truncated"),
        (tmp_path / "cut.safetensors", "cannot be read"),
        (tmp_path / "none.ckpt", "no such file"),
        (tmp_path, "is a folder; name the checkpoint file in it"),
        (script, "was not written by PyTorch or is truncated"),
        (save([1, 2], tmp_path / "list.pth"), "holds no weights"),
        (save({"epoch": 3}, tmp_path / "epoch.pth"), "holds no weights"),
        (save({**weights, "note": "x"}, tmp_path / "note.pth"), "entry 'note' of its state dict is not a tensor"),
        (
            save({**weights, "pooler.dense.bias": torch.full((64,), torch.nan)}, tmp_path / "nan.pth"),
            "weight pooler.dense.bias holds NaN or infinite numbers",
        ),
        (
            save({**weights, "huge": torch.zeros(1).expand(10**6, 10**6)}, tmp_path / "huge.pth"),
            "weight huge claims 1,000,000,000,000 values, more than the file holds",
        ),
    ]:
        refused(cli, f"{file}: {saying}", "mmp", file, "--head-from", "mmimdb", "--out", tmp_path / "out")


def test_a_legacy_file_is_read(cli: Callable[..., Any], golden: Any, tmp_path: Path) -> None:
    recorded = golden("mmp_input")
    torch.save(recorded.weights, tmp_path / "legacy.pth", _use_new_zipfile_serialization=False)
    (tmp_path / "config.json").write_text(json.dumps(recorded.config))
    command = ["import", "mmp", tmp_path / "legacy.pth", "--config", tmp_path / "config.json", "--head-from", "mmimdb"]
    code, _, err = cli(*command, "--out", tmp_path / "out")
    assert code == 0, err


def test_an_archive_that_unpacks_to_more_than_it_holds_is_refused(cli: Callable[..., Any], tmp_path: Path) -> None:
    file = tmp_path / "bomb.pth"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb/data.pkl", b"\x80\x02}." + bytes(10**6))
    refused(cli, f"{file}: refused: it unpacks to 1,000,004 bytes", "mmp", file, "--out", tmp_path / "out")


class Runs:
    """Leaves a file where it is unpickled."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> Any:
        return Path.touch, (self.proof,)


class Evaluates:
    """The same, by a builtin."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> Any:
        return eval, (f"open({str(self.proof)!r}, 'w').close()",)


@pytest.mark.parametrize("hostile", [Runs, Evaluates])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_that_would_run_code_is_refused_and_runs_none(
    cli: Callable[..., Any], golden: Any, tmp_path: Path, hostile: Any, zipped: bool
) -> None:
    proof = tmp_path / "proof"
    file = tmp_path / "hostile.ckpt"
    held = {"state_dict": golden("mmp_input").weights, "callbacks": hostile(proof)}
    torch.save(held, file, _use_new_zipfile_serialization=zipped)
    refused(cli, f"{file}: refused, since reading it would run code", "mmp", file, "--out", tmp_path / "out")
    assert not proof.exists()
    torch.load(file, weights_only=False)  # it was a live one
    assert proof.exists()


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("mmp_input", {"complete_prompt": None}, "weight complete_prompt is missing"),
        ("mmp_input", {"module.complete_prompt": torch.zeros(1)}, "weight complete_prompt occurs twice, with and"),
        ("mmp_input", {"itm_score.fc.weight": torch.zeros(2, 64)}, "weight itm_score.fc.weight is not known"),
        ("mmp_input", {"pooler.dense.bias": torch.zeros(3)}, "what becomes pooler.dense.bias is of shape [3]"),
        ("mmp_input", {"mmimdb_classifier.3.bias": torch.zeros(4)}, "what becomes head.layers.3.weight is of shape"),
        ("mmp_input", {"transformer.pos_embed": torch.zeros(17)}, "weight transformer.pos_embed is of shape [17]"),
        ("mmp_input", {"transformer.blocks.999999999.norm1.bias": torch.zeros(64)}, "weight transformer.blocks.4."),
        ("dcp", {"model.prompt_learner.common_prompt_image": None}, "weight model.prompt_learner.common_prompt_image"),
        ("dcp", {"model.extra": torch.zeros(1)}, "weight model.extra is not known"),
        ("dcp", {"dynamic.text.image": torch.zeros(7)}, "its tensors or settings contradict each other"),
        ("cavmae", {"pos_embed_a": None}, "weight pos_embed_a is missing"),
        ("cavmae", {"decoder_embed": torch.zeros(1)}, "weight decoder_embed is not known"),
        ("cavmae", {"blocks_a.99999999.norm1.bias": torch.zeros(40)}, "weight blocks_a.10."),
        # A hidden size that asks for terabytes, which are never taken.
        ("mmp_input", {"text_embeddings.word_embeddings.weight": torch.zeros(2, 2**20)}, "its tensors contradict"),
    ],
)
def test_weights_that_are_not_the_references(
    cli: Callable[..., Any],
    golden: Any,
    save: Callable[..., Path],
    tmp_path: Path,
    name: str,
    change: dict[str, Any],
    said: str,
) -> None:
    recorded = golden(name)
    state = {key: tensor for key, tensor in {**recorded.weights, **change}.items() if tensor is not None}
    file = save(state, tmp_path / "model.pth")
    (tmp_path / "config.json").write_text(json.dumps(recorded.config))
    kind = KINDS.get(name, "cav-mae")
    head = [] if kind == "cav-mae" else ["--head-from", "mmimdb"]
    refused(cli, said, kind, file, "--config", tmp_path / "config.json", *head, "--out", tmp_path / "out")


def test_arguments_that_do_not_fit(
    cli: Callable[..., Any], golden: Any, written: Callable[..., list[str]], save: Callable[..., Path], tmp_path: Path
) -> None:
    (ckpt,) = written("mmp_input", "lightning", tmp_path)
    plain, _, config = written("dcp", "plain", tmp_path)
    bare = save(golden("mmp_input").weights, tmp_path / "bare.pth")
    three = save(golden("dcp").weights | {"hatememes_classifier.weight": torch.zeros(3, 80)}, tmp_path / "three.pth")
    (tmp_path / "cavmae").mkdir()
    sound, _, settings = written("cavmae", "module", tmp_path / "cavmae")
    (tmp_path / "broken.json").write_text("{num_heads: 4}")
    (tmp_path / "list.json").write_text("[4]")
    (tmp_path / "heads.json").write_text('{"num_heads": 4}')
    (tmp_path / "layers.json").write_text('{"num_heads": 4, "prompt_type": "input", "prompt_layers": 3}')
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thing").touch()
    out, mmimdb = ("--out", tmp_path / "out"), ("--head-from", "mmimdb")
    for arguments, said in [
        (("mpm", ckpt, *out), "No such command 'mpm'. Did you mean 'mmp'?"),
        (("dcp", ckpt, *mmimdb, *out), "weight model.image_encoder.conv1.weight is missing"),
        (("mmp", bare, *mmimdb, *out), "set num_heads in a --config FILE.json"),
        (("mmp", bare, "--config", tmp_path / "heads.json", *mmimdb, *out), "set prompt_type"),
        (("mmp", bare, "--config", tmp_path / "layers.json", *mmimdb, *out), "prompt_layers 3 is not a list of layers"),
        (("dpl", plain, *out), "; with …_classifier it is one for: mmrobust import mmp or dcp"),
        (("dcp", plain, *mmimdb, *out), "head_dim 64 does not divide the width 48"),
        (("cav-mae", sound, *out), "set num_heads in a --config FILE.json"),
        (
            ("cav-mae", sound, "--config", settings, *mmimdb, *out),
            "--head-from mmimdb: a checkpoint of cav-mae holds one",
        ),
        (("cav-mae", sound, "--config", settings, "--processor", "x", *out), "--processor x: a CAV-MAE needs no"),
        (("mmp", ckpt, *out), "has heads for mmimdb, food101, hatememes; choose one with --head-from"),
        (("mmp", ckpt, "--head-from", "imdb", *out), "unknown --head-from 'imdb': did you mean 'mmimdb'"),
        (("dcp", three, "--config", config, "--head-from", "hatememes", *out), "is of shape"),
        (
            ("mmp", ckpt, *mmimdb, "--config", tmp_path / "no.json", *out),
            "no.json: no such file; expected the reference's",
        ),
        (("mmp", ckpt, *mmimdb, "--config", tmp_path / "broken.json", *out), "broken.json: cannot be read as"),
        (("mmp", ckpt, *mmimdb, "--config", tmp_path / "list.json", *out), "list.json: is not the"),
        (("mmp", ckpt, *mmimdb, "--processor", tmp_path / "none", *out), "none: is no folder with a tokenizer here"),
        (("mmp", ckpt, *mmimdb, "--out", tmp_path / "full"), "full: already contains files; name another folder"),
    ]:
        refused(cli, said, *arguments)


def test_a_head_that_is_not_there_is_refused(
    cli: Callable[..., Any], golden: Any, save: Callable[..., Path], lightning: Any, tmp_path: Path
) -> None:
    recorded = golden("mmp_input")
    one = {n: t for n, t in recorded.weights.items() if not n.startswith(("food101", "hatememes"))}
    file = save(lightning(one, {"config": recorded.config}), tmp_path / "one.ckpt")
    said = f"{file}: checkpoint of missing_aware_prompts: has no head for food101, only for mmimdb"
    refused(cli, said, "mmp", file, "--head-from", "food101", "--out", tmp_path / "out")
    assert cli("import", "mmp", file, "--out", tmp_path / "out").code == 0


def test_a_tokenizer_that_does_not_fit_is_refused(
    cli: Callable[..., Any], ten_classes: Any, make_tokenizer: Callable[..., Path], tmp_path: Path
) -> None:
    large = make_tokenizer(tmp_path / "large", ("<|startoftext|>", "<|endoftext|>"), size=300)
    small = make_tokenizer(tmp_path / "small", ("<|startoftext|>", "<|endoftext|>"), size=150)
    for folder, said in [
        (large, "has 300 tokens, the checkpoint's table 200"),
        (small, "ends a text with token [149], the checkpoint's texts end with 199"),
    ]:
        refused(cli, said, *ten_classes("dcp"), "--processor", folder, "--out", tmp_path / "out")


def test_a_disk_that_fills_up_leaves_nothing_behind(
    cli: Callable[..., Any], written: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mmrobust.models.importing.convert.write_card", full)  # the last of what is written
    file = written("dcp", "lightning", tmp_path)
    refused(cli, "No space left on device", "dcp", *file, "--head-from", "mmimdb", "--out", tmp_path / "out")
