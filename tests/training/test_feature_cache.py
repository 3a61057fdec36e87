"""What is frozen is computed once, and changes nothing: the same features, the same losses, less to keep."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.checkpoint import checkpoint

from mmrobust.cases import Case
from mmrobust.data import Dataset
from mmrobust.degradations import Noise
from mmrobust.models.backbone import Backbone
from mmrobust.models.classifier import Classifier
from mmrobust.runtime.progress import no_progress
from mmrobust.training.distributed import ProcessGroup
from mmrobust.training.feature_cache import Cache, FeatureCache, StreamCache, frozen_depths, make_source
from mmrobust.training.loop import train
from mmrobust.training.recipe import Recipe, default_recipe
from mmrobust.training.settings import TrainSettings
from mmrobust.training.setup import Setup, set_up
from mmrobust.training.sources import FeatureRequest, LiveSource
from mmrobust.training.state import StateStore
from mmrobust.training.trainer import Trainer

NOISE = Noise("default", 3)
RECIPE = Recipe(epochs=2, batch_size=16, lr=5e-3)
AUDIO_IMAGE = ("audio", "image")

METHODS = [
    ("tiny-vilt", "none", {}, {"joint": 4}),
    ("tiny-vilt", "mmp", {"layers": [2, 3]}, {"joint": 2}),
    ("tiny-vilt", "mmp", {}, {}),
    ("tiny-clip", "none", {}, {"image": 4, "text": 4}),
    ("tiny-clip", "mmp", {"layers": [3], "level": "attention"}, {"image": 3, "text": 3}),
    ("tiny-clip", "none", {"train_pooling": True}, {"image": 4, "text": 4}),
    ("tiny-clip", "dcp", {"length": 3}, {}),
    ("tiny-clip", "maple", {}, {}),
    ("tiny-cavmae", "none", {}, {"audio": 3, "image": 3}),
    ("tiny-cavmae", "ptm", {}, {"audio": 3, "image": 3}),
    ("tiny-cavmae", "ptm", {"level": "both"}, {}),
    ("tiny-cavmae-fusion", "ptm", {}, {"audio": 3, "image": 3}),
    ("tiny-cavmae", "adapter", {}, {}),
]


@pytest.mark.parametrize(("backbone", "method", "method_set", "depths"), METHODS)
def test_nothing_is_added_below_the_first_changed_layer(
    classifier: Callable[..., Classifier],
    backbone: str,
    method: str,
    method_set: dict[str, Any],
    depths: dict[str, int],
) -> None:
    built = classifier(backbone, method, method_set=method_set)
    assert frozen_depths(built) == depths
    asked: list[tuple[str, int]] = []
    empty: Any = None
    for stream, depth in depths.items():
        for layer in range(depth):
            assert built.method.source(built.cases)(stream, layer, empty) is None
            asked.append((stream, layer))
    assert asked or not depths


def settings_for(digits: Dataset, backbone: object, method: str, **changes: Any) -> TrainSettings:
    plain = TrainSettings(digits.folder, str(backbone), method, "linear", RECIPE, modalities=("image", "text"))
    return dataclasses.replace(plain, **changes)


@pytest.fixture(scope="module")
def late(digits: Dataset, trained: Callable[..., Path]) -> dict[str, TrainSettings]:
    """Trainings of which much is frozen."""
    vilt, cavmae = trained("full", "linear"), trained("full", "linear", AUDIO_IMAGE)
    ptm = {"modalities": AUDIO_IMAGE, "scenario": "noisy-both", "method_settings": {"length": 2}}
    return {
        "none": settings_for(digits, vilt, "none", head="prototype"),
        "mmp": settings_for(digits, vilt, "mmp", method_settings={"layers": [3], "length": 2, "init": "normal"}),
        "ptm": settings_for(
            digits, cavmae, "ptm", recipe=default_recipe("ptm", "full").changed(epochs=2, share=0.3), **ptm
        ),
        "fresh": settings_for(
            digits, cavmae, "ptm", recipe=default_recipe("ptm", "full").changed(epochs=2, draws=0, share=0.3), **ptm
        ),
        "path": settings_for(
            digits, cavmae, "none", modalities=AUDIO_IMAGE, backbone_settings={"missing_path": "average"}
        ),
    }


@pytest.mark.parametrize("name", ["none", "mmp", "ptm", "fresh", "path"])
def test_the_losses_are_the_same_with_and_without(late: dict[str, TrainSettings], tmp_path: Path, name: str) -> None:
    train(late[name], tmp_path / "live", cache=Cache(on=False))
    config = train(late[name], tmp_path / "kept")
    assert config.training["efficiency"]["cache_bytes"] > 0
    live, kept = (pd.read_parquet(tmp_path / folder / "training.parquet") for folder in ("live", "kept"))
    np.testing.assert_allclose(kept.train_loss, live.train_loss, rtol=0, atol=1e-5)
    np.testing.assert_allclose(kept.validation, live.validation, rtol=0, atol=1e-5)


def test_it_goes_to_files_beyond_memory_and_lasts_where_a_folder_is_named(
    late: dict[str, TrainSettings], tmp_path: Path
) -> None:
    caches = {"memory": Cache(), "spilt": Cache(memory=1000)}
    caches |= dict.fromkeys(("lasting", "again"), Cache(folder=tmp_path / "cache"))
    configs = {name: train(late["mmp"], tmp_path / name, cache=cache) for name, cache in caches.items()}
    assert len({config.training["efficiency"]["cache_bytes"] for config in configs.values()}) == 1
    losses = [pd.read_parquet(tmp_path / name / "training.parquet").train_loss for name in caches]
    assert all(other.equals(losses[0]) for other in losses[1:])
    assert not (tmp_path / "spilt" / ".training").exists()
    assert list((tmp_path / "cache").glob("*.index")) and not list((tmp_path / "cache").glob("*.partial"))


def test_training_and_validation_share_the_memory(late: dict[str, TrainSettings], tmp_path: Path) -> None:
    setup, memory = set_up(late["none"], tmp_path), 100_000  # not enough for either
    store = StateStore(tmp_path / "out", "")
    nothing: Any = lambda *arguments: None  # noqa: E731
    trainer = Trainer(setup, late["none"], store, Cache(memory=memory), ProcessGroup(), no_progress, nothing, nothing)
    trainer._fill_cache()
    sources: list[Any] = [trainer.train_source, trainer.validation_source]
    places = [place for source in sources for table in source._tables.values() for place in table._places.values()]
    arrays = {id(place.array): place.array for place in places if isinstance(place.array, np.ndarray)}
    assert memory / 2 < sum(array.nbytes for array in arrays.values()) <= memory


def test_a_head_that_begins_at_random_wants_no_features_of_what_is_not_trained_on(
    late: dict[str, TrainSettings], tmp_path: Path
) -> None:
    settings = dataclasses.replace(late["none"], recipe=RECIPE.changed(epochs=1, share=0.2))
    kept = {}
    for init in ("means", "random"):
        config = train(dataclasses.replace(settings, head_settings={"init": init}), tmp_path / init)
        kept[init] = config.training["efficiency"]["cache_bytes"]
    assert kept["random"] < 0.6 * kept["means"]  # all 60 and 60 samples, or 12 and 60


def sources(setup: Setup, folder: Path) -> tuple[LiveSource, StreamCache]:
    live = LiveSource(setup.classifier, setup.train.encoded)
    kept = make_source(setup.classifier, setup.train.encoded, Cache(), folder, {"data": "d"})
    assert isinstance(kept, StreamCache)
    return live, kept


def test_cases_share_the_stream_of_what_is_in_the_same_state(late: dict[str, TrainSettings], tmp_path: Path) -> None:
    setup = set_up(late["ptm"], tmp_path)
    live, kept = sources(setup, tmp_path)
    ran: list[tuple[str, int]] = []
    true = Backbone.run_first_layers

    def spied(self: Backbone, stream: str, inputs: Any, depth: int) -> Any:
        ran.append((stream, len(inputs["pixel_values"])))
        return true(self, stream, inputs, depth)

    cases = [Case.parse(name, AUDIO_IMAGE) for name in ("complete", "noisy-audio", "noisy-both", "missing-audio")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Backbone, "run_first_layers", spied)
        kept.prepare([FeatureRequest(case, NOISE, np.arange(6)) for case in cases], lambda n: None)
    # clean audio, noisy audio, the milder noise of both; one missing audio for all samples; clean and noisy images
    assert sorted(ran) == [("audio", 1), ("audio", 6), ("audio", 6), ("audio", 6), ("image", 6), ("image", 6)]
    for case in cases[:3]:
        expected, found = (s.features(np.asarray([4, 1, 5]), case, NOISE).pooled_BD for s in (live, kept))
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    # each with the glance as one token more
    assert kept.cached_bytes == 4 * (3 * 6 + 1) * 25 * 128 + 4 * 2 * 6 * 17 * 128


def test_padded_sequences_are_kept_without_their_padding(late: dict[str, TrainSettings], tmp_path: Path) -> None:
    setup = set_up(late["mmp"], tmp_path)
    live, kept = sources(setup, tmp_path)
    for name in ("complete", "missing-text", "missing-image"):
        case = Case.parse(name, setup.classifier.modalities)
        kept.prepare([FeatureRequest(case, None, np.arange(40))], lambda n: None)
        positions = np.asarray([30, 2, 17, 9])
        expected, found = (s.features(positions, case, NOISE).pooled_BD for s in (live, kept))
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_a_shard_that_is_torn_is_made_again(late: dict[str, TrainSettings], tmp_path: Path) -> None:
    setup = set_up(late["none"], tmp_path)
    case, everyone = Case.complete(setup.classifier.modalities), np.arange(8)

    def source(data: str = "d") -> FeatureCache:
        kept = make_source(
            setup.classifier, setup.train.encoded, Cache(folder=tmp_path / "c"), tmp_path, {"data": data}
        )
        assert isinstance(kept, FeatureCache)
        return kept

    first = source()
    first.prepare([FeatureRequest(case, None, everyone)], lambda n: None)
    (values,) = (tmp_path / "c").glob("*.values")
    values.write_bytes(values.read_bytes()[:-4])
    second = source()
    second.prepare([FeatureRequest(case, None, everyone)], lambda n: None)
    assert len(list((tmp_path / "c").glob("*.values"))) == 2 and second.cached_bytes == first.cached_bytes
    source("other").prepare([FeatureRequest(case, None, everyone)], lambda n: None)  # of another backbone or other data
    assert len(list((tmp_path / "c").glob("*.values"))) == 3


def _pooled(built: Classifier, inputs: Any) -> torch.Tensor:
    pooled_BD = built.features(inputs, ("complete",)).pooled_BD
    assert pooled_BD is not None
    return pooled_BD


def kept_for_backward(run: Callable[[], torch.Tensor]) -> int:
    """Bytes that autograd keeps for the backward pass, parameters left out."""
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if not isinstance(tensor, torch.nn.Parameter):
            kept[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        run()
    return sum(kept.values())


def test_no_activation_is_kept_below_the_first_trained_input(
    classifier: Callable[..., Classifier], samples: Callable[..., Any]
) -> None:
    """One of four layers (three of each modality, one joint) is above Prompt the Missing's tokens."""

    def features(method: str) -> Callable[[], torch.Tensor]:
        built = classifier("tiny-cavmae", method)
        inputs = built.backbone.processor.collate(samples("tiny-cavmae", 8))
        return partial(_pooled, built, inputs)

    assert kept_for_backward(features("ptm")) < 0.45 * kept_for_backward(features("full"))
    assert kept_for_backward(features("none")) == 0


def test_activation_checkpointing_keeps_less_and_gives_the_same_gradients(
    classifier: Callable[..., Classifier], samples: Callable[..., Any]
) -> None:
    gradients, kept = [], []
    for checkpointing in (False, True):
        built = classifier("tiny-cavmae", "adapter")
        built.backbone.checkpointing = checkpointing
        inputs = built.backbone.processor.collate(samples("tiny-cavmae", 8))
        pooled = partial(_pooled, built, inputs)
        kept.append(kept_for_backward(pooled))
        pooled().square().sum().backward()
        gradients.append({name: p.grad for name, p in built.trained().items() if p.grad is not None})
    assert kept[1] < 0.3 * kept[0] and gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("backbone", "method"), [("tiny-vilt", "full"), ("tiny-vilt", "mmp"), ("tiny-cavmae", "full")])
def test_activation_checkpointing_drops_out_the_same_units_again(
    classifier: Callable[..., Classifier], samples: Callable[..., Any], backbone: str, method: str, dtype: str
) -> None:
    """Recomputed in the backward pass, under the autocast of the forward pass and with its random numbers."""
    gradients = []
    for checkpointing, seed in ((False, 5), (True, 5), (True, 6)):
        built = classifier(backbone, method)
        built.backbone.checkpointing, built.dtype = checkpointing, dtype
        built.train()
        for part in built.backbone.modules():  # the tiny backbones have none of their own
            part.training = True
            if isinstance(part, torch.nn.Dropout):
                part.p = 0.2
        torch.manual_seed(seed)
        with built.autocast():
            pooled = _pooled(built, built.backbone.processor.collate(samples(backbone, 4)))
        pooled.float().square().sum().backward()
        gradients.append({name: p.grad for name, p in built.trained().items() if p.grad is not None})
    assert gradients[0] and gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-5, atol=1e-6)
    assert any(not torch.allclose(gradients[2][name], gradient, rtol=0.01) for name, gradient in gradients[0].items())


def test_activation_checkpointing_knows_the_device_of_its_random_numbers(
    classifier: Callable[..., Classifier], samples: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dropout is drawn anew in the backward pass unless the device's random numbers are restored, and the device is
    that of the tensors among the arguments: a PyTorch on a CPU looks there as well, but restores the CPU's anyway."""
    devices = []

    def looked(*arguments: Any, **options: Any) -> Any:
        devices.append({each.device.type for each in arguments if isinstance(each, torch.Tensor)})
        return checkpoint(*arguments, **options)

    monkeypatch.setattr("mmrobust.models.backbone.checkpoint", looked)
    built = classifier("tiny-vilt", "mmp")
    built.backbone.checkpointing = True
    _pooled(built, built.backbone.processor.collate(samples("tiny-vilt", 4)))
    assert len(devices) == 4 and all(found == {"cpu"} for found in devices)
