"""Whatever predictions share, each equals the sample run by itself; and what is shared is run once."""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from mmrobust.cases import PROMPTINGS, Case
from mmrobust.data import Dataset
from mmrobust.data.encoded_split import EncodedSplit
from mmrobust.data.prepare.digits import CLASSES
from mmrobust.data.writing import SampleRow, write_dataset
from mmrobust.models.classifier import Classifier
from mmrobust.models.prediction.held_weights import held_in_bfloat16
from mmrobust.models.prediction.predictor import Predictor

N = 9
LACKS = {2: "text", 5: "image", 6: "audio"}
"""Position → what the sample lacks by nature."""

METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "none": ("none", {}),
    "mmp-input": ("mmp", {"length": 4, "depth": 2}),
    "mmp-attention": ("mmp", {"length": 4, "level": "attention"}),
    "mmp-late": ("mmp", {"length": 2, "layers": [3]}),
    "mmp-middle": ("mmp", {"length": 2, "layers": [1, 2]}),
    "msp": ("msp", {"length": 2}),
    "dcp": ("dcp", {"length": 6, "depth": 2}),
    "maple": ("maple", {"length": 2}),
    "ptm-input": ("ptm", {"length": 2, "level": "input"}),
    "ptm-attention": ("ptm", {"length": 2}),
    "ptm-both": ("ptm", {"length": 2, "level": "both"}),
    "lora": ("lora", {"rank": 2}),
    "adapter": ("adapter", {"bottleneck": 4}),
}
BACKBONES: dict[str, tuple[str, dict[str, Any]]] = {
    "vilt": ("tiny-vilt", {}),
    "clip": ("tiny-clip", {}),
    "cavmae": ("tiny-cavmae", {}),
    "cavmae-single": ("tiny-cavmae", {"missing_path": "single"}),
    "cavmae-average": ("tiny-cavmae", {"missing_path": "average"}),
    "cavmae-fusion": ("tiny-cavmae-fusion", {}),
}


def fits(method: str, backbone: str) -> bool:
    if method == "lora" and importlib.util.find_spec("peft") is None:
        return False
    if method in ("dcp", "maple"):
        return backbone == "clip"
    if method.startswith("ptm"):
        return backbone.startswith("cavmae") or (backbone == "clip" and method == "ptm-input")
    return True


PAIRS = [(method, backbone) for method in METHODS for backbone in BACKBONES if fits(method, backbone)]


@pytest.fixture(scope="module")
def some(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """A few digits, with texts of very different lengths; three lack a modality."""
    folder = tmp_path_factory.mktemp("some") / "data"
    rows = []
    for i, sample in enumerate(digits.split("test").read(range(N))):
        media = {"image": sample.image, "audio": sample.audio, "text": f"{sample.text} " * (1 + 3 * (i % 4))}
        media |= {LACKS[i]: None} if i in LACKS else {}
        rows.append(SampleRow("test", sample.id, sample.label, **media))
    common = {"classes": CLASSES, "task": "single-label", "headline_metric": "accuracy", "licence": "", "source": ""}
    write_dataset(folder, rows, name="some", modalities=("image", "text", "audio"), **common)
    return Dataset(folder)


def encoded_for(classifier: Classifier, data: Dataset) -> EncodedSplit:
    processor, modalities = classifier.backbone.processor, classifier.modalities
    return EncodedSplit(data.split("test"), processor, modalities, classifier.fill)


def able(encoded: EncodedSplit, case: Case) -> list[int]:
    """The samples that have, by nature, what the case calls present."""
    presence = encoded.split.presence
    return [i for i in range(N) if all(presence[modality][i] for modality in case.present)]


def everything(classifier: Classifier, encoded: EncodedSplit) -> dict[tuple[str, str], np.ndarray]:
    cases = {name: np.asarray(able(encoded, Case.parse(name, classifier.modalities))) for name in classifier.cases}
    return {(case, prompting): positions for case, positions in cases.items() for prompting in PROMPTINGS}


@torch.inference_mode()
def alone(classifier: Classifier, encoded: EncodedSplit, position: int, key: tuple[str, str]) -> np.ndarray:
    """The naive way: one sample, one case."""
    samples = encoded.samples([position], Case.parse(key[0], classifier.modalities))
    return classifier(encoded.processor.collate(samples), *key)[0].numpy()


@pytest.mark.parametrize(("method", "backbone"), PAIRS, ids=["-".join(pair) for pair in PAIRS])
def test_every_prediction_is_the_sample_run_by_itself(
    classifier: Callable[..., Classifier], some: Dataset, method: str, backbone: str
) -> None:
    head = ("linear", "prototype")[PAIRS.index((method, backbone)) % 2]
    (name, method_set), (tiny, backbone_set) = METHODS[method], BACKBONES[backbone]
    built = classifier(tiny, name, head, method_set=method_set, backbone_set=backbone_set)
    encoded = encoded_for(built, some)
    wanted = everything(built, encoded)
    logits = Predictor(built, encoded, batch_size=4)(wanted)
    for key, positions in wanted.items():
        for row in (0, len(positions) - 1):
            expected = alone(built, encoded, int(positions[row]), key)
            np.testing.assert_allclose(logits[key][row], expected, rtol=0, atol=1e-5)


CASTS = (torch.ops.aten._to_copy.default, torch.ops.aten.to.dtype)  # with and without gradients


class WeightCasts(TorchDispatchMode):
    """Counts the casts of a backbone's weights."""

    def __init__(self, backbone: Any) -> None:
        super().__init__()
        self.weights, self.count = {id(weight) for weight in backbone.parameters()}, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in CASTS and id(args[0]) in self.weights and result.dtype != args[0].dtype:
            self.count += 1
        return result


@pytest.mark.parametrize(
    ("method", "backbone"),
    [("mmp-input", "vilt"), ("adapter", "vilt"), ("lora", "clip"), ("dcp", "clip"), ("none", "cavmae-fusion")],
)
def test_weights_held_in_bfloat16_are_what_autocast_makes_of_them(
    classifier: Callable[..., Classifier], some: Dataset, method: str, backbone: str
) -> None:
    if not fits(method, backbone):
        pytest.skip("PEFT is not installed")
    (name, method_set), (tiny, backbone_set) = METHODS[method], BACKBONES[backbone]
    built = classifier(tiny, name, method_set=method_set, backbone_set=backbone_set)
    built.dtype, before = "bfloat16", built.backbone.fingerprint()
    encoded = encoded_for(built, some)
    wanted = everything(built, encoded)
    with held_in_bfloat16(built), WeightCasts(built.backbone) as casts:
        found = Predictor(built, encoded, batch_size=4)(wanted)
    with WeightCasts(built.backbone) as usual:
        expected = Predictor(built, encoded, batch_size=4)(wanted)
    assert not casts.count and usual.count >= 8
    for key in wanted:
        np.testing.assert_array_equal(found[key], expected[key])
    assert built.backbone.fingerprint() == before


@pytest.fixture(scope="module")
def table(classifier: Callable[..., Classifier], some: Dataset) -> tuple[Any, Any, Any, Any]:
    """A classifier whose cases share streams and differ in the rest, and every prediction made by itself."""
    built = classifier("tiny-cavmae", "ptm", "prototype", method_set={"length": 2})
    encoded = encoded_for(built, some)
    wanted = everything(built, encoded)
    naive = {(key, p): alone(built, encoded, p, key) for key, ps in wanted.items() for p in ps.tolist()}
    return built, encoded, wanted, naive


@settings(deadline=None, max_examples=15, suppress_health_check=list(HealthCheck))
@given(draws=st.data(), size=st.integers(1, 2 * N))
def test_any_choice_of_samples_in_any_batches_is_the_same(table: Any, draws: st.DataObject, size: int) -> None:
    built, encoded, possible, naive = table
    wanted = {
        key: np.asarray(draws.draw(st.lists(st.sampled_from(positions.tolist()), unique=True)), dtype=np.int64)
        for key, positions in possible.items()
    }
    advanced: list[int] = []
    logits = Predictor(built, encoded, size)(wanted, advanced.append)
    assert sum(advanced) == sum(map(len, wanted.values()))
    for key, positions in wanted.items():
        assert logits[key].shape == (len(positions), 3)
        for row, position in enumerate(positions.tolist()):
            np.testing.assert_allclose(logits[key][row], naive[key, position], rtol=0, atol=1e-5)


def work(built: Classifier, encoded: EncodedSplit, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many samples go through each part of the backbone while six of them are predicted under everything."""
    counted: Counter[str] = Counter()
    backbone = built.backbone
    encode, fuse, run_layers = backbone.encode_modality, backbone.fuse, backbone.run_layers

    def counting_encode(modality: str, *arguments: Any) -> Any:
        sequence = encode(modality, *arguments)
        counted[modality] += len(sequence.tokens_BLD)
        return sequence

    def counting_fuse(sequences: Any, *arguments: Any) -> Any:
        counted["fuse"] += len(next(iter(sequences.values())).tokens_BLD)
        return fuse(sequences, *arguments)

    def counting_layers(stream: str, layers: Any, sequence: Any, *arguments: Any) -> Any:
        counted["layers"] += len(layers) * len(sequence.tokens_BLD)
        return run_layers(stream, layers, sequence, *arguments)

    monkeypatch.setattr(backbone, "run_layers", counting_layers)
    monkeypatch.setattr(backbone, "encode_modality", counting_encode)
    monkeypatch.setattr(backbone, "fuse", counting_fuse)
    complete = able(encoded, Case.complete(built.modalities))[:6]
    predictor = Predictor(built, encoded, batch_size=2)
    predictor({(case, prompting): np.asarray(complete) for case in built.cases for prompting in PROMPTINGS})
    return counted


@pytest.mark.parametrize(
    ("backbone", "method", "head", "expected"),
    [
        # The two towers: 6 samples each, and concat's fill once; no layer fuses them.
        ("clip", "none", "linear", {"image": 7, "text": 7}),
        ("clip", "lora", "linear", {"image": 7, "text": 7}),
        ("clip", "adapter", "prototype", {"image": 7, "text": 7}),
        # Situation: no tower of what is missing. Complete, one case and concat differ in prompts: 3 · 6, and a fill.
        ("clip", "dcp", "linear", {"image": 19, "text": 19}),
        ("clip", "mmp-input", "linear", {"image": 19, "text": 19}),
        # One joint stream: each modality is embedded once; without prompts only the head tells promptings apart.
        ("vilt", "none", "prototype", {"image": 7, "text": 7, "fuse": 3 * 6}),
        ("vilt", "mmp-input", "linear", {"image": 7, "text": 7, "fuse": 6 * 6}),
        # A stream per modality: the prompts are added where they are fused, or in front of each.
        ("cavmae", "none", "linear", {"audio": 7, "image": 7, "fuse": 3 * 6}),
        ("cavmae", "ptm-attention", "linear", {"audio": 7, "image": 7, "fuse": 6 * 6}),
        ("cavmae", "mmp-late", "linear", {"audio": 7, "image": 7, "fuse": 6 * 6}),
        ("cavmae", "mmp-input", "linear", {"audio": 20, "image": 20, "fuse": 6 * 6}),
        # Below the first layer that takes prompts, all passes of the same samples in the same state are one.
        ("vilt", "mmp-late", "linear", {"fuse": 6 * 6, "layers": 3 * 6 * (3 + 2)}),
        ("clip", "mmp-late", "linear", {"image": 19, "layers": 2 * (6 * (3 + 3) + 4)}),
        ("cavmae", "mmp-middle", "linear", {"audio": 20, "layers": 2 * (6 * (1 + 3 * 2) + 2 * 3) + 6 * 6}),
        ("cavmae-single", "none", "linear", {"audio": 7, "image": 7, "fuse": 5 * 6}),
    ],
)
def test_what_is_shared_is_run_once(
    classifier: Callable[..., Classifier],
    some: Dataset,
    monkeypatch: pytest.MonkeyPatch,
    backbone: str,
    method: str,
    head: str,
    expected: dict[str, int],
) -> None:
    if not fits(method, backbone):
        pytest.skip("PEFT is not installed")
    (name, method_set), (tiny, backbone_set) = METHODS[method], BACKBONES[backbone]
    built = classifier(tiny, name, head, method_set=method_set, backbone_set=backbone_set)
    counted = work(built, encoded_for(built, some), monkeypatch)
    assert {part: counted[part] for part in expected} == expected


def test_nothing_wanted_is_nothing_done(classifier: Callable[..., Classifier], some: Dataset) -> None:
    built = classifier("tiny-vilt")
    assert Predictor(built, encoded_for(built, some))({}) == {}
    nobody = {("complete", "situation"): np.empty(0, np.int64)}
    assert Predictor(built, encoded_for(built, some))(nobody)["complete", "situation"].shape == (0, 3)
