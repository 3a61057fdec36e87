"""What a function may return: arrays, tensors and lists, checked and ordered as the data set's classes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import mmrobust
from mmrobust.errors import ModelError
from mmrobust.models.own.answers import logits_of

IDS = ["s1", "s2"]
ROWS = [[0.5, 0.25, 0.25], [0.0, 1.0, 0.0]]


def model(scale: str = "logits", task: str = "single-label", classes: tuple[str, ...] = ("a", "b", "c")) -> Any:
    return mmrobust.Model(
        name="mine", version="1", modalities=["text"], classes=classes, task=task, predict=print, scale=scale
    )


def logits(answer: Any, **fields: Any) -> np.ndarray:
    return logits_of(answer, model(**fields), ("a", "b", "c"), IDS, "in case 'missing-text'")


@pytest.mark.parametrize(
    "answer",
    [
        ROWS,
        np.asarray(ROWS),
        np.asarray(ROWS, dtype=np.float16),
        torch.tensor(ROWS),
        torch.tensor(ROWS, dtype=torch.bfloat16),
        torch.nn.Parameter(torch.tensor(ROWS)),
        [torch.tensor(row) for row in ROWS],
        [np.asarray(row) for row in ROWS],
        tuple(map(tuple, ROWS)),
    ],
    ids=lambda answer: type(answer).__name__,
)
def test_every_kind_of_array_is_understood(answer: Any) -> None:
    found = logits(answer)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, ROWS)


def test_columns_are_ordered_by_name() -> None:
    found = logits_of([[1, 2, 3], [4, 5, 6]], model(classes=("c", "a", "b")), ("a", "b", "c"), IDS, "")
    np.testing.assert_array_equal(found, [[2, 3, 1], [5, 6, 4]])


def test_a_softmax_turns_the_logits_back_into_probabilities() -> None:
    found = torch.from_numpy(logits(ROWS, scale="probabilities"))
    assert found.isfinite().all()
    torch.testing.assert_close(found.softmax(-1), torch.tensor(ROWS))


def test_a_sigmoid_turns_them_back_in_a_multi_label_task() -> None:
    rows = [[0.5, 0.9, 1.0], [0.0, 1e-30, 0.999]]
    found = torch.from_numpy(logits(rows, scale="probabilities", task="multi-label"))
    assert found.isfinite().all()
    torch.testing.assert_close(found.sigmoid(), torch.tensor(rows))
    assert found[1, 0] < found[1, 1]  # clipping leaves their order


def test_rounding_is_no_error() -> None:
    assert np.isfinite(logits([[1 + 1e-7, 0, -1e-8], [0.333, 0.333, 0.333]], scale="probabilities")).all()


@pytest.mark.parametrize(
    ("answer", "fields", "message"),
    [
        ([[0, 1], [0, 1]], {}, r"mine: predict returned 2 × 2 in case 'missing-text', from sample 's1' on; it must "
         r"return samples × classes, 2 × 3"),
        ([0, 1, 2], {}, r"predict returned 3 in case .* 2 × 3"),
        (7.0, {}, r"predict returned a single number in case"),
        (np.zeros((2, 3, 1)), {}, r"predict returned 2 × 3 × 1 in case"),
        (np.zeros((1, 3)), {}, r"predict returned 1 rows for 2 samples in case 'missing-text', from sample 's1' on"),
        ([[0, 0, 0], [0, float("nan"), 0]], {}, r"predict returned NaN in case 'missing-text' for sample 's2'$"),
        ([[0, 0, 0], [0, float("-inf"), 0]], {}, r"returned an infinite score in .* 's2'; for the logarithm of 0, "
         r"return probabilities and say scale='probabilities'"),
        ([[1e39, 0, 0], [0, 0, 0]], {}, r"an infinite score in case 'missing-text' for sample 's1'"),
        ([[0, 1, 0], [0.1, 1.2, -0.3]], {"scale": "probabilities"}, r"returned \(0.1, 1.2, -0.3\) in case "
         r"'missing-text' for sample 's2', but probabilities lie in \[0, 1\]; scale='logits' takes any scores"),
        ([[0, 1, 0], [0.4, 0.4, 0.4]], {"scale": "probabilities"}, r"for sample 's2', but probabilities sum to 1"),
        ([[0, 1, 0], [0.4, 1.4, 0.4]], {"scale": "probabilities", "task": "multi-label"}, r"lie in \[0, 1\]"),
        (None, {}, r"predict returned NoneType in case 'missing-text', for sample 's1' and those after it; it must "
         r"return numbers"),
        ("0 1 2", {}, r"predict returned str"),
        ([[1, 2, 3], [1, 2]], {}, r"predict returned list in case"),
        ([["a", "b", "c"]] * 2, {}, r"predict returned list of <U1 in case"),
        (np.zeros((2, 3), dtype=complex), {}, r"predict returned ndarray of complex128 in case"),
        ({"logits": ROWS}, {}, r"predict returned dict in case"),
    ],
)  # fmt: skip
def test_what_is_no_prediction_is_one_line(answer: Any, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message) as raised:
        logits(answer, **fields)
    assert "\n" not in str(raised.value)
