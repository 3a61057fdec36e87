"""Evaluation and training under common corruptions and given missing tables."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

import mmrobust
from mmrobust.cases import Case
from mmrobust.data import Dataset
from mmrobust.data.decoding import SplitRecordings, decode
from mmrobust.data.encoded_split import EncodedSplit
from mmrobust.data.prepare.digits import CLASSES, prepare_digits
from mmrobust.data.writing import SampleRow, write_dataset
from mmrobust.degradations import Noise, degradation_of
from mmrobust.errors import DataError, UsageError
from mmrobust.evaluation.evaluate import evaluate_models, given_tables
from mmrobust.evaluation.plan import PredictionSettings
from mmrobust.models.checkpoint import load_checkpoint
from mmrobust.scenarios.draws import missing_table
from mmrobust.scenarios.grid import make_grid
from mmrobust.scenarios.missing_tables import write_missing_table
from mmrobust.scenarios.scenario import Scenario
from mmrobust.scoring.cell_values import resampled_values
from mmrobust.scoring.join import ScoringSettings
from mmrobust.scoring.rescore import CellChoice, rescore
from mmrobust.scoring.store import predictions_behind
from mmrobust.storage.results import Results, read_results
from mmrobust.training.loop import train
from mmrobust.training.recipe import Recipe, default_recipe
from mmrobust.training.settings import TrainSettings

PAIR = ("image", "text")
CORRUPTED = ("noisy-image:shot@5", "noisy-image:shot@2", "noisy-text:word-drop@2", "noisy-both")


def predictions(folder: Path) -> pd.DataFrame:
    return pd.concat([pq.read_table(path).to_pandas() for path in sorted((folder / "predictions").glob("*.parquet"))])


def run(checkpoint: Path, dataset: Dataset, out: Path, *scenarios: str, size: int = 64, **settings: object) -> Results:
    loaded = load_checkpoint(checkpoint)
    grid = make_grid(loaded.classifier.modalities, scenarios, (0.0, 1.0), 1, ("situation", "concat"))
    return evaluate_models({"it": loaded}, dataset, grid, out, settings=PredictionSettings(batch_size=size), **settings)


def test_corruptions_are_predicted_by_themselves_and_kept_apart(
    trained: Callable[..., Path], digits: Dataset, tmp_path: Path
) -> None:
    run(trained("none", "linear"), digits, tmp_path, *CORRUPTED)
    kept = predictions(tmp_path)
    assert set(kept.case) == {"complete", *CORRUPTED} and not kept.duplicated(["id", "case", "prompting"]).any()
    assert kept[kept.case == "complete"].noise_seed.isna().all()
    shards = {path: path.read_bytes() for path in (tmp_path / "predictions").iterdir()}
    run(trained("none", "linear"), digits, tmp_path, *CORRUPTED, "noisy-image:shot@4")
    assert all(path.read_bytes() == content for path, content in shards.items())
    more = predictions(tmp_path)
    assert set(more.case) - set(kept.case) == {"noisy-image:shot@4"} and len(more) == len(kept) + 60

    classifier = mmrobust.load(trained("none", "linear"))
    split = digits.split("test")
    for name in CORRUPTED[:3]:
        case = Case.parse(name, PAIR)
        samples = []
        for sample in split.read(range(10)):
            samples.append({m: decode(sample, m) for m in PAIR})
            (modality,) = case.degraded
            degradation = degradation_of(case, modality, sample.id, Noise())
            samples[-1][modality] = degradation.on_medium(samples[-1][modality])
        ours = classifier.logits(samples, case=name)
        theirs = np.stack(kept[kept.case == name].set_index("id").logits[list(split.ids[:10])])
        torch.testing.assert_close(ours, torch.from_numpy(theirs), rtol=0, atol=1e-5)


def test_batch_one_and_sixty_four_see_the_same(trained: Callable[..., Path], digits: Dataset, tmp_path: Path) -> None:
    frames = []
    for size in (1, 64):
        scenarios = ("noisy-audio:babble@3", "noisy-image:blur@5+noisy-audio:gaussian@2")
        run(trained("none", "linear", ("audio", "image")), digits, tmp_path / str(size), *scenarios, size=size)
        frames.append(predictions(tmp_path / str(size)).sort_values(["case", "prompting", "id"], ignore_index=True))
    assert frames[0][["id", "case"]].equals(frames[1][["id", "case"]])
    alone, together = (np.stack(frame.logits) for frame in frames)
    assert np.allclose(alone, together, rtol=0, atol=1e-5 * np.abs(together).max())


def test_a_split_degrades_media_alike_in_any_order_and_company(tiny: object, digits: Dataset) -> None:
    processor = tiny("tiny-cavmae").processor  # type: ignore[operator]
    split = digits.split("test")
    case = Case.parse("noisy-image:occlusion@3+noisy-audio:babble@3", ("audio", "image"))
    whole = EncodedSplit(split, processor, ("audio", "image"), "ones").samples(range(20), case)
    encoded = EncodedSplit(digits.split("test"), processor, ("audio", "image"), "ones")
    backwards = [encoded.samples([position], case)[0] for position in reversed(range(20))][::-1]
    for left, right in zip(whole, backwards, strict=True):
        assert all(torch.equal(left[m], right[m]) for m in left)
    clean = encoded.samples([3], Case.complete(("audio", "image")))[0]
    assert not any(torch.equal(clean[m], whole[3][m]) for m in clean)


def test_a_model_is_told_noisy_and_not_which_corruption(
    trained: Callable[..., Path], digits: Dataset, tmp_path: Path
) -> None:
    settings = TrainSettings(
        data=digits.folder,
        backbone=str(trained("full", "linear")),
        method="mmp",
        head="prototype",
        recipe=Recipe(epochs=1, batch_size=16, lr=1e-3),
        scenario="noisy-image:shot@4+noisy-text:word-drop@2",
        method_settings={"length": 2, "init": "normal"},
    )
    config = train(settings, tmp_path / "noisy")
    assert config.cases == ["complete", "noisy-image", "noisy-text", "noisy-both"]
    assert config.training["scenario"] == settings.scenario
    classifier = mmrobust.load(tmp_path / "noisy")
    assert classifier.told("noisy-image:blur@3", "situation") == ("noisy-image",)
    assert classifier.told("noisy-image:blur@3+noisy-text@2", "situation") == ("noisy-both",)
    assert len(classifier.told("noisy-image:blur@3", "concat")) == 4
    frame = run(tmp_path / "noisy", digits, tmp_path / "out", "noisy-image:contrast@5", "noisy-text:ocr@3").frame
    assert set(frame.scenario) == {"noisy-image:contrast@5", "noisy-text:ocr@3"}
    assert set(frame.prompting) == {"situation", "concat"}
    with pytest.raises(UsageError, match=r"trained for case 'missing-text', only for .* --prompting concat"):
        run(tmp_path / "noisy", digits, tmp_path / "other", "missing-text")


def test_case_wise_training_uses_the_corruption_that_the_scenario_names(
    trained: Callable[..., Path], digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[str] = set()
    true = EncodedSplit.packed

    def spied(self: EncodedSplit, positions: Any, modality: str, case: Case, noise: Noise | None = None) -> object:
        seen.add(case.name)
        return true(self, positions, modality, case, noise)

    monkeypatch.setattr(EncodedSplit, "packed", spied)
    settings = TrainSettings(
        data=digits.folder,
        backbone=str(trained("full", "linear", ("audio", "image"))),
        method="ptm",
        head="linear",
        recipe=default_recipe("ptm", "full").changed(epochs=1, batch_size=30, share=0.5),
        modalities=("audio", "image"),
        scenario="noisy-audio:babble@3",
        method_settings={"length": 2},
    )
    train(settings, tmp_path / "ptm")
    assert seen == {"complete", "noisy-audio:babble@3", "noisy-image", "noisy-audio:babble@3+noisy-image"}


def test_what_a_profile_has_no_noise_for_is_refused_before_anything_is_predicted(
    trained: Callable[..., Path], digits: Dataset, tmp_path: Path
) -> None:
    message = r"profile released has audio and image, but no noise for text, as case 'noisy-text' .* default has all"
    with pytest.raises(UsageError, match=message):
        run(trained("none", "linear"), digits, tmp_path / "out", "noisy-text", noise=Noise("released"))
    settings = TrainSettings(
        data=digits.folder,
        backbone=str(trained("full", "linear")),
        method="none",
        head="linear",
        recipe=Recipe(epochs=1),
        scenario="noisy-image",
        noise_profile="released",
    )
    with pytest.raises(UsageError, match=message):
        train(settings, tmp_path / "checkpoint")
    assert list(tmp_path.iterdir()) == []
    frame = run(trained("none", "linear"), digits, tmp_path / "out", "noisy-text:ocr@2", noise=Noise("released")).frame
    assert set(frame.scenario) == {"noisy-text:ocr@2"}


def natural(folder: Path, lacking: int) -> Dataset:
    """Digits, of whose test split the first samples have no text."""
    prepare_digits(folder / "source", limit=20)
    rows = [
        SampleRow("test", s.id, s.label, image=s.image, image_path="x", text=None if i < lacking else s.text)
        for i, s in enumerate(Dataset(folder / "source").split("test"))
    ]
    common = {"name": "some", "classes": CLASSES, "task": "single-label", "headline_metric": "accuracy"}
    write_dataset(folder / "data", rows, modalities=PAIR, licence="", source="", **common)
    return Dataset(folder / "data")


def test_what_is_missing_by_nature_is_neither_degraded_nor_filled_twice(
    trained: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = natural(tmp_path, 5)
    asked: list[tuple[str, bool]] = []
    true = EncodedSplit._encoded

    def spied(self: EncodedSplit, position: int, modality: str) -> torch.Tensor:
        asked.append((modality, position < 5))
        return true(self, position, modality)

    monkeypatch.setattr(EncodedSplit, "_encoded", spied)
    scenarios = ("noisy-text:ocr@3", "missing-text", "noisy-image:blur@2", "missing-both")
    frame = run(trained("none", "linear"), data, tmp_path / "out", *scenarios).frame
    assert ("text", True) not in asked
    kept = predictions(tmp_path / "out")
    lacking = kept[kept.id.isin(data.split("test").ids[:5])]
    assert set(lacking.case) == {"missing-text", "noisy-image:blur@2+missing-text"}
    assert set(frame.n_naturally_missing) == {5} and set(frame.n) == {20}
    at_once = frame[(frame.missing_rate == 1) & (frame.metric == "accuracy")].groupby("scenario").n_affected.first()
    assert dict(at_once) == {
        "noisy-text:ocr@3": 15,  # those that have a text to lose
        "missing-text": 15,
        "noisy-image:blur@2": 20,
        "missing-both": 15,  # without a text, the image is all there is
    }


@pytest.mark.parametrize("suffix", ["pt", "csv", "parquet"])
def test_a_given_table_is_one_more_scenario(
    trained: Callable[..., Path], digits: Dataset, tmp_path: Path, suffix: str
) -> None:
    """It scores as the drawn table that it was written from, and costs no prediction that is there already."""
    table = missing_table(digits.split("test").ids, Scenario.parse("missing-both", PAIR), 0.5, 1)
    write_missing_table(tmp_path / f"half.{suffix}", table, {})
    face = mmrobust.evaluate(
        mmrobust.load(trained("mmp", "linear")), digits, missing_table=tmp_path / f"half.{suffix}", seeds=2
    )
    (name,) = set(face.scenario)
    assert name.startswith("table:half@")
    assert set(face.missing_rate) == {0.5} and set(face.seed) == {0} and set(face.n_affected) == {30}
    drawn = mmrobust.evaluate(
        mmrobust.load(trained("mmp", "linear")), digits, scenarios=["missing-both"], rates=(0.5,), seeds=(1,)
    )
    both = face.merge(drawn, on=["prompting", "metric"])
    assert len(both) == len(face) == len(drawn) and (both.value_x == both.value_y).all()


def test_babble_of_a_limited_evaluation_is_that_of_the_whole(
    trained: Callable[..., Path], digits: Dataset, tmp_path: Path
) -> None:
    checkpoint = trained("none", "linear", ("audio", "image"))
    run(checkpoint, digits, tmp_path / "whole", "noisy-audio:babble@4")
    run(checkpoint, digits, tmp_path / "few", "noisy-audio:babble@4", limit=7)
    whole, few = (
        frame[frame.case == "noisy-audio:babble@4"].set_index("id").logits
        for frame in map(predictions, (tmp_path / "whole", tmp_path / "few"))
    )
    assert len(few) == 7 and len(SplitRecordings(digits.split("test")).ids) == 60
    assert np.allclose(np.stack(few), np.stack(whole[few.index]), rtol=0, atol=1e-5)


def test_a_given_table_is_kept_with_the_results_that_are_compared_later(
    trained: Callable[..., Path], digits: Dataset, tmp_path: Path
) -> None:
    """Its cells are scored again, sample by sample, with the file gone."""
    table = missing_table(digits.split("test").ids, Scenario.parse("missing-both", PAIR), 0.5, 1)
    write_missing_table(tmp_path / "half.csv", table, {})
    for head in ("linear", "prototype"):
        loaded = load_checkpoint(trained("none", head))
        given = given_tables([tmp_path / "half.csv"], digits.split("test"), PAIR)
        grid = make_grid(PAIR, None, (0.5,), 1, ("situation",), given)
        evaluate_models({head: loaded}, digits, grid, tmp_path / head, limit=40)
    (tmp_path / "half.csv").unlink()
    results = read_results(tmp_path / "linear")
    stored = predictions_behind(tmp_path / "linear", results, "linear")
    tables = stored.truth.draw(stored.cells)
    (value,) = resampled_values(stored, tables, "accuracy", np.ones((1, 40), dtype=np.float32))
    (row,) = results.frame[results.frame.metric == "accuracy"].itertuples()
    assert value[0] == row.value and row.n == 40
    again = rescore(tmp_path / "linear", CellChoice(), ScoringSettings(), out=tmp_path / "again")
    assert again.frame.equals(results.frame)
    assert [path.name for path in (tmp_path / "again" / "missing-tables").iterdir()]
    for kept in (tmp_path / "linear" / "missing-tables").iterdir():
        kept.unlink()
    with pytest.raises(DataError, match=r"linear: holds no missing table 'table:half@.*'; give its file to"):
        predictions_behind(tmp_path / "linear", results, "linear")


def test_predictions_are_known_by_all_that_decides_them(
    trained: Callable[..., Path], digits: Dataset, tmp_path: Path
) -> None:
    """Profile, noise seed, name and severity each make other predictions, which one folder keeps apart."""
    cases = ("noisy-image", "noisy-image:shot@2", "noisy-image:shot@5", "noisy-image:blur@5")
    noises = (Noise(), Noise(seed=1), Noise("released"))
    read: dict[tuple[str, str, int], np.ndarray] = {}
    for noise in noises:
        (tmp_path / "all" / "results.parquet").unlink(missing_ok=True)  # as where each was killed before its table
        results = run(trained("none", "linear"), digits, tmp_path / "all", *cases, noise=noise, limit=8)
        assert results.provenance["noise"] == {"profile": noise.profile, "seed": noise.seed}
        stored = predictions_behind(tmp_path / "all", results, "it")
        assert stored.noise == results.provenance["noise"]
        read |= {(case, noise.profile, noise.seed): stored.logits[case, "situation"] for case in cases}

    # One noise alone gives what it gave among the others, bit for bit; what has no noise was predicted once.
    alone = run(trained("none", "linear"), digits, tmp_path / "alone", *cases, noise=noises[1], limit=8)
    own = predictions_behind(tmp_path / "alone", alone, "it")
    for case in cases:
        assert np.array_equal(own.logits[case, "situation"], read[case, "default", 1])
    kept = predictions(tmp_path / "all")
    assert (kept[kept.case == "complete"].groupby("id").size() == 1).all()
    assert (kept[kept.case != "complete"].groupby(["id", "case"]).size() == len(noises)).all()

    # Any two differ, but for the profile of a corruption that the case names.
    for left, first in read.items():
        for right, second in read.items():
            named = ":" in left[0] and (left[0], left[2]) == (right[0], right[2])
            seedless = left[0] == right[0] == "noisy-image:blur@5"  # a blur draws nothing
            if left != right and not seedless:
                assert np.array_equal(first, second) == named, (left, right)

    (tmp_path / "all" / "results.parquet").unlink()
    with pytest.raises(DataError, match=r"under several noises .*default with seed 0, default with seed 1, released"):
        rescore(tmp_path / "all", CellChoice(), ScoringSettings())


def test_results_under_other_noise_are_neither_mixed_nor_compared(
    cli: Callable[..., object], trained: Callable[..., Path], digits: Dataset, tmp_path: Path
) -> None:
    for seed in (0, 1):
        run(trained("none", "linear"), digits, tmp_path / str(seed), "noisy-image:shot@2", noise=Noise(seed=seed))
    with pytest.raises(UsageError, match="under noise profile default, seed 0, these would be under default, seed 1"):
        run(trained("none", "linear"), digits, tmp_path / "0", "noisy-image:shot@2", noise=Noise(seed=1))
    code, _, err = cli("check", tmp_path / "1", "--baseline", tmp_path / "0")  # type: ignore[misc]
    assert code == 2
    assert "the noise differs: candidate default, seed 1, baseline default, seed 0" in err
