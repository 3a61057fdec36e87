"""``module:object`` and ``file.py:object``: what they name, what is imported, and what is said where there is none."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mmrobust.errors import ModelError
from mmrobust.models.own.source import Source

MODEL = """
import mmrobust

def predict(samples, case):
    return [[0.0, 1.0] for sample in samples]

def make(name="made", device="nowhere"):
    return mmrobust.Model(
        name=name, version="1", modalities=["text"], classes=["a", "b"], task="binary", predict=predict, device=device
    )

model = make("model")

class Several:
    best = make("best")

def plain():
    return make("plain")

def broken():
    raise ValueError("no weights\\nhere")

def ends():
    raise SystemExit(0)

def none():
    return None

number = 3
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working folder, with a module; what is imported from it is forgotten afterwards."""
    (tmp_path / "my_model.py").write_text(MODEL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "my_model", raising=False)  # of another test in this process
    modules, path = set(sys.modules), list(sys.path)
    yield tmp_path
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def load(text: str) -> str:
    source = Source.parse(text)
    assert source is not None
    return source.load().name


@pytest.mark.parametrize("place", ["my_model", "my_model.py", "./my_model.py"])
def test_a_model_or_a_function_that_makes_one(place: str) -> None:
    assert load(f"{place}:model") == "model"
    assert load(f"{place}:make") == "made"
    assert load(f"{place}:Several.best") == "best"


def test_a_function_is_given_the_device_if_it_takes_one() -> None:
    for name, device, takes in (("make", "cuda:1", True), ("plain", "nowhere", False), ("model", "nowhere", False)):
        source = Source.parse(f"my_model:{name}")
        assert source is not None
        assert (source.load("cuda:1").device, source.takes_device) == (device, takes)


@pytest.mark.parametrize(
    "text", ["runs/mmp", "openai/clip-vit-base-patch16", r"C:\runs\mmp", "results", ":model", "a:"]
)
def test_what_names_a_checkpoint_is_left_alone(text: str) -> None:
    assert Source.parse(text) is None


def test_a_folder_with_a_colon_is_a_folder(folder: Path) -> None:
    (folder / "runs:mmp").mkdir()
    assert Source.parse("runs:mmp") is None


@pytest.mark.parametrize(
    ("text", "module", "attribute"),
    [
        (r"C:\work\my_model.py:model", r"C:\work\my_model.py", "model"),
        ("/a:b/my_model.py:make.best", "/a:b/my_model.py", "make.best"),
        ("package.models:model", "package.models", "model"),
    ],
)
def test_the_object_follows_the_last_colon(text: str, module: str, attribute: str) -> None:
    source = Source.parse(text)
    assert source is not None
    assert (source.module, source.attribute, str(source)) == (module, attribute, text)


def test_paths_may_hold_colons_and_spaces(folder: Path) -> None:
    place = folder / "a: b" / "c:d"
    place.mkdir(parents=True)
    (place / "my model.py").write_text(MODEL)
    assert load(f"{place}/my model.py:model") == "model"


def test_two_files_of_one_name_are_two_modules(folder: Path) -> None:
    for name in ("one", "two"):
        (folder / name).mkdir()
        (folder / name / "json.py").write_text(MODEL.replace('make("model")', f'make("{name}")'))
    assert [load(f"{name}/json.py:model") for name in ("one", "two")] == ["one", "two"]
    import json

    assert json.loads("1") == 1


def test_modules_beside_a_file_are_found_and_hide_none(folder: Path) -> None:
    (folder / "inner").mkdir()
    (folder / "inner" / "beside.py").write_text(MODEL)
    (folder / "inner" / "late.py").write_text("name = 'late'\n")
    (folder / "inner" / "secrets.py").write_text("raise RuntimeError('the installed one was meant')\n")
    (folder / "inner" / "it.py").write_text(
        "from beside import model\n"
        "def make():\n    import late\n    from beside import make\n    return make(late.name)\n"
    )
    assert load("inner/it.py:model") == "model"
    assert load("inner/it.py:make") == "late"
    assert sys.path[0] != str(folder / "inner")
    assert sys.path[-1] == str(folder / "inner")


def test_only_what_is_named_is_imported(folder: Path) -> None:
    (folder / "other.py").write_text("raise RuntimeError('was imported')\n")
    (folder / "conftest.py").write_text("raise RuntimeError('was imported')\n")
    assert load("my_model:model") == "model"


def test_a_file_is_imported_once(folder: Path) -> None:
    (folder / "my_model.py").write_text(MODEL + "\nwith open('log', 'a') as log:\n    log.write('x')\n")
    load("my_model.py:model")
    load("my_model.py:make")
    assert (folder / "log").read_text() == "x"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("my_model:modle", r"my_model:modle: my_model has no 'modle'; it has model$"),
        ("my_model.py:Several.worst", r"my_model.py has no 'Several.worst'"),
        ("my_model.py:a-b", r"my_model.py has no 'a-b'"),
        ("my_model.py", r"my_model.py: say which object of the file is the model, as in my_model.py:model"),
        ("my_model:number", r"my_model:number: is an object of type int, neither a mmrobust.Model nor a function that"),
        ("my_model:Several", r"my_model:Several: is the class Several, neither"),
        ("functions.py:predict", r"is a predict function; wrap it: mmrobust.Model\(name=…, predict=predict, …\)"),
        ("my_model:none", r"my_model:none: the function returned an object of type NoneType, not a mmrobust.Model"),
        ("my_model:broken", r"my_model:broken: making the model raised ValueError: no weights here; --debug shows the"),
        ("my_model:ends", r"my_model:ends: making the model raised SystemExit: 0"),
        (
            "nowhere:model",
            r"nowhere:model: there is no module 'nowhere' here or installed; a file is named with its pa",
        ),
        ("my_model.inner:model", r"there is no module 'my_model.inner'"),
        ("nowhere/my_model.py:model", r"nowhere/my_model.py:model: there is no file nowhere/my_model.py"),
        ("wrong.py:model", r"wrong.py:model: importing it raised SyntaxError: "),
        ("needs.py:model", r"needs.py:model: importing it raised ModuleNotFoundError: No module named 'no_such'"),
        ("needs:model", r"needs:model: importing it raised ModuleNotFoundError: No module named 'no_such'"),
        ("task.py:model", r"^task.py:model: unknown task of model m: 'tsk': Known: "),
        ("empty.py:model", r"empty.py has no 'model'; it has no mmrobust.Model, and no function$"),
        ("functions.py:model", r"functions.py has no 'model'; it has make, other, predict$"),
    ],
)
def test_what_is_not_there_is_one_line(text: str, message: str, folder: Path) -> None:
    (folder / "wrong.py").write_text("def (:\n")
    (folder / "needs.py").write_text("import no_such\n")
    (folder / "empty.py").write_text("")
    (folder / "functions.py").write_text(
        "def make(): pass\ndef other(): pass\ndef _hidden(): pass\ndef predict(samples, case): pass\n"
    )
    (folder / "task.py").write_text(
        "import mmrobust\nmodel = mmrobust.Model(name='m', version='1', modalities=['text'], classes=['a', 'b'], "
        "task='tsk', predict=print)\n"
    )
    with pytest.raises(ModelError, match=message) as raised:
        load(text)
    assert "\n" not in str(raised.value)


def test_a_file_that_failed_is_imported_again(folder: Path) -> None:
    (folder / "later.py").write_text("import no_such\n")
    with pytest.raises(ModelError):
        load("later.py:model")
    (folder / "later.py").write_text(MODEL + "\n# longer, so that no bytecode of before is taken\n")
    assert load("later.py:model") == "model"
