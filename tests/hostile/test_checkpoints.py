"""Broken and malicious checkpoints: one line and exit code 2; no traceback, no hang, no gigabytes, no code of theirs.

Each row of the tables is one way in which a checkpoint was, or could be, unreadable. Rows stay for good.
"""

from __future__ import annotations

import json
import os
import pickle
import resource
import shutil
import signal
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mmrobust.data import Dataset

GIGABYTES = 3 * 2**30
"""What a load may ask for beyond what the test process has already."""
SECONDS = 60
"""After so long a load counts as hanging; on an idle machine each takes well under one."""

Damage = Callable[[Path], object]


@pytest.fixture(autouse=True)
def bounded() -> Iterator[None]:
    """Memory and time are bounded: what asks for more fails here, and does not take the machine with it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + GIGABYTES, hard))

    def hangs(*_: object) -> None:
        raise TimeoutError("it hangs")

    before = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@pytest.fixture
def pair(trained: Callable[..., Path], tmp_path: Path) -> Path:
    """A folder with a copy of an ``mmp`` checkpoint, ``mmp``, beside a copy of the one that holds its backbone."""
    full = trained("full", "linear")
    shutil.copytree(full, tmp_path / full.name)
    shutil.copytree(trained("mmp", "prototype"), tmp_path / "mmp")
    return tmp_path


@pytest.fixture
def cavmae(trained: Callable[..., Path], tmp_path: Path) -> Path:
    """A copy of a fine-tuned CAV-MAE."""
    return Path(shutil.copytree(trained("full", "linear", ("audio", "image")), tmp_path / "cavmae"))


def refused(cli: Any, checkpoint: Path, digits: Dataset, out: Path) -> str:
    """The one line that ``mmrobust eval`` says of ``checkpoint``."""
    options = ("--data", digits.folder, "--limit", 2, "--missing-rate", 1, "--seeds", 1, "--out", out / "results")
    code, printed, said = cli("eval", checkpoint, *options)
    assert (code, printed) == (2, ""), said
    assert len(said.splitlines()) == 1
    assert "\x1b" not in said
    return str(said)


def settings(file: str, **changes: Any) -> Damage:
    """Change values of a JSON file; ``a__b`` is key b of key a."""

    def damage(folder: Path) -> None:
        values = json.loads((folder / file).read_text())
        for path, value in changes.items():
            *outer, last = path.split("__")
            place = values
            for key in outer:
                place = place[key]
            place[last] = value
        (folder / file).write_text(json.dumps(values))

    return damage


def tensors(file: str, change: Callable[[dict[str, torch.Tensor]], object]) -> Damage:
    """Change the tensors of a safetensors file."""

    def damage(folder: Path) -> None:
        held = load_file(folder / file)
        change(held)
        save_file(held, folder / file, {"format": "pt"})

    return damage


def content(file: str, data: bytes | Callable[[bytes], bytes]) -> Damage:
    """Put other bytes into a file."""

    def damage(folder: Path) -> None:
        path = folder / file
        path.write_bytes(data if isinstance(data, bytes) else data(path.read_bytes()))

    return damage


def instead(file: str, make: Callable[[Path], object]) -> Damage:
    """Put something else than a file in its place."""

    def damage(folder: Path) -> None:
        (folder / file).unlink()
        make(folder / file)

    return damage


class Evil:
    """Unpickling it makes a file: if that file is there, code was run."""

    def __init__(self, canary: str) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.canary}",)


def pickled(file: str) -> Damage:
    return lambda folder: (folder / file).write_bytes(pickle.dumps(Evil(str(folder / "canary"))))


def torch_saved(file: str) -> Damage:
    return lambda folder: torch.save({"x": Evil(str(folder / "canary"))}, folder / file)


def header(claim: dict[str, Any], size: int | None = None) -> bytes:
    """A safetensors file that holds nothing but claims."""
    text = json.dumps(claim).encode()
    return struct.pack("<Q", len(text) if size is None else size) + text


def several(*damages: Damage) -> Damage:
    return lambda folder: [damage(folder) for damage in damages]


CONFIG, WEIGHTS = "mmp/config.json", "mmp/model.safetensors"
BACKBONE = "full-linear-image-text/backbone"
HUGE = 10**9

CONFIGS: list[tuple[str, Damage, str]] = [
    ("nested", content(CONFIG, b'{"a":' * 100_000), "config.json: cannot be read"),
    ("no UTF-8", content(CONFIG, b"\xff\xfe{}"), "config.json: cannot be read"),
    ("of 32 MB", content(CONFIG, b'{"classes": ["' + b"x" * 2**25 + b'"]}'), "config.json: is 33,554,449 bytes"),
    ("a pipe", instead(CONFIG, os.mkfifo), "config.json: is not a regular file"),
    ("a device", instead(CONFIG, lambda p: p.symlink_to("/dev/zero")), "config.json: is not a regular file"),
    ("a loop", instead(CONFIG, lambda p: p.symlink_to(p.name)), "config.json: cannot be opened (Too many"),
    ("a folder", instead(CONFIG, Path.mkdir), "config.json: is not a regular file"),
    ("method a word", settings(CONFIG, method="mmp"), "config.json: method = 'mmp': must be a mapping"),
    ("method without name", settings(CONFIG, method={}), "config.json: method/name is missing"),
    (
        "method named by a list",
        settings(CONFIG, method__name=["mmp"]),
        "config.json: method/name = ['mmp']: must be a string",
    ),
    ("10^9 prompts", settings(CONFIG, method__length=HUGE), "must be 65,536 or less"),
    ("prompts in layer 10^9", settings(CONFIG, method__layers=[HUGE]), "prompt layers [1000000000]: vilt has 4 layers"),
    ("prompts of length x", settings(CONFIG, method__length="x"), "length = 'x': must be a whole number"),
    ("prompts of length 1e400", settings(CONFIG, method__length=1e400), "length = inf: must be a whole number"),
    ("10^9 prototypes", settings(CONFIG, head__per_class=HUGE), "must be 65,536 or less"),
    ("margins that are a list", settings(CONFIG, head__margins=[0.1]), "margins = [0.1]: must be a mapping"),
    ("a margin of NaN", settings(CONFIG, head__margins={"complete": float("nan")}), "margin nan of complete"),
    ("a margin of no case", settings(CONFIG, head__margins={"missing-smell": 0.1}), "unknown case in the prototype"),
    ("prototypes of scale NaN", settings(CONFIG, head__scale=float("nan")), "scale nan"),
    ("head null", settings(CONFIG, head=None), "config.json: head = None: must be a mapping"),
    ("10^9 classes", settings(CONFIG, classes=HUGE), "config.json: classes = 1000000000: must be a list"),
    ("10^6 classes", settings(CONFIG, classes=[str(i) for i in range(10**6)]), "asks for"),
    ("classes of no words", settings(CONFIG, classes=[1, 2]), "config.json: classes/0 = 1: must be a string"),
    ("no classes", settings(CONFIG, classes=[]), "config.json: classes is empty"),
    ("cases of no words", settings(CONFIG, cases=[3]), "config.json: cases/0 = 3: must be a string"),
    ("no cases", settings(CONFIG, cases=[]), "config.json: cases is empty"),
    ("a case of nothing", settings(CONFIG, cases=["missing-image+missing-text"]), "are all missing"),
    ("modalities a word", settings(CONFIG, modalities="image"), "config.json: modalities = 'image': must be a list"),
    ("modality unknown", settings(CONFIG, modalities=["smell", "text"]), "smell"),
    ("task a number", settings(CONFIG, task=3), "config.json: task = 3: must be a string"),
    ("task unknown", settings(CONFIG, task="single-lable"), "unknown task 'single-lable': did you mean 'single-label'"),
    ("fill a list", settings(CONFIG, fill=[]), "config.json: fill = []: must be a string"),
    ("fill unknown", settings(CONFIG, fill="lava"), "unknown fill 'lava'"),
    ("training null", settings(CONFIG, training=None), "config.json: training = None: must be a mapping"),
    ("version a word", settings(CONFIG, format_version="1"), "checkpoint format 1 is"),
    ("backbone null", settings(CONFIG, backbone=None), "config.json: backbone = None: must be a mapping"),
    ("backbone empty", settings(CONFIG, backbone={}), "config.json: backbone/id is missing"),
    ("backbone path a number", settings(CONFIG, backbone__path=3), "config.json: backbone/path = 3: must be a string"),
    (
        "backbone with NUL",
        settings(CONFIG, backbone__path=None, backbone__id="a\0b"),
        "backbone",
    ),
    (
        "backbone anywhere",
        settings(CONFIG, backbone__path="../../../../../../../../dev", backbone__id="/dev"),
        "unknown model type ''",
    ),
    (
        "backbone settings a list",
        settings(CONFIG, backbone__settings=[1]),
        "config.json: backbone/settings = [1]: must be",
    ),
    ("texts of 10^9 tokens", settings(CONFIG, backbone__settings={"max_text_length": HUGE}), "max_text_length"),
]

TENSORS: list[tuple[str, Damage, str]] = [
    ("truncated", content(WEIGHTS, lambda data: data[: len(data) // 2]), "model.safetensors: cannot be read"),
    ("empty", content(WEIGHTS, b""), "model.safetensors: cannot be read"),
    ("header of 2^62 bytes", content(WEIGHTS, header({}, 2**62)), "model.safetensors: cannot be read"),
    (
        "shape of 2^60",
        content(WEIGHTS, header({"x": {"dtype": "F32", "shape": [2**60], "data_offsets": [0, 4]}})),
        "model.safetensors: cannot be read",
    ),
    (
        "shape that overflows",
        content(WEIGHTS, header({"x": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 0]}})),
        "model.safetensors: cannot be read",
    ),
    ("a pickle", pickled(WEIGHTS), "model.safetensors: cannot be read"),
    ("a torch.save", torch_saved(WEIGHTS), "model.safetensors: cannot be read"),
    ("a pipe", instead(WEIGHTS, os.mkfifo), "model.safetensors: is not a regular file"),
    ("a device", instead(WEIGHTS, lambda p: p.symlink_to("/dev/zero")), "model.safetensors: is not a regular file"),
    ("a folder", instead(WEIGHTS, Path.mkdir), "model.safetensors: is not a regular file"),
    (
        "NaN",
        tensors(WEIGHTS, lambda t: t["head.prototypes.complete.image"].fill_(float("nan"))),
        "weight head.prototypes.complete.image holds NaN",
    ),
    (
        "infinite",
        tensors(WEIGHTS, lambda t: t["head.prototypes.complete.image"].fill_(float("inf"))),
        "head.prototypes.complete.image holds NaN or inf",
    ),
    (
        "of whole numbers",
        tensors(
            WEIGHTS, lambda t: t.update({"head.prototypes.complete.image": torch.ones(10, 1, 138, dtype=torch.int64)})
        ),
        "weight head.prototypes.complete.image is of type int64, not float32",
    ),
    (
        "a name with .. and colours",
        tensors(WEIGHTS, lambda t: t.update({"../../\x1b[31mx": torch.ones(1)})),
        "is not known to this method and head",
    ),
]

VILT = f"{BACKBONE}/config.json"
TOKENIZER = f"{BACKBONE}/tokenizer.json"
TOKENIZER_CONFIG = f"{BACKBONE}/tokenizer_config.json"
IMAGES = f"{BACKBONE}/preprocessor_config.json"
VILT_WEIGHTS = f"{BACKBONE}/model.safetensors"


def index(name: str) -> Damage:
    """An index in place of the weights, which looks for all of them in the file ``name``."""

    def damage(folder: Path) -> None:
        held = load_file(folder / VILT_WEIGHTS)
        (folder / VILT_WEIGHTS).rename(folder / "elsewhere.safetensors")
        values = {"metadata": {"total_size": 1}, "weight_map": dict.fromkeys(held, name)}
        (folder / f"{VILT_WEIGHTS}.index.json").write_text(json.dumps(values))

    return damage


def remote_code(file: str, classes: dict[str, str]) -> Damage:
    """Code beside the weights that the ``file`` asks to be run."""

    def damage(folder: Path) -> None:
        code = f"import pathlib\npathlib.Path({str(folder / 'canary')!r}).touch()\nclass Own: pass\n"
        (folder / BACKBONE / "own.py").write_text(code)
        settings(file, auto_map=classes, tokenizer_class="Own")(folder)

    return damage


BACKBONES: list[tuple[str, Damage, str]] = [
    *(
        (f"{key} of 10^9", settings(VILT, **{key: HUGE}), "asks for")
        for key in ("hidden_size", "num_hidden_layers", "vocab_size", "intermediate_size", "max_position_embeddings")
    ),
    ("images of 10^9", settings(VILT, image_size=HUGE), "asks for"),
    ("10^9 heads", settings(VILT, num_attention_heads=HUGE), "cannot be loaded"),
    ("no heads", settings(VILT, num_attention_heads=0), "cannot be loaded"),
    ("patches of 0", settings(VILT, patch_size=0), "cannot be loaded"),
    ("hidden_size a word", settings(VILT, hidden_size="x"), "cannot be loaded"),
    ("activation unknown", settings(VILT, hidden_act="os.system"), "cannot be loaded"),
    ("type unknown", settings(VILT, model_type="vlit"), "did you mean 'vilt'"),
    ("type a list", settings(VILT, model_type=["vilt"]), "unknown model type"),
    ("config nested", content(VILT, b'{"a":' * 100_000), "has no readable config.json"),
    ("config a device", instead(VILT, lambda p: p.symlink_to("/dev/zero")), "config.json: is not a regular file"),
    ("attention from the Hub", settings(VILT, _attn_implementation="evil/kernel"), "attention of 'evil/kernel'"),
    ("truncated", content(VILT_WEIGHTS, lambda data: data[:-100]), "cannot be loaded"),
    ("no weights", lambda f: (f / VILT_WEIGHTS).unlink(), "cannot be loaded"),
    ("a pickle", pickled(VILT_WEIGHTS), "cannot be loaded"),
    ("a device", instead(VILT_WEIGHTS, lambda p: p.symlink_to("/dev/zero")), "is not a regular file"),
    (
        "a pickle for want of others",
        several(lambda f: (f / VILT_WEIGHTS).unlink(), torch_saved(f"{BACKBONE}/pytorch_model.bin")),
        "cannot be loaded",
    ),
    ("NaN", tensors(VILT_WEIGHTS, lambda t: t["layernorm.weight"].fill_(float("nan"))), "layernorm.weight holds NaN"),
    ("an index to ..", index("../../elsewhere.safetensors"), "names a file outside its folder"),
    ("an index to /dev", index("/dev/zero"), "names a file outside its folder"),
    (
        "an adapter of another model",
        lambda f: (f / BACKBONE / "adapter_config.json").write_text('{"base_model_name_or_path": "evil/model"}'),
        "adapter_config.json",
    ),
    ("tokenizer of nothing", content(TOKENIZER, b"{}"), "cannot be loaded"),
    ("tokenizer torn", content(TOKENIZER, lambda data: data[:1000]), "cannot be loaded"),
    ("tokenizer of a pickle", pickled(TOKENIZER), "cannot be loaded"),
    (
        "tokens beyond the table",
        settings(TOKENIZER, model__vocab={f"t{i}": i for i in range(50_000)}, model__merges=[]),
        "tokenizer",
    ),
    ("no token for padding", settings(TOKENIZER_CONFIG, pad_token=None), "tokenizer has no token for padding"),
    (
        "pictures of 10^9",
        settings(IMAGES, size={"shortest_edge": HUGE}),
        "image processor makes images of 1,000,000,000",
    ),
    ("pictures of size x", settings(IMAGES, size="x"), ""),
]

HARMLESS: list[tuple[str, Damage]] = [
    ("all layers and more prompted", settings(CONFIG, method__depth=1000)),
    ("a quantisation that is not asked for", settings(VILT, quantization_config={"quant_method": "bitsandbytes"})),
    ("a model with code", remote_code(VILT, {"AutoModel": "own.Own"})),
    ("a tokenizer with code", remote_code(TOKENIZER_CONFIG, {"AutoTokenizer": "own.Own"})),
]

AUDIO = "cavmae/backbone/preprocessor_config.json"
CAVMAE = "cavmae/backbone/config.json"

CAVMAES: list[tuple[str, Damage, str]] = [
    ("10^9 frames", settings(CAVMAE, audio_frames=HUGE), "audio_frames = 1000000000"),
    (
        "a table of 10^8 patches",
        settings(CAVMAE, image_size=10**4, patch_size=1),
        "asks for a model of more numbers than its weights",
    ),
    (
        "a filter bank of 10^9",
        several(
            settings(CAVMAE, audio_frames=10**5, mel_bins=10**4, patch_size=10**3),
            settings(AUDIO, audio__frames=10**5, audio__mel_bins=10**4),
        ),
        "audio_frames × mel_bins = 1000000000: must be a number from 1 to",
    ),
    ("10^9 layers", settings(CAVMAE, num_specific_layers=HUGE), "asks for"),
    ("feed-forward of 10^9", settings(CAVMAE, mlp_ratio=1e9), "asks for"),
    ("mlp_ratio a word", settings(CAVMAE, mlp_ratio="x"), "cannot be loaded"),
    ("10^9 frames in", settings(AUDIO, audio__frames=HUGE), "frames = 1000000000"),
    ("rate 0", settings(AUDIO, audio__sampling_rate=0), "sampling_rate = 0"),
    ("spread 0", settings(AUDIO, audio__std=0), "std = 0"),
    ("frames a word", settings(AUDIO, audio__frames="x"), "frames = 'x'"),
    ("audio a list", settings(AUDIO, audio=[]), "preprocessor_config.json"),
    (
        "unknown picture settings",
        settings(AUDIO, image={"sise": 3}),
        "makes images of 224 pixels a side, its weights take 64",
    ),
    ("pictures of 10^9", settings(AUDIO, image__crop_size={"height": HUGE, "width": HUGE}), "image processor makes"),
]


@pytest.mark.parametrize(("damage", "message"), [row[1:] for row in CONFIGS], ids=[row[0] for row in CONFIGS])
def test_config(cli: Any, pair: Path, digits: Dataset, damage: Damage, message: str) -> None:
    damage(pair)
    assert message in refused(cli, pair / "mmp", digits, pair)


@pytest.mark.parametrize(("damage", "message"), [row[1:] for row in TENSORS], ids=[row[0] for row in TENSORS])
def test_weights(cli: Any, pair: Path, digits: Dataset, damage: Damage, message: str) -> None:
    damage(pair)
    assert message in refused(cli, pair / "mmp", digits, pair)
    assert not (pair / "canary").exists()


@pytest.mark.parametrize(("damage", "message"), [row[1:] for row in BACKBONES], ids=[row[0] for row in BACKBONES])
def test_backbone(cli: Any, pair: Path, digits: Dataset, damage: Damage, message: str) -> None:
    damage(pair)
    assert message in refused(cli, pair / "mmp", digits, pair)
    assert not (pair / "canary").exists()


@pytest.mark.parametrize(("damage", "message"), [row[1:] for row in CAVMAES], ids=[row[0] for row in CAVMAES])
def test_cavmae(cli: Any, cavmae: Path, digits: Dataset, damage: Damage, message: str) -> None:
    damage(cavmae.parent)
    assert message in refused(cli, cavmae, digits, cavmae.parent)


@pytest.mark.parametrize("damage", [row[1] for row in HARMLESS], ids=[row[0] for row in HARMLESS])
def test_what_is_asked_for_and_not_done(cli: Any, pair: Path, digits: Dataset, damage: Damage) -> None:
    damage(pair)
    options = ("--data", digits.folder, "--limit", 2, "--missing-rate", 1, "--seeds", 1, "--out", pair / "results")
    code, _, said = cli("eval", pair / "mmp", *options, "--json")
    assert code == 0, said
    assert not (pair / "canary").exists()
