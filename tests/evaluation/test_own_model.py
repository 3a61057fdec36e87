"""Models of a user's own, evaluated like a checkpoint: the examples, against a loop that knows nothing of mmrobust."""

from __future__ import annotations

import csv
import io
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image

import mmrobust
from mmrobust.data import Dataset
from mmrobust.data.prepare.digits import prepare_digits
from mmrobust.data.writing import SampleRow, write_dataset
from mmrobust.errors import DataError, ModelError, Unfinished, UsageError
from mmrobust.evaluation import plan
from mmrobust.evaluation.evaluate import evaluate_models
from mmrobust.evaluation.plan import PredictionSettings, WorkShare
from mmrobust.models.checkpoint import load_checkpoint
from mmrobust.models.own import own_model
from mmrobust.models.own.own_model import OwnModel
from mmrobust.models.own.source import Source
from mmrobust.runtime.devices import BatchSize
from mmrobust.runtime.ray_cluster import connected
from mmrobust.scenarios.grid import Grid
from mmrobust.scoring import writer
from mmrobust.storage.results import read_results

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
GRID = Grid(("missing-text", "missing-both"), (0.0, 0.5, 1.0), (0, 1))
OUTSIDE = {
    "cnn-gru": "own_model.py:model",
    "pixels-tfidf": "own_model_sklearn.py:model",
    "zero-shot": "own_model_zero_shot.py:digits",
}


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a data set and the examples' models trained on it."""
    folder = tmp_path_factory.mktemp("outside")
    prepare_digits(folder / "data", limit=300)
    for script in ("own_model.py", "own_model_sklearn.py"):
        subprocess.run([sys.executable, EXAMPLES / script, "data"], cwd=folder, check=True, capture_output=True)
    return folder


@pytest.fixture
def sources(outside: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Name → what the command line is given. The working folder is the one with the weights."""
    monkeypatch.chdir(outside)
    return {name: f"{EXAMPLES / text}" for name, text in OUTSIDE.items()}


def loaded(text: str) -> mmrobust.Model:
    source = Source.parse(text)
    assert source is not None
    return source.load()


def test_python_and_the_command_line_agree_to_the_last_digit(
    cli: Callable[..., Any], sources: dict[str, str], outside: Path, tmp_path: Path
) -> None:
    rates = "0,0.3,1"
    outcome = cli("eval", *sources.values(), "--data", "data", "--missing-rate", rates, "--out", tmp_path / "cli")
    assert outcome.code == 0, outcome.err
    by_command = read_results(tmp_path / "cli").frame
    assert set(by_command.checkpoint) == set(sources)
    for name, text in sources.items():
        model = loaded(text)
        stored = mmrobust.evaluate(model, "data", rates=(0.0, 0.3, 1.0), out=tmp_path / name)
        expected = by_command[by_command.checkpoint == name].reset_index(drop=True)
        pd.testing.assert_frame_equal(stored, expected, check_exact=True)
        keys = ["scenario", "missing_rate", "seed", "prompting", "metric"]
        in_memory = mmrobust.evaluate(model, Dataset("data"), rates=(0.0, 0.3, 1.0))
        pd.testing.assert_frame_equal(
            in_memory.sort_values(keys).reset_index(drop=True),
            stored.sort_values(keys)[in_memory.columns].reset_index(drop=True),
            check_exact=True,
        )


def raw_samples(folder: Path) -> list[tuple[str, int, dict[str, Any]]]:
    """(id, label, sample) of the test split, read with pyarrow and Pillow alone."""
    table = pq.read_table(sorted(folder.glob("test-*.parquet"))[0]).to_pylist()
    return [(row["id"], row["label"], {"image": picture(row["image"]["bytes"]), "text": row["text"]}) for row in table]


def picture(content: bytes) -> Image.Image:
    """An emoji is transparent; on white it is what any viewer shows."""
    image = Image.open(io.BytesIO(content))
    if image.mode in ("P", "RGBA", "LA"):
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def macro_f1(truth: np.ndarray, found: np.ndarray, classes: int) -> float:
    of_class = []
    for name in range(classes):
        hits = np.sum((found == name) & (truth == name))
        of_class.append(2 * hits / max(1, np.sum(found == name) + np.sum(truth == name)))
    return float(np.mean(of_class))


@pytest.mark.parametrize("name", list(OUTSIDE))
def test_every_cell_is_what_a_naive_loop_gives(
    cli: Callable[..., Any], sources: dict[str, str], tmp_path: Path, name: str
) -> None:
    model, samples = loaded(sources[name]), raw_samples(Path("data"))
    table = mmrobust.evaluate(
        model, "data", scenarios=["missing-text", "missing-both"], rates=(0.0, 0.4, 1.0), seeds=2, prompting=["concat"]
    )
    cells = table.groupby(["scenario", "missing_rate", "seed"])
    assert len(cells) == 2 * 3 * 2
    for (scenario, rate, seed), rows in cells:
        drawn = ("--scenario", scenario, "--missing-rate", rate, "--seed", seed, "--modalities", "image,text")
        case_of = dict(csv.reader(io.StringIO(cli("data", "missing-table", "data", *drawn).out)))
        truth, found = [], []
        for sample_id, label, sample in samples:
            lost = case_of[sample_id].removeprefix("missing-")
            given = {modality: None if modality == lost else medium for modality, medium in sample.items()}
            scores = np.asarray(model.predict([given], None))
            truth.append(label)
            found.append(int(scores[0].argmax()))
        value = rows.set_index("metric").value
        assert value["accuracy"] == pytest.approx(np.mean(np.equal(truth, found)), abs=1e-12)
        expected = macro_f1(np.asarray(truth), np.asarray(found), len(model.classes))
        assert value["macro_f1"] == pytest.approx(expected, abs=1e-12)


# --- what the function gets ------------------------------------------------------------------------------------------


class Seen:
    """A function that writes down what it is given, and always says class 0."""

    def __init__(self) -> None:
        self.calls: list[tuple[str | None, list[dict[str, Any]]]] = []

    def __call__(self, samples: list[dict[str, Any]], case: str | None) -> np.ndarray:
        self.calls.append((case, samples))
        return np.eye(10)[[0] * len(samples)]

    @property
    def sizes(self) -> list[int]:
        return [len(samples) for _, samples in self.calls]

    @property
    def samples(self) -> list[dict[str, Any]]:
        return [sample for _, samples in self.calls for sample in samples]


CLASSES = tuple("0123456789")


def made(predict: Callable[..., Any], **fields: Any) -> mmrobust.Model:
    settled: dict[str, Any] = {
        "name": "mine",
        "version": "1",
        "modalities": ("image", "text"),
        "classes": CLASSES,
        "task": "single-label",
        **fields,
    }
    return mmrobust.Model(predict=predict, **settled)


def test_each_sample_is_asked_for_once_in_each_case(digits: Dataset) -> None:
    seen = Seen()
    mmrobust.evaluate(made(seen), digits, seeds=3, batch_size=16)
    states = Counter((sample["text"] or "", sample["image"] and sample["image"].tobytes()) for sample in seen.samples)
    assert len(seen.samples) == 3 * 60  # the third scenario has no case of its own
    assert sum(sample["text"] is None for sample in seen.samples) == 60
    assert sum(sample["image"] is None for sample in seen.samples) == 60
    assert all(set(sample) == {"image", "text"} for sample in seen.samples)
    assert max(states.values()) < 60
    assert max(seen.sizes) == 16
    assert {case for case, _ in seen.calls} == {None}


def test_a_batch_is_of_one_case(digits: Dataset) -> None:
    seen = Seen()
    mmrobust.evaluate(made(seen), digits, batch_size=7)
    for _, samples in seen.calls:
        assert len({tuple(medium is None for medium in sample.values()) for sample in samples}) == 1


def test_it_is_told_the_case_under_situation_prompting_alone(digits: Dataset) -> None:
    seen = Seen()
    scenarios = ["missing-text", "noisy-image:blur@2"]
    mmrobust.evaluate(made(seen, knows_case=True), digits, scenarios=scenarios, rates=(0.0, 1.0), seeds=1)
    told = Counter(case for case, samples in seen.calls for _ in samples)
    assert told == {"complete": 60, "missing-text": 60, "noisy-image": 60, None: 180}
    for case, samples in seen.calls:
        if case is not None:
            assert all((sample["text"] is None) == (case == "missing-text") for sample in samples)


def test_fills_stand_in_for_what_is_missing(digits: Dataset) -> None:
    seen = Seen()
    grey = Image.new("RGB", (3, 3), "grey")
    mmrobust.evaluate(made(seen, fill={"image": grey, "text": "…"}), digits, rates=(1.0,), seeds=1)
    assert sum(sample["text"] == "…" for sample in seen.samples) == 60
    filled = [sample["image"] for sample in seen.samples if sample["image"].size == (3, 3)]
    assert len(filled) == 60 and all(picture.tobytes() == grey.tobytes() for picture in filled)
    assert len({id(picture) for picture in filled}) == 60


def test_changing_a_sample_changes_no_other_prediction(digits: Dataset) -> None:
    def careless(samples: list[dict[str, Any]], case: str | None) -> np.ndarray:
        scores = np.zeros((len(samples), 10))
        for row, sample in enumerate(samples):
            if sample["image"] is not None:
                scores[row, int(np.asarray(sample["image"]).sum()) % 10] = 1
                sample["image"].paste("red", (0, 0, 8, 8))
                sample["image"].thumbnail((2, 2))
            sample["text"] = None
        samples.clear()
        return scores

    def careful(samples: list[dict[str, Any]], case: str | None) -> np.ndarray:
        return careless([{k: v and getattr(v, "copy", lambda v=v: v)() for k, v in s.items()} for s in samples], case)

    tables = [mmrobust.evaluate(made(predict), digits, seeds=1) for predict in (careless, careful)]
    pd.testing.assert_frame_equal(*tables, check_exact=True)


@pytest.fixture
def gappy(digits: Dataset, tmp_path: Path) -> Dataset:
    """Twelve samples of digits, of which two lack a text and one a picture by nature."""
    rows = []
    for position, sample in enumerate(digits.split("test").read(list(range(12)))):
        rows.append(
            SampleRow(
                "test",
                sample.id,
                sample.label,
                image=None if position == 5 else sample.image,
                image_path="x.png",
                text=None if position in (2, 9) else sample.text,
            )
        )
    about = {"task": "single-label", "headline_metric": "accuracy", "licence": "", "source": ""}
    write_dataset(tmp_path / "gappy", rows, name="gappy", modalities=("image", "text"), classes=CLASSES, **about)
    return Dataset(tmp_path / "gappy")


def test_what_is_missing_by_nature_is_missing_in_every_case(gappy: Dataset) -> None:
    seen = Seen()
    table = mmrobust.evaluate(made(seen), gappy, scenarios=["missing-image"], rates=(0.0, 1.0), seeds=1)
    assert set(table.n_naturally_missing) == {3}
    texts = [sample.text for sample in gappy.split("test")]
    without = [sample for sample in seen.samples if sample["text"] is None]
    # The two without a text keep their picture under missing-image: nothing would be left of them.
    assert len(without) == 2 and all(sample["image"] is not None for sample in without)
    assert len(seen.samples) == 9 + 2 + 1 + 9
    assert texts.count(None) == 2


def test_bad_samples_are_treated_as_asked(gappy: Dataset) -> None:
    (file,) = gappy.folder.glob("test-*.parquet")
    table = pq.read_table(file)
    images = table["image"].to_pylist()
    images[7] = {"bytes": b"no picture", "path": "x.png"}
    column = table.schema.get_field_index("image")
    broken = table.set_column(column, table.schema.field(column), [pd.Series(images).tolist()])
    pq.write_table(broken, file)
    with pytest.raises(DataError, match=r"is not a picture"):
        mmrobust.evaluate(made(Seen()), gappy)
    seen = Seen()
    table = mmrobust.evaluate(made(seen), gappy, rates=(0.0,), seeds=1, on_bad_sample="skip")
    assert set(table.n) == {11} and len(seen.samples) == 11


def test_noise_profiles_do_not_degrade_recordings(digits: Dataset) -> None:
    model = made(Seen(), modalities=("audio", "text"))
    with pytest.raises(UsageError, match=r"case 'noisy-audio': a noise profile .* name a corruption"):
        mmrobust.evaluate(model, digits, scenarios=["noisy-audio"])
    mmrobust.evaluate(model, digits, scenarios=["noisy-audio:babble@3"], rates=(1.0,), seeds=1)


# --- classes, tasks, scales ------------------------------------------------------------------------------------------


def test_classes_are_matched_by_name(digits: Dataset) -> None:
    order = tuple("3141592650"[:1]) + tuple(c for c in reversed(CLASSES) if c != "3")

    def knows(names: tuple[str, ...]) -> Callable[..., Any]:
        words = ("zero null cero zéro", "one eins un uno", "two zwei deux dos due", "three drei trois tres tre",
                 "four vier quatre", "five", "six", "seven", "eight", "nine")  # fmt: skip

        def predict(samples: list[dict[str, Any]], case: str | None) -> list[list[float]]:
            said = [set((sample["text"] or "").split()) for sample in samples]
            return [[len(found & set(words[int(name)].split())) + int(name) / 100 for name in names] for found in said]

        return predict

    straight = mmrobust.evaluate(made(knows(CLASSES)), digits, seeds=1)
    permuted = mmrobust.evaluate(made(knows(order), classes=order), digits, seeds=1)
    pd.testing.assert_frame_equal(straight, permuted, check_exact=True)
    assert straight.value.nunique() > 2


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"classes": (*CLASSES[:9], "ten")},
            r"mine: knows 10 single-label classes .*: 'ten' is only in the model, '9' is only in the data$",
        ),
        ({"classes": (*CLASSES, "ten")}, r"mine: knows 11 .*: 'ten' is only in the model$"),
        ({"task": "multi-label"}, r"mine: knows 10 multi-label classes \(0, 1, 2 …\), .* has 10 single-label classes"),
    ],
)
def test_data_that_do_not_fit_are_one_line(digits: Dataset, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        mmrobust.evaluate(made(Seen(), **fields), digits)


@pytest.mark.parametrize(("task", "classes"), [("binary", ("no", "yes")), ("multi-label", ("a", "b", "c"))])
def test_other_tasks(digits: Dataset, tmp_path: Path, task: str, classes: tuple[str, ...]) -> None:
    rows = [
        SampleRow(
            "test",
            sample.id,
            (sample.label[0] % 2,)
            if task == "binary"
            else tuple(c for c in range(3) if sample.label[0] % (c + 2) == 0),
            image=sample.image,
            image_path="x.png",
            text=str(digit),
        )
        for sample in digits.split("test")
        for digit in sample.label
    ]
    metric = {"binary": "auroc", "multi-label": "map"}[task]
    about = {"task": task, "headline_metric": metric, "licence": "", "source": ""}
    write_dataset(tmp_path / "data", rows, name="made", modalities=("image", "text"), classes=classes, **about)

    def right(samples: list[dict[str, Any]], case: str | None) -> list[list[float]]:
        digit = [int(sample["text"] or 0) for sample in samples]
        if task == "binary":
            return [[1 - n % 2, n % 2] for n in digit]
        return [[float(n % 2 == 0), float(n % 3 == 0), float(n % 4 == 0)] for n in digit]

    model = made(right, classes=classes, task=task, scale="probabilities")
    table = mmrobust.evaluate(model, tmp_path / "data", scenarios=["missing-text"], rates=(0.0, 1.0), seeds=1)
    values = table[table.metric == metric].groupby("missing_rate").value.max()
    assert values[0.0] == 1
    assert values[1.0] < 1


def test_probabilities_and_their_logarithm_are_the_same(digits: Dataset) -> None:
    def probabilities(samples: list[dict[str, Any]], case: str | None) -> np.ndarray:
        lengths = np.asarray([len(sample["text"] or "") for sample in samples])
        scores = np.exp(-np.abs(lengths[:, None] - np.arange(10)))
        return scores / scores.sum(1, keepdims=True)

    ours = mmrobust.evaluate(made(probabilities, scale="probabilities"), digits, seeds=1)
    logs = mmrobust.evaluate(made(lambda samples, case: np.log(probabilities(samples, case))), digits, seeds=1)
    np.testing.assert_allclose(ours.value, logs.value)


# --- what goes wrong -------------------------------------------------------------------------------------------------


def fails(samples: list[dict[str, Any]], case: str | None) -> Any:
    return [sample["image"].size for sample in samples]


@pytest.mark.parametrize(
    ("predict", "message"),
    [
        (fails, r"mine: predict raised AttributeError: 'NoneType' object has no attribute 'size' \(in case "
         r"'missing-image', from sample 'digit-\d+' on\); image may be None there, unless fill"),
        (lambda samples, case: np.zeros((len(samples), 9)), r"mine: predict returned 16 × 9 in case 'complete', from "
         r"sample 'digit-\d+' on; it must return samples × classes, 16 × 10"),
        (lambda samples, case: np.zeros(len(samples)), r"returned 16 in case .*: scores of every class, not the"),
        (lambda samples, case: np.zeros((3, 10)), r"mine: predict returned 3 rows for 16 samples in case 'complete'"),
        (lambda samples, case: np.full((len(samples), 10), np.nan), r"returned NaN in case 'complete' for sample"),
        (lambda samples, case: sys.exit(0), r"mine: predict raised SystemExit: 0"),
        (lambda samples: 0, r"mine: predict raised TypeError: .*takes 1 positional argument but 2 were given"),
    ],
)  # fmt: skip
def test_a_function_that_fails_is_one_line(digits: Dataset, predict: Callable[..., Any], message: str) -> None:
    model = made(predict) if predict is not fails else made(lambda s, c: np.zeros((len(fails(s, c)), 10)))
    with pytest.raises(ModelError, match=message) as raised:
        mmrobust.evaluate(model, digits, batch_size=16)
    assert "\n" not in str(raised.value)


def test_a_message_names_the_prompting_where_there_are_two(digits: Dataset) -> None:
    def refuses(samples: list[dict[str, Any]], case: str | None) -> Any:
        if case is None:
            raise ValueError
        return np.zeros((len(samples), 10))

    with pytest.raises(ModelError, match=r"predict raised ValueError \(in case 'complete' under concat, from sample"):
        mmrobust.evaluate(made(refuses, knows_case=True), digits)


def test_too_little_memory_is_left_to_the_command(digits: Dataset, tmp_path: Path) -> None:
    import torch

    from mmrobust.errors import DeviceError

    def large(samples: list[dict[str, Any]], case: str | None) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(DeviceError, match=r"device cpu has too little memory .*use a smaller --batch-size"):
        mmrobust.evaluate(made(large), digits, out=tmp_path)


def test_what_is_no_model_is_one_line(digits: Dataset) -> None:
    with pytest.raises(UsageError, match=r"a function cannot be evaluated; give a classifier .* or a mmrobust.Model"):
        mmrobust.evaluate(fails, digits)


def test_a_checkpoint_is_stored_under_the_name_of_its_folder(
    trained: Callable[..., Path], digits: Dataset, tmp_path: Path
) -> None:
    checkpoint = load_checkpoint(trained("none", "linear"))
    stored = mmrobust.evaluate(checkpoint, digits, rates=(0.0, 1.0), seeds=1, out=tmp_path)
    assert set(stored.checkpoint) == {"none-linear-image-text"}
    assert list((tmp_path / "predictions").glob("*.parquet"))


def test_a_bare_classifier_is_not_stored(classifier: Callable[..., Any], digits: Dataset, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"predictions of a bare classifier cannot be stored; give a checkpoint"):
        mmrobust.evaluate(classifier("tiny-vilt"), digits, out=tmp_path)


# --- kept, resumed, shared -------------------------------------------------------------------------------------------


@pytest.fixture
def small_stretches(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (own_model, plan):
        monkeypatch.setattr(module, "STRETCH_SAMPLES", 12)
    monkeypatch.setattr(writer, "FLUSH_SECONDS", 0.0)


def scores(samples: list[dict[str, Any]], case: str | None) -> np.ndarray:
    """Different for every sample and case."""
    found = np.zeros((len(samples), 10), dtype=np.float32)
    for row, sample in enumerate(samples):
        found[row] += np.sin(len(sample["text"] or "") * np.arange(10) + 1)
        if sample["image"] is not None:
            found[row] += np.cos(np.asarray(sample["image"]).mean() * np.arange(10))
    return found


def test_nothing_is_asked_for_twice(digits: Dataset, tmp_path: Path) -> None:
    seen = Seen()
    first = mmrobust.evaluate(made(seen), digits, rates=(0.0, 1.0), seeds=1, out=tmp_path)
    asked = len(seen.calls)
    again = mmrobust.evaluate(made(seen), digits, rates=(0.0, 1.0), seeds=1, out=tmp_path)
    more = mmrobust.evaluate(made(seen), digits, rates=(0.5,), seeds=2, out=tmp_path)
    assert asked == len(seen.calls)
    pd.testing.assert_frame_equal(first, again, check_exact=True)
    assert set(more.missing_rate) == {0.0, 0.5, 1.0}
    held = read_results(tmp_path).provenance["checkpoints"]["mine"]
    assert held["own"] == {"name": "mine", "version": "1", "scale": "logits", "fill": {}}
    mmrobust.evaluate(made(seen, version="2"), digits, rates=(0.0, 1.0), seeds=1, out=tmp_path)
    assert len(seen.calls) == 2 * asked


def test_the_batch_size_changes_nothing(digits: Dataset) -> None:
    tables = [mmrobust.evaluate(made(scores), digits, seeds=1, batch_size=size) for size in (1, 7, 500)]
    for table in tables[1:]:
        pd.testing.assert_frame_equal(table, tables[0], check_exact=True)


@pytest.mark.usefixtures("small_stretches")
def test_two_shards_make_the_table_of_the_whole(digits: Dataset, tmp_path: Path) -> None:
    seen: list[int] = []

    def counted(samples: list[dict[str, Any]], case: str | None) -> np.ndarray:
        seen.append(len(samples))
        return scores(samples, case)

    models = {"mine": OwnModel(made(counted))}
    whole = evaluate_models(models, digits, GRID, tmp_path / "whole").frame
    asked = sum(seen)
    with pytest.raises(Unfinished):
        evaluate_models(models, digits, GRID, tmp_path / "two", settings=PredictionSettings(share=WorkShare(2, 2)))
    half = sum(seen) - asked
    assert 0 < half < asked
    two = evaluate_models(models, digits, GRID, tmp_path / "two", settings=PredictionSettings(share=WorkShare(1, 2)))
    assert sum(seen) == 2 * asked
    pd.testing.assert_frame_equal(two.frame, whole, check_exact=True)


KILLED = """
import os, signal, sys
from pathlib import Path
import numpy as np
import mmrobust
from mmrobust.scoring import writer

writer.FLUSH_SECONDS = 0.0

def predict(samples, case):
    with Path("log").open("a") as log:
        log.write("".join(f"{sample['text']} {sample['image'] is None}\\n" for sample in samples))
    if os.environ.get("KILL_AFTER") == str(Path("log").read_text().count("\\n")):
        os.kill(os.getpid(), signal.SIGKILL)
    found = np.zeros((len(samples), 10))
    for row, sample in enumerate(samples):
        found[row] = np.sin(len(sample["text"] or "") * np.arange(10) + 1)
        if sample["image"] is not None:
            found[row] += np.cos(np.asarray(sample["image"]).mean() * np.arange(10))
    return found

model = mmrobust.Model(
    name="killed", version="1", modalities=["image", "text"], classes=list("0123456789"), task="single-label",
    predict=predict,
)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="kills a process as POSIX does")
def test_killed_and_resumed(digits: Dataset, tmp_path: Path) -> None:
    (tmp_path / "killed.py").write_text(KILLED)
    command = [sys.executable, "-m", "mmrobust", "eval", "killed.py:model", "--data", digits.folder, "--quiet"]
    command += ["--missing-rate", "0,1", "--batch-size", "10"]

    def run(out: str, **environment: str) -> int:
        done = subprocess.run([*command, "--out", out], cwd=tmp_path, env={**os.environ, **environment}, check=False)
        return done.returncode

    assert run("whole") == 0
    whole = (tmp_path / "log").read_text().splitlines()
    assert len(whole) == 180
    (tmp_path / "log").unlink()
    assert run("again", KILL_AFTER="60") == -signal.SIGKILL
    assert not (tmp_path / "again" / "results.parquet").exists()
    assert run("again", KILL_AFTER="130") == -signal.SIGKILL
    assert run("again") == 0
    made_twice = Counter((tmp_path / "log").read_text().splitlines()) - Counter(whole)
    assert made_twice.total() == 2 * 10  # the batch that each kill interrupted
    frames = [read_results(tmp_path / out).frame for out in ("whole", "again")]
    pd.testing.assert_frame_equal(*frames, check_exact=True)


@pytest.fixture
def ray_free() -> Iterator[None]:
    """Ray, which a test needs, and which is shut down again."""
    ray = pytest.importorskip("ray")
    pytest.importorskip("ray.data")
    yield
    ray.shutdown()


@pytest.mark.usefixtures("ray_free", "small_stretches")
def test_on_ray_it_makes_the_same_table(
    cli: Callable[..., Any], digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_ray = pytest.importorskip("mmrobust.evaluation.on_ray")
    monkeypatch.setattr(on_ray, "STRETCH_SAMPLES", 12)
    monkeypatch.chdir(tmp_path)
    Path("weights").write_text("3")  # a relative path in the user's code
    further = "import dataclasses\nfailing = dataclasses.replace(model, predict=print)\nPath('weights').read_text()\n"
    Path("mine.py").write_text(f"{KILLED}\n{further}")
    flags = ("--data", digits.folder, "--missing-rate", "0,1", "--seeds", 1, "--quiet")
    assert cli("eval", "mine.py:model", *flags, "--out", "local").code == 0
    with connected(None, 4):  # one cluster for all three
        outcome = cli("eval", "mine.py:model", *flags, "--engine", "ray", "--ray-workers", 2, "--out", "ray")
        assert outcome.code == 0, outcome.err
        frames = [read_results(Path(out)).frame for out in ("local", "ray")]
        pd.testing.assert_frame_equal(*frames, check_exact=True)
        outcome = cli("eval", "./mine.py:failing", *flags, "--engine", "ray", "--ray-workers", 1, "--out", "failing")
        assert outcome.code == 2 and len(outcome.err.splitlines()) == 1
        said = "a Ray worker failed: killed: predict returned NoneType in case 'complete', for sample 'digit-"
        assert said in outcome.err
        # A model that was made in this process is sent to the workers.
        models = {"killed": OwnModel(made(scores, name="killed"))}
        grid = Grid(("missing-text",), (0.0, 1.0), (0,))
        sent = evaluate_models(
            models, digits, grid, Path("sent"), settings=PredictionSettings(engine="ray", ray_workers=1)
        ).frame
    here = evaluate_models(models, digits, grid, Path("here")).frame
    pd.testing.assert_frame_equal(sent, here, check_exact=True)


def test_a_few_batches_are_ahead_and_no_more(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[int] = []
    load = own_model.DecodedSplit.load

    def counted(self: Any, requests: Any) -> Iterator[Any]:
        for samples in load(self, requests):
            decoded.extend(samples)
            yield samples

    monkeypatch.setattr(own_model.DecodedSplit, "load", counted)
    ahead: list[int] = []
    done = [0]

    def slow(samples: list[dict[str, Any]], case: str | None) -> np.ndarray:
        ahead.append(len(decoded) - done[0])
        done[0] += len(samples)
        return np.zeros((len(samples), 10))

    mmrobust.evaluate(made(slow), digits, scenarios=["missing-text"], rates=(0.0,), batch_size=BatchSize(4))
    assert sorted(decoded) == list(range(60))  # each sample is decoded once
    assert max(ahead) <= 5 * 4
