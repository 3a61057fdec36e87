"""Provenance: what a new results table says about itself, in one place."""

from __future__ import annotations

from dataclasses import dataclass

from mmrobust.configuration import check_json
from mmrobust.storage.provenance import SHAPES, now, results_provenance
from mmrobust.version import __version__


@dataclass(frozen=True)
class Noise:
    profile: str = "default"
    seed: int = 3


def test_the_provenance_of_results() -> None:
    dataset = {"name": "digits", "classes": ["a", "b"]}
    checkpoints = {"mmp": {"device": "cuda:0", "dtype": "bfloat16"}, "none": {"device": "cpu", "dtype": "float32"}}
    began = now()
    provenance = results_provenance(
        began,
        dataset=dataset,
        checkpoints=checkpoints,
        noise=Noise(),
        scoring={"resamples": 10},
        bad_samples={"number": 0},
    )
    check_json(provenance, SHAPES["results"])
    assert provenance["started"] == began <= provenance["finished"]
    assert (provenance["device"], provenance["dtype"]) == ("cuda:0", "bfloat16")
    assert provenance["noise"] == {"profile": "default", "seed": 3}
    assert provenance["bad_samples"] == {"number": 0}
    assert provenance["versions"]["mmrobust"] == __version__
    assert {"git", "command"} <= provenance.keys()


def test_results_without_noise_or_bad_samples() -> None:
    checkpoints = {"mmp": {"device": "cpu", "dtype": "float32"}}
    provenance = results_provenance(now(), dataset={}, checkpoints=checkpoints, noise=None, scoring={})
    assert provenance["noise"] is None
    assert "bad_samples" not in provenance
