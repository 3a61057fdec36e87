"""Evaluation: a grid is a join, and the join equals running every cell by itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

import mmrobust
from mmrobust.cases import Case
from mmrobust.data import Dataset
from mmrobust.data.encoded_split import EncodedSplit
from mmrobust.data.prepare.digits import prepare_digits
from mmrobust.degradations import Noise
from mmrobust.errors import UsageError
from mmrobust.evaluation.evaluate import evaluate_models
from mmrobust.evaluation.plan import DrawnGrid, PredictionSettings
from mmrobust.models.checkpoint import load_checkpoint
from mmrobust.scenarios.draws import missing_table
from mmrobust.scenarios.grid import Grid, make_grid
from mmrobust.scenarios.scenario import Scenario
from mmrobust.scoring.truth import SplitTruth
from mmrobust.storage.results import RESULTS_KEYS, Results

SCENARIOS = ("missing-image", "missing-text", "missing-both")


def predictions(folder: Path) -> pd.DataFrame:
    return pd.concat([pq.read_table(path).to_pandas() for path in sorted((folder / "predictions").glob("*.parquet"))])


def run(checkpoint: Path, dataset: Dataset, out: Path, **grid: object) -> Results:
    loaded = load_checkpoint(checkpoint)
    settings = {"scenarios": None, "rates": (0.0, 0.5, 1.0), "seeds": 2, "promptings": ("situation", "concat"), **grid}
    made = make_grid(loaded.classifier.modalities, **settings)
    return evaluate_models({"it": loaded}, dataset, made, out)


@pytest.mark.parametrize("modalities", [("image", "text"), ("audio", "image")], ids="+".join)
@pytest.mark.parametrize(("method", "head"), [("mmp", "linear"), ("none", "prototype")])
def test_every_cell_equals_running_it_by_itself(
    trained: Callable[..., Path], digits: Dataset, tmp_path: Path, method: str, head: str, modalities: tuple[str, ...]
) -> None:
    """The naive way: each sample alone, in the cell's own case, in another order."""
    results = run(trained(method, head, modalities), digits, tmp_path)
    classifier = mmrobust.load(trained(method, head, modalities))
    split = digits.split("test")
    encoded = EncodedSplit(split, classifier.backbone.processor, classifier.modalities, classifier.fill)
    kept = predictions(tmp_path).set_index(["id", "case", "prompting"]).logits
    accuracy = results.frame[results.frame.metric == "accuracy"]
    alone: dict[tuple[str, str, str], np.ndarray] = {}
    for row in accuracy.itertuples():
        scenario = Scenario.parse(row.scenario, classifier.modalities)
        table = missing_table(split.ids, scenario, row.missing_rate, row.seed)
        correct = 0
        for position in reversed(range(len(split))):
            key = (split.ids[position], table[split.ids[position]], row.prompting)
            if key not in alone:
                samples = encoded.samples([position], Case.parse(key[1], classifier.modalities))
                inputs = encoded.processor.collate(samples)
                alone[key] = classifier(inputs, key[1], key[2]).detach().numpy()[0]
                assert np.allclose(alone[key], kept[key], atol=1e-5 * max(1, np.abs(kept[key]).max()), rtol=0)
            correct += int(alone[key].argmax() == split.labels[position][0])
        assert row.value == correct / len(split)


def test_nothing_is_predicted_twice_and_nothing_that_no_cell_needs(
    trained: Callable[..., Path], digits: Dataset, tmp_path: Path
) -> None:
    out = tmp_path / "grid"
    run(trained("mmp", "linear"), digits, out, rates=(0.2, 0.4), seeds=1, scenarios=("missing-text",))
    kept = predictions(out)
    assert not kept.duplicated(["id", "case", "prompting"]).any()
    assert set(kept.case) == {"complete", "missing-text"}
    assert (kept.case == "missing-text").sum() == 2 * 24  # ⌊60 · 0.4⌋ samples under two promptings
    assert (kept.case == "complete").sum() == 2 * 48


def test_a_wider_grid_computes_only_what_is_new(trained: Callable[..., Path], digits: Dataset, tmp_path: Path) -> None:
    narrow = run(trained("mmp", "linear"), digits, tmp_path, rates=(0.0, 0.3), seeds=1)
    shards = {path: path.read_bytes() for path in (tmp_path / "predictions").iterdir()}
    wide = run(trained("mmp", "linear"), digits, tmp_path, rates=(0.0, 0.3, 1.0), seeds=2)
    assert all(path.read_bytes() == content for path, content in shards.items())
    kept = predictions(tmp_path)
    assert not kept.duplicated(["id", "case", "prompting"]).any()
    assert len(kept) == 3 * 60 * 2
    common = narrow.frame.merge(wide.frame, on=list(RESULTS_KEYS))
    assert len(common) == len(narrow.frame)
    assert (common.value_x == common.value_y).all()

    again = run(trained("mmp", "linear"), digits, tmp_path, rates=(0.0, 0.3, 1.0), seeds=2)
    assert again.frame.equals(wide.frame)
    assert len(list((tmp_path / "predictions").iterdir())) == len(shards) + 1


def test_a_torn_shard_is_computed_again(trained: Callable[..., Path], digits: Dataset, tmp_path: Path) -> None:
    whole = run(trained("mmp", "linear"), digits, tmp_path)
    (shard,) = (tmp_path / "predictions").iterdir()
    shard.write_bytes(shard.read_bytes()[:-100])
    assert run(trained("mmp", "linear"), digits, tmp_path).frame.equals(whole.frame)


def test_a_model_without_prompts_is_run_once_for_both_promptings(
    trained: Callable[..., Path], digits: Dataset, tmp_path: Path
) -> None:
    frame = run(trained("none", "linear"), digits, tmp_path).frame
    assert set(predictions(tmp_path).prompting) == {"situation"}
    situation, concat = (frame[frame.prompting == p].value.to_numpy() for p in ("situation", "concat"))
    assert (situation == concat).all()


def test_several_checkpoints_share_a_folder(trained: Callable[..., Path], digits: Dataset, tmp_path: Path) -> None:
    loaded = {head: load_checkpoint(trained("none", head)) for head in ("linear", "prototype")}
    grid = Grid(("missing-text",), (0.0, 1.0), (0,))
    frame = evaluate_models(loaded, digits, grid, tmp_path).frame
    assert set(frame.checkpoint) == {"linear", "prototype"}
    assert set(frame[frame.checkpoint == "prototype"]["head"]) == {"prototype"}
    alone = evaluate_models({"linear": loaded["linear"]}, digits, grid, tmp_path / "alone").frame
    together = frame[frame.checkpoint == "linear"].reset_index(drop=True)
    assert together.equals(alone)


def test_the_python_face_gives_the_same(trained: Callable[..., Path], digits: Dataset, tmp_path: Path) -> None:
    ours = run(trained("mmp", "prototype"), digits, tmp_path, rates=(0.0, 0.7)).frame
    frame = mmrobust.evaluate(mmrobust.load(trained("mmp", "prototype")), digits.folder, rates=(0.0, 0.7), seeds=2)
    merged = ours.merge(frame, on=["scenario", "missing_rate", "seed", "prompting", "metric"], suffixes=("", "_face"))
    assert len(merged) == len(ours) == len(frame)
    assert (merged.value == merged.value_face).all()


def test_results_say_where_they_come_from(trained: Callable[..., Path], digits: Dataset, tmp_path: Path) -> None:
    provenance = run(trained("none", "linear"), digits, tmp_path, rates=(0.0,), seeds=1).provenance
    assert provenance["dataset"]["fingerprint"] == digits.info.fingerprint
    assert provenance["checkpoints"]["it"]["fill"] == "ones"
    assert provenance["versions"]["torch"]
    assert provenance["device"] == "cpu"


def test_other_data_do_not_go_into_the_same_folder(
    trained: Callable[..., Path], digits: Dataset, tmp_path: Path
) -> None:
    run(trained("none", "linear"), digits, tmp_path / "out", rates=(0.0,), seeds=1)
    prepare_digits(tmp_path / "fewer", limit=30)
    with pytest.raises(UsageError, match=r"holds results on digits \(test, 60 samples, .*name another --out"):
        run(trained("none", "linear"), Dataset(tmp_path / "fewer"), tmp_path / "out", rates=(0.0,), seeds=1)


def test_naturally_missing_samples_are_evaluated_in_their_true_case(
    trained: Callable[..., Path], tmp_path: Path
) -> None:
    import dataclasses

    from mmrobust.data.prepare.digits import CLASSES
    from mmrobust.data.writing import SampleRow, write_dataset

    prepare_digits(tmp_path / "source", limit=20)
    rows = [
        SampleRow("test", s.id, s.label, image=s.image, image_path="x", text=None if i < 5 else s.text)
        for i, s in enumerate(Dataset(tmp_path / "source").split("test"))
    ]
    common = {"name": "some", "classes": CLASSES, "task": "single-label", "headline_metric": "accuracy"}
    write_dataset(tmp_path / "data", rows, modalities=("image", "text"), licence="", source="", **common)
    results = run(trained("mmp", "linear"), Dataset(tmp_path / "data"), tmp_path / "out", rates=(0.0, 1.0), seeds=1)
    kept = predictions(tmp_path / "out")
    lacking = {row.id for row in rows[:5]}
    assert set(kept[kept.id.isin(lacking)].case) == {"missing-text"}
    frame = results.frame[results.frame.metric == "accuracy"].set_index(["scenario", "missing_rate"])
    assert set(frame.n_naturally_missing) == {5}
    assert set(frame.loc["missing-text", 1.0].n_affected) == {15}
    assert dataclasses.asdict(rows[0])["text"] is None


def test_a_plan_is_what_the_cells_say() -> None:
    ids = [f"s{i}" for i in range(40)]
    grid = Grid(SCENARIOS, (0.1, 0.5, 0.8), (0, 3))
    truth = SplitTruth(tuple(ids), ((0,),) * 40, ("image", "text"), 2, "single-label")
    plan = DrawnGrid(grid, truth, truth.draw_grid(grid)).plan(("situation",))
    needed: dict[str, set[int]] = {}
    for cell in grid.cells():
        table = missing_table(ids, Scenario.parse(cell.scenario, ("image", "text")), cell.missing_rate, cell.seed)
        for position, sample in enumerate(ids):
            needed.setdefault(table[sample], set()).add(position)
    assert {case: set(positions.tolist()) for (case, _), positions in plan.items()} == needed


def noisy_run(checkpoint: Path, dataset: Dataset, out: Path, noise: Noise, *scenarios: str) -> Results:
    loaded = load_checkpoint(checkpoint)
    grid = Grid(scenarios, (0.0, 0.5), (0, 1))
    return evaluate_models({"it": loaded}, dataset, grid, out, noise=noise)


def test_noise_decides_degraded_predictions_alone(
    trained: Callable[..., Path], digits: Dataset, tmp_path: Path
) -> None:
    checkpoint = trained("none", "linear", ("audio", "image"))
    results = noisy_run(checkpoint, digits, tmp_path, Noise(seed=5), "noisy-audio", "noisy-both", "missing-audio")
    assert results.provenance["noise"] == {"profile": "default", "seed": 5}
    kept = predictions(tmp_path)
    assert not kept.duplicated(["id", "case", "prompting"]).any()
    degraded = kept.case.str.startswith("noisy")
    assert (kept[degraded].noise_seed == 5).all() and kept[~degraded].noise_seed.isna().all()

    again = noisy_run(checkpoint, digits, tmp_path, Noise(seed=6), "missing-audio")
    assert again.provenance["noise"]["seed"] == 5 and len(predictions(tmp_path)) == len(kept)
    with pytest.raises(UsageError, match=r"holds results under noise profile default, seed 5, these .* another --out"):
        noisy_run(checkpoint, digits, tmp_path, Noise(seed=6), "noisy-audio")
    (tmp_path / "results.parquet").unlink()
    noisy_run(checkpoint, digits, tmp_path, Noise("released", 5), "noisy-audio")
    more = predictions(tmp_path)
    assert len(more) - len(kept) == (kept.case == "noisy-audio").sum()  # nothing but them is made again
    assert more[more.case == "complete"].id.is_unique


def test_noisy_cells_in_memory_are_those_on_disk(trained: Callable[..., Path], digits: Dataset, tmp_path: Path) -> None:
    loaded = load_checkpoint(trained("mmp", "linear", ("audio", "image")))
    grid = Grid(("noisy-image",), (0.0, 1.0), (0,), ("concat",))
    noise = Noise("released", 2)
    ours = evaluate_models(
        {"it": loaded}, digits, grid, tmp_path, noise=noise, settings=PredictionSettings(batch_size=7)
    ).frame
    settings = {"scenarios": ["noisy-image"], "rates": (0.0, 1.0), "seeds": 1, "prompting": ("concat",)}
    face = mmrobust.evaluate(loaded.classifier, digits, **settings, noise_profile="released", noise_seed=2)
    assert sorted(ours.value.tolist()) == sorted(face.value.tolist())
    with pytest.raises(UsageError, match=r"trained for case 'noisy-image', only for complete, .* --prompting concat"):
        mmrobust.evaluate(loaded.classifier, digits, scenarios=["noisy-image"], prompting=("situation",))
