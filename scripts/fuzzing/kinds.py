"""The kinds of fuzzed input. Each damages valid inputs in a case's folder and chooses a command that reads them."""

from __future__ import annotations

import json
import os
import pickle
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
from hypothesis import strategies as st

from fuzzing.media import damaged_media
from fuzzing.sound import put, take
from fuzzing.tables import damaged_table
from fuzzing.values import NASTY_TEXTS, Draw, changed_bytes, changed_json, changed_value, scalars, values
from mmrobust.cli.app import app


@dataclass(frozen=True)
class Case:
    """A command line, to be run in the folder of its damaged input."""

    arguments: tuple[str, ...]
    note: str
    """What was done to the input."""


Kind = Callable[[Draw, Path, Path], Case]
"""(draw, folder of valid inputs, empty folder of the case) → the case."""

EVAL = ("--data", "digits", "--limit", "2", "--missing-rate", "1", "--seeds", "1", "--device", "cpu", "--out", "out")
TRAIN = ("--data", "digits", "--epochs", "1", "--device", "cpu", "--out", "out")


def special(draw: Draw, path: Path) -> str:
    """Replace ``path`` by something that is not an ordinary file."""
    path.unlink(missing_ok=True)
    match draw(st.sampled_from(("pipe", "folder", "loop", "zeros", "null", "dangling", "sparse", "empty"))):
        case "pipe":
            os.mkfifo(path)
            return "a pipe"
        case "folder":
            path.mkdir()
            return "a folder"
        case "loop":
            path.symlink_to(path.name)
            return "a link to itself"
        case "zeros":
            path.symlink_to("/dev/zero")
            return "/dev/zero"
        case "null":
            path.symlink_to("/dev/null")
            return "/dev/null"
        case "dangling":
            path.symlink_to("gone")
            return "a link to nothing"
        case "sparse":
            with path.open("wb") as file:
                file.truncate(2**36)
            return "64 GiB of zeros"
    path.write_bytes(b"")
    return "an empty file"


# --- command lines -----------------------------------------------------------------------------------------------

GOOD = {
    "data": ("digits",),
    "folder": ("digits", "results"),
    "checkpoint": ("mmp", "full"),
    "checkpoints": ("mmp", "full"),
    "backbone": ("full", "tiny", "tiny-clip"),
    "results": ("results", "other", "results/results.parquet"),
    "candidate": ("results", "other"),
    "baseline": ("results", "other", "mmp"),
    "a": ("results",),
    "b": ("other",),
    "out": ("out", "out/inner", "out.csv", "out.pt", "results", "mmp"),
    "path": ("out", "results"),
    "study": ("dpl-vs-linear", "study.yaml"),
    "source": ("raw/manifest.csv", "raw"),
    "rules": ("gates.toml",),
    "recipe": ("recipe.yaml", "default", "mmp-mmimdb"),
    "missing_table": ("table.csv", "table.pt", "table.parquet"),
    "kind": ("mmp", "dcp", "dpl", "cav-mae"),
    "file": ("table.pt", "mmp/model.safetensors"),
    "method": ("mmp", "none", "lora", "adapter", "msp", "dcp", "maple", "ptm", "full"),
    "head": ("linear", "mlp", "prototype"),
    "modalities": ("image,text", "audio,image", "text"),
    "scenario": ("missing-both", "missing-text", "noisy-image:blur@3", "noisy-both@2", "noisy-text:ocr@1"),
    "missing_rate": ("0.5", "1", "0", "0:1:0.5"),
    "prompting": ("situation", "concat", "situation,concat"),
    "split": ("test", "train", "validation"),
    "metric": ("accuracy", "macro_f1"),
    "fail": ("accuracy:-0.01", "accuracy@missing-text/1:-5%", "macro_f1>=0.1"),
    "format": ("table", "md", "json", "junit=out.xml", "github"),
    "task": ("single-label", "multi-label", "binary"),
    "device": ("cpu", "auto"),
    "dtype": ("float32", "bfloat16", "auto"),
    "only": ("determinism", "dtype-drift"),
    "published": ("ptm",),
    "correction": ("holm", "none"),
    "method_set": ("length=2", "rank=2", "init=normal"),
    "head_set": ("scale=2", "per_class=2"),
    "recipe_set": ("lr=0.1", "draws=0", "accumulate=2"),
    "shard": ("1/2", "2/2"),
    "noise_profile": ("default", "released"),
    "on_bad_sample": ("error", "missing", "skip"),
    "overwrite": ("never", "always", "only-missing"),
    "f1_absent": ("zero", "skip"),
    "cache": ("auto", "off", "kept/"),
}
"""Parameter → sensible values, so that a command gets past its first check."""
NUMBERS = ("-1", "0", "1", "2", "0.5", "1e9", "1000000000", str(2**63), "9" * 5000, "nan", "inf", "1e-320", "x", "")
SLOW = ("epochs", "patience", "workers", "ray_workers", "ray_address", "engine", "compile", "help", "debug")
"""Flags that rightly take long or start processes: given separately or never."""


def _commands() -> dict[tuple[str, ...], Any]:
    found = {}
    waiting = [((), typer.main.get_command(app))]
    while waiting:
        words, command = waiting.pop()
        if hasattr(command, "commands"):
            waiting += [((*words, name), inner) for name, inner in command.commands.items()]
        else:
            found[words] = command
    return {words: found[words] for words in sorted(found) if words != ("demo",)}


COMMANDS = _commands()


def commands(draw: Draw, sound: Path, folder: Path) -> Case:
    """Draw a command with random flags and values, most of the required ones sensible."""
    names = ("digits", "full", "mmp", "results", "other", "raw", "recipe.yaml", "study.yaml", "gates.toml")
    take(sound, folder, *names, "table.csv", "table.pt", "table.parquet")
    words = draw(st.sampled_from(sorted(COMMANDS)))
    line: list[str] = [*words]
    strange = 0
    for parameter in COMMANDS[words].params:
        name = parameter.name
        if name in SLOW:
            continue
        needed = parameter.required or parameter.param_type_name == "argument"
        if not needed and draw(st.integers(0, 4)):
            continue
        if parameter.param_type_name == "option" and parameter.is_flag:
            line.append(parameter.opts[0])
            continue
        odd = draw(st.integers(0, 6)) == 0
        strange += odd
        strange_values = st.one_of(st.sampled_from(NUMBERS), st.sampled_from(NASTY_TEXTS), st.text(max_size=10))
        pool = strange_values if odd else st.sampled_from(GOOD.get(name, ("1", "x", "out.html")))
        value = draw(pool)
        if value.startswith(("/", "~")) or ".." in value:  # a user may write to a path that they name
            value = "gone/" + value.strip("/~.")
        value = value.replace("\0", "\N{SYMBOL FOR NULL}")  # operating systems pass no NUL
        line += [value] if parameter.param_type_name == "argument" else [parameter.opts[0], value]
    line += {"train": ["--epochs", "1"], "eval": ["--limit", "2"]}.get(words[-1], [])
    line += ["--dry-run"] if words == ("study", "run") else []
    if draw(st.integers(0, 9)) == 0:
        line.insert(draw(st.integers(0, len(line))), draw(st.sampled_from(("--", "-", "--no", "-x", "--out=", "@x"))))
    return Case(tuple(line), f"{strange} odd values")


# --- settings ----------------------------------------------------------------------------------------------------

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10)
)
SNIPPETS = (
    "{key}: !!python/object/apply:os.system ['touch canary']",
    "{key}: !!python/name:os.system",
    "{key}: !!binary x",
    "{key}: !!timestamp 2020-99-99",
    "{key}: 2020-99-99",
    "{key}: 2020-02-30 25:61:61",
    "{key}: " + "9" * 5000,
    "{key}: 0b" + "1" * 5000,
    "{key}: 1" + ":59" * 2000,
    "{key}: .nan",
    "{key}: .inf",
    "{key}: 1e400",
    "{key}: " + "[" * 5000,
    "{key}: " + "[" * 5000 + "]" * 5000,
    "{key}: " + "{{a: " * 3000,
    "{key}: &x [*x]",
    "&x {key}: *x",
    "{key}: &x {{a: *x}}",
    "<<: {{{key}: 1}}",
    "<<: 1",
    "? [1, 2]\n: 3",
    "? {{a: 1}}\n: 3",
    "{key}: {{1: 2, null: 3, true: 4}}",
    "1: 2",
    "null: 1",
    "{key}: !!set {{a, b}}",
    "{key}: !!omap [a: 1]",
    "{key}: 'a\0b'",
    '{key}: "\\ud800"',
    "{key}: *gone",
    "%YAML 9.9\n---\n{key}: 1",
    "---\n{key}: 1\n---\n{key}: 2",
    "\t{key}: 1",
    BOMB + "{key}: *a9",
)
TOML = (
    "{key} = " + "[" * 3000 + "]" * 3000,
    "{key} = " + "9" * 5000,
    "{key} = nan",
    "{key} = -inf",
    "{key} = 1979-05-27T07:32:00Z",
    "{key} = 0001-01-01",
    "{key} = '''\\u0000'''",
    "{key} = {{a = 1, a = 2}}",
    "a" + ".a" * 3000 + " = 1",
    "[[{key}]]\nx = 1",
    "[{key}]",
    "fail = [1, 'x']",
    "fail = ['accuracy:-1e-400']",
    "fail = ['accuracy:-" + "9" * 5000 + "']",
    "fail = ['" + "a" * 50000 + ":-0.1']",
    "rule = [{{metric = 'accuracy', drop = 1e308}}]",
    "[[rule]]\nmetric = 'accuracy'\nrate = true\ndrop = 0.1",
    "[[rule]]\nmetric = 'accuracy'\nfloor = nan",
)


def settings(draw: Draw, sound: Path, folder: Path) -> Case:
    """Damage a recipe, a study, gate rules or settings on the command line."""
    import yaml

    which = draw(st.sampled_from(("recipe.yaml", "study.yaml", "gates.toml", "set", "environment")))
    take(sound, folder, "digits", "full")
    if which == "set":
        flag = draw(st.sampled_from(("--method-set", "--head-set", "--backbone-set", "--recipe-set")))
        key = draw(
            st.sampled_from(("length", "depth", "layers", "lr", "betas", "scale", "per_class", "batch_size", "x"))
        )
        value = draw(st.one_of(scalars.map(str), st.sampled_from(SNIPPETS).map(lambda s: s.partition(": ")[2])))
        line = f"{key}={value}".replace("\0", "")
        base = ("train", "--backbone", "full", "--method", "mmp", "--head", "prototype", "--modalities", "image,text")
        return Case((*base, flag, line, *TRAIN), f"{flag} {line:.80}")
    which = "recipe.yaml" if which == "environment" else which
    take(sound, folder, which)
    file = folder / which
    text = file.read_text(encoding="utf-8")
    toml = which == "gates.toml"
    match draw(st.sampled_from(("value", "value", "snippet", "snippet", "lines", "bytes", "encoding", "special"))):
        case "value" if not toml:
            put(file, yaml.safe_dump(changed_value(draw, yaml.safe_load(text))).encode("utf-8", "surrogatepass"))
            note = "values changed"
        case "value" | "snippet":
            keys = [line.partition("=" if toml else ":")[0].strip(" [-") for line in text.splitlines() if line.strip()]
            key = draw(st.sampled_from(keys))
            snippet = draw(st.sampled_from(TOML if toml else SNIPPETS)).format(key=key or "x")
            lines = text.splitlines()
            others = [line for line in lines if not line.startswith(key)] if draw(st.booleans()) else lines
            put(file, "\n".join((*others, snippet) if draw(st.booleans()) else (snippet, *others)).encode())
            note = f"with {snippet[:60]!r}"
        case "lines":
            lines = text.splitlines()
            put(file, "\n".join(draw(st.lists(st.sampled_from(lines), max_size=12))).encode())
            note = "lines shuffled"
        case "bytes":
            put(file, changed_bytes(draw, text.encode()))
            note = "bytes changed"
        case "encoding":
            put(file, text.encode(draw(st.sampled_from(("utf-16", "utf-32", "utf-8-sig", "cp037")))))
            note = "another encoding"
        case _:
            note = special(draw, file)
    if which == "recipe.yaml":
        return Case(("train", "--recipe", which, *TRAIN), f"{which}: {note}")
    if which == "study.yaml":
        return Case(("study", "run", which, "--out", "out", "--dry-run"), f"{which}: {note}")
    take(sound, folder, "results", "other")
    return Case(("check", "results", "--baseline", "other", "--rules", which), f"{which}: {note}")


# --- tables, descriptions, media, checkpoints ---------------------------------------------------------------------

READERS: dict[str, tuple[tuple[str, ...], ...]] = {
    "digits": (
        ("data", "info", "digits"),
        ("data", "verify", "digits"),
        ("data", "missing-table", "digits", "--scenario", "missing-both", "--missing-rate", "0.5"),
        ("data", "preview", "digits", "--scenario", "missing-both", "--out", "out.html"),
        ("eval", "mmp", *EVAL),
        ("eval", "mmp", *EVAL, "--on-bad-sample", "missing"),
        ("train", "--backbone", "full", "--method", "none", "--modalities", "image,text", *TRAIN),
        ("train", "--backbone", "tiny", "--method", "full", "--modalities", "image,text", *TRAIN),
        ("audit", "mmp", "--data", "digits", "--limit", "4", "--device", "cpu"),
        ("report", "results", "--html", "out.html", "--data", "digits"),
    ),
    "results": (
        ("report", "results"),
        ("report", "results", "other", "--json"),
        ("report", "results", "--details", "--markdown", "out.md", "--latex", "out.tex", "--csv", "out.csv"),
        ("report", "results", "--html", "out.html", "--details", "--efficiency"),
        ("check", "results", "--baseline", "other", "--format", "junit=out.xml"),
        ("check", "other", "--baseline", "results", "--json"),
        ("compare", "results", "other"),
        ("compare", "other", "results", "--html", "out.html"),
        ("score", "results", "--missing-rate", "0,0.5,1", "--seeds", "2"),
        ("score", "results", "--out", "out"),
        ("baseline", "save", "results", "out", "--allow-dirty"),
        ("eval", "mmp", *EVAL[:-2], "--limit", "12", "--out", "results"),
    ),
}
"""Folder → the commands that read it."""


def tables(draw: Draw, sound: Path, folder: Path) -> Case:
    """Damage a Parquet file of a data set, results or predictions, or a missing table."""
    which = draw(st.sampled_from(("digits", "results", "results", "table")))
    take(sound, folder, "digits", "mmp", "full", "results", "other", "table.parquet")
    if which == "table":
        file = folder / draw(st.sampled_from(("table.parquet", "table.csv", "table.pt")))
        if not file.exists():
            take(sound, folder, file.name)
        arguments = ("eval", "mmp", *EVAL[:-2], "--missing-table", file.name, "--out", "out")
    else:
        file = folder / draw(
            st.sampled_from(sorted(p.relative_to(folder) for p in (folder / which).rglob("*.parquet")))
        )
        arguments = draw(st.sampled_from(READERS[which]))
    note = damaged_table(draw, file) if draw(st.integers(0, 9)) else special(draw, file)
    return Case(arguments, f"{file.relative_to(folder)}: {note}")


def descriptions(draw: Draw, sound: Path, folder: Path) -> Case:
    """Damage the JSON metadata of a data set, results or predictions."""
    import pyarrow.parquet as pq

    which = draw(st.sampled_from(("digits", "results", "results")))
    take(sound, folder, "digits", "mmp", "full", "results", "other")
    arguments = draw(st.sampled_from(READERS[which]))
    if which == "digits":
        file = folder / "digits" / "dataset.json"
        if draw(st.integers(0, 9)):
            put(file, changed_json(draw, file.read_text(encoding="utf-8")))
            return Case(arguments, "dataset.json changed")
        return Case(arguments, f"dataset.json: {special(draw, file)}")
    files = sorted((folder / "results").rglob("*.parquet"))
    file = draw(st.sampled_from(files))
    table = pq.read_table(file)
    metadata = changed_json(draw, table.schema.metadata[b"mmrobust"].decode())
    changed = [file, *files] if draw(st.integers(0, 4)) == 0 else [file]  # one file, or the same text in all
    for each in changed:
        table = pq.read_table(each)
        each.unlink()
        pq.write_table(table.replace_schema_metadata({b"mmrobust": metadata}), each, write_page_checksum=True)
    return Case(arguments, f"provenance of {', '.join(sorted({c.name for c in changed}))} changed")


def media(draw: Draw, sound: Path, folder: Path) -> Case:
    """Damage images and recordings, in a data set or behind a manifest."""
    arguments, note = damaged_media(draw, sound, folder, READERS["digits"])
    return Case(arguments, note)


MODEL_FILES = ("config.json", "model.safetensors", "training.parquet")


def checkpoints(draw: Draw, sound: Path, folder: Path) -> Case:
    """Damage a checkpoint, its backbone, an unfinished training, or a file of a paper's own code."""
    take(sound, folder, "digits", "full", "mmp", "av")
    name = draw(st.sampled_from(("mmp", "full", "av")))
    file = draw(st.sampled_from(sorted(p for p in (folder / name).rglob("*") if p.is_file())))
    readers = (
        ("eval", name, *EVAL),
        ("audit", name, "--data", "digits", "--limit", "4", "--device", "cpu"),
        (
            "train",
            "--backbone",
            name,
            "--method",
            "none",
            "--modalities",
            "audio,image" if name == "av" else "image,text",
            *TRAIN,
        ),
        (
            "import",
            draw(st.sampled_from(("mmp", "dcp", "dpl", "cav-mae"))),
            str(file.relative_to(folder)),
            "--out",
            "out",
        ),
    )
    arguments = draw(st.sampled_from(readers))
    if draw(st.integers(0, 9)) == 0:
        return Case(arguments, f"{file.relative_to(folder)}: {special(draw, file)}")
    data = file.read_bytes()
    if file.suffix == ".json" and draw(st.integers(0, 3)):
        put(file, changed_json(draw, data.decode()))
        note = "JSON changed"
    elif file.suffix == ".safetensors" and draw(st.integers(0, 3)):
        put(file, _changed_tensors(draw, data))
        note = "header or tensors changed"
    elif draw(st.integers(0, 19)) == 0:
        put(file, pickle.dumps(_Evil()))
        note = "a pickle"
    else:
        put(file, changed_bytes(draw, data))
        note = "bytes changed"
    return Case(arguments, f"{file.relative_to(folder)}: {note}")


class _Evil:
    """Unpickling it runs a command."""

    def __reduce__(self) -> Any:
        return os.system, ("touch canary",)


def _changed_tensors(draw: Draw, data: bytes) -> bytes:
    """Return safetensors with a false header, or with NaN and infinite values."""
    (length,) = struct.unpack("<Q", data[:8])
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    if draw(st.booleans()):
        text = json.dumps(changed_value(draw, header)).encode("utf-8", "surrogatepass")
        size = draw(st.sampled_from((len(text), len(text), len(text), 0, 2**20, 2**62, len(text) - 1)))
        return struct.pack("<Q", size) + text + body
    name = draw(st.sampled_from(sorted(key for key in header if key != "__metadata__")))
    begin, end = header[name]["data_offsets"]
    fill = draw(st.sampled_from((b"\xff", b"\x00", b"\x7f", bytes(values_of(draw)))))
    return data[: 8 + length] + body[:begin] + (fill * (end - begin))[: end - begin] + body[end:]


def values_of(draw: Draw) -> bytes:
    """Draw the four bytes of an extreme float32."""
    return struct.pack("<f", draw(st.sampled_from((float("nan"), float("inf"), 3e38, -3e38, 1e-40))))


def manifests(draw: Draw, sound: Path, folder: Path) -> Case:
    """Damage a manifest: CSV, TSV, JSONL or Parquet."""
    from fuzzing.manifests import damaged_manifest

    take(sound, folder, "raw")
    name, note = damaged_manifest(draw, folder / "raw")
    more = draw(
        st.sampled_from(
            (
                *((), ("--allow-incomplete",), ("--task", "multi-label"), ("--limit", "2"), ("--dry-run",)),
                *(("--label-as-class",), ("--label-separator", ";"), ("--task", "binary"), ("--task", "single-label")),
                *(("--allow-incomplete", "--media-root", "raw"), ("--label-separator", ""), ("--media-root", "gone")),
            )
        )
    )
    if draw(st.integers(0, 19)) == 0:
        note = special(draw, folder / "raw" / name)
    return Case(("data", "prepare", "manifest", "--source", f"raw/{name}", "--out", "out", *more), f"{name}: {note}")


def predictions(draw: Draw, sound: Path, folder: Path) -> Case:
    """Write and damage predictions of another program."""
    from fuzzing.predictions import damaged_predictions
    from mmrobust.data.dataset import Dataset

    take(sound, folder, "digits")
    split = Dataset(sound / "digits").split("test")
    name, note = damaged_predictions(draw, folder, list(split.ids), split.info.classes)
    if draw(st.integers(0, 19)) == 0:
        note = special(draw, folder / name)
    more = draw(st.sampled_from(((), ("--scale", "probabilities"), ("--split", "train"), ("--modalities", "image"))))
    about = ("--data", "digits", "--name", "m", "--modalities", "image,text", "--missing-rate", "0,1", "--seeds", "1")
    return Case(("import", "predictions", name, *about, "--out", "out", *more), f"{name}: {note}")


ANSWERS = (
    *("None", "[]", "[[]]", "np.zeros((n, 10))", "np.zeros((n, 9))", "np.zeros((n + 1, 10))", "np.zeros(n)", "1 / 0"),
    *("np.full((n, 10), np.nan)", "np.full((n, 10), np.inf)", "np.full((n, 10), 1e300)", "np.zeros(())", "samples"),
    *("np.zeros((n, 10), dtype=object)", "np.zeros((n, 10), dtype='U3')", "np.zeros((n, 10), dtype=complex)", "case"),
    *("np.zeros((n, 10), dtype='M8[s]')", "np.zeros((n, 10), dtype='f2')", "np.zeros((n, 10), dtype='V4')", "'x' * n"),
    *("iter([[0] * 10] * n)", "[[0] * 10] * (n - 1) + [[0] * 9]", "[[10**400] * 10] * n", "[[True] * 10] * n", "n"),
    *("torch.zeros(n, 10, requires_grad=True)", "torch.zeros(n, 10).to_sparse()", "torch.zeros(n, 10, device='meta')"),
    *("torch.zeros(n, 10, dtype=torch.bfloat16)", "{'logits': np.zeros((n, 10))}", "(np.zeros((n, 10)),)", "print"),
    *(
        "np.ma.masked_all((n, 10))",
        "np.broadcast_to(0.0, (n, 10))",
        "np.zeros((n, 10))[:, ::-1]",
        "exec('raise SystemExit(3)')",
    ),
    *(
        "[].pop()",
        "exec('raise SystemExit(3)')",
        "exec('raise MemoryError')",
        "exec('raise BrokenPipeError')",
        "2**10000",
    ),
    *("exec('raise BrokenPipeError')", "[[None] * 10] * n", "{}"),
)
"""What the function of an own model may answer for n samples of ten classes."""


def own(draw: Draw, sound: Path, folder: Path) -> Case:
    """A model of the user's own whose function answers anything, or whose fields are anything."""
    take(sound, folder, "digits")
    fields = {
        "name": "'it'",
        "version": "'1'",
        "modalities": "['image', 'text']",
        "classes": "[str(c) for c in range(10)]",
        "task": "'single-label'",
        "knows_case": "True",
        "scale": "'logits'",
    }
    answer = draw(st.sampled_from(ANSWERS))
    if draw(st.booleans()):
        key = draw(st.sampled_from(sorted(fields)))
        texts = st.sampled_from(NASTY_TEXTS)
        fields[key] = repr(draw(st.one_of(scalars, texts, st.lists(texts, max_size=3), values)))
    made = ", ".join(f"{key}={value}" for key, value in fields.items())
    code = f"""import numpy as np, torch, mmrobust
def predict(samples, case):
    n = len(samples)
    return {answer}
model = mmrobust.Model({made}, predict=predict)
"""
    put(folder / "my_model.py", code.encode("utf-8", "surrogatepass"))
    grid = tuple(word for word in EVAL if word not in ("--device", "cpu"))  # which is for checkpoints
    return Case(("eval", "my_model.py:model", *grid), f"{answer}; {made:.200}")


def plans(draw: Draw, sound: Path, folder: Path) -> Case:
    """A plan under any scenario, rate or missing table."""
    take(sound, folder, "digits", "table.csv")
    file, note = folder / "table.csv", ""
    arguments = ["plan", "--data", "digits", "--out", "out", "--modalities", "image,text"]
    scenario = draw(st.one_of(st.sampled_from(NASTY_TEXTS), st.sampled_from(SCENARIOS))).replace("\0", "")
    rate = draw(st.sampled_from((*NUMBERS, "0:1:0.1", "0:1:1e-9", "1:0:0.1", "image=0.3,text=0.7", "0:1", ":", "0,,1")))
    for flag, value in (
        ("--scenario", scenario),
        ("--missing-rate", rate),
        ("--seeds", draw(st.sampled_from(NUMBERS))),
    ):
        if draw(st.booleans()):
            arguments += [f"{flag}={value}"]
    if draw(st.booleans()):
        note = damaged_table(draw, file) if draw(st.integers(0, 9)) else special(draw, file)
        arguments += ["--missing-table", file.name]
    arguments += ["--inputs"] * draw(st.booleans())
    return Case(tuple(arguments), note)


SCENARIOS = (
    "missing-both",
    "missing-text+noisy-image:blur@3",
    "missing-any",
    "missing-both:0.3",
    "noisy-both@9",
    "+",
    ":",
    "@",
)

KINDS: dict[str, Kind] = {
    "commands": commands,
    "settings": settings,
    "manifests": manifests,
    "predictions": predictions,
    "tables": tables,
    "descriptions": descriptions,
    "media": media,
    "checkpoints": checkpoints,
    "own": own,
    "plans": plans,
}

__all__ = ["KINDS", "Case", "values"]
