"""Modality-specific prompts: two sets per modality, offered according to the case."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mmrobust.errors import UsageError
from mmrobust.models.methods.msp import ModalitySpecificPrompts, MspConfig

CASES = ("complete", "missing-image", "missing-text")
OFFERED = {
    "complete": ("image-present", "text-present"),
    "missing-image": ("image-missing", "text-present"),
    "missing-text": ("image-present", "text-missing"),
    "noisy-text": ("image-present", "text-present"),
}


def offered(method: ModalitySpecificPrompts, cases: tuple[str, ...], layer: int = 0) -> Any:
    added = method.source(cases)("joint", layer, None)  # type: ignore[arg-type]  # the sequence is not looked at
    return None if added is None else added.tokens_PD


@pytest.mark.parametrize("case", OFFERED)
def test_a_case_is_offered_the_sets_of_its_modalities_states(tiny: Any, case: str) -> None:
    method = ModalitySpecificPrompts(MspConfig(length=3), tiny("tiny-vilt"), (*CASES, "noisy-text"))
    expected = torch.cat([method.tokens["joint"][name][0] for name in OFFERED[case]])
    assert torch.equal(offered(method, (case,)), expected)


def test_an_unknown_case_is_offered_every_set_once(tiny: Any) -> None:
    method = ModalitySpecificPrompts(MspConfig(length=3), tiny("tiny-vilt"), CASES)
    rows = offered(method, CASES)
    assert len(rows) == 4 * 3 and len(rows.unique(dim=0)) == 4 * 3


def test_there_are_two_sets_per_modality_however_many_cases(tiny: Any) -> None:
    method = ModalitySpecificPrompts(MspConfig(), tiny("tiny-cavmae"), ("complete", "missing-audio", "noisy-both"))
    for sets in method.tokens.values():
        assert set(sets) == {"audio-present", "audio-missing", "image-present", "image-missing"}


def test_as_many_layers_are_prompted_as_asked_for(tiny: Any) -> None:
    method = ModalitySpecificPrompts(MspConfig(depth=2), tiny("tiny-vilt"), CASES)
    assert [offered(method, ("complete",), layer) is not None for layer in range(4)] == [True, True, False, False]
    deep = ModalitySpecificPrompts(MspConfig(depth=2), tiny("tiny-cavmae"), ("complete",))
    assert offered(deep, ("complete",)) is None  # the joint stream begins below the prompted layers


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(UsageError, match="--prompt-depth 0: must be 1 or more"):
        MspConfig(depth=0)
