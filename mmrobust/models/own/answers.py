"""What a user's function returns, checked and made into logits in the data set's order of classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mmrobust.errors import ModelError
from mmrobust.models.own.model import Model
from mmrobust.scoring.scales import PROBABILITIES, logits_of_probabilities, outside
from mmrobust.storage.tasks import REGRESSION


def logits_of(
    answer: Any, model: Model, classes: Sequence[str], ids: Sequence[str], where: str
) -> npt.NDArray[np.float32]:
    """Logits [n, C] of the samples ``ids`` [n], columns in the order of ``classes`` [C].

    Args:
        answer: what the function of ``model`` returned.
        model: the model, which has the same classes in any order.
        classes: the data set's.
        ids: of the samples that the function got, in that order.
        where: names the case, for messages.

    Raises:
        ModelError: it is not one row of finite numbers for each sample, or no probabilities where it should be.
    """
    scores = _numbers(answer, model, f"{where}, for sample '{ids[0]}' and those after it")
    from_first = f"{where}, from sample '{ids[0]}' on"
    if model.task == REGRESSION and scores.ndim == 1:
        scores = scores[:, None]
    if scores.ndim != 2 or scores.shape[1] != len(classes):
        shape = " × ".join(map(str, scores.shape)) or "a single number"
        must = f"samples × classes, {len(ids)} × {len(classes)}"
        must += ": scores of every class, not the class" if scores.shape == (len(ids),) else ""
        if model.task == REGRESSION:
            must = f"a number for each sample, {len(ids)} or {len(ids)} × 1"
        raise ModelError(f"{model.name}: predict returned {shape} {from_first}; it must return {must}")
    if len(scores) != len(ids):
        raise ModelError(f"{model.name}: predict returned {len(scores)} rows for {len(ids)} samples {from_first}")
    with np.errstate(over="ignore"):
        wrong = ~np.isfinite(scores.astype(np.float32)).all(axis=1)
    if wrong.any():
        first = int(wrong.argmax())
        found = "NaN" if np.isnan(scores[first]).any() else "an infinite score"
        hint = ""
        if found != "NaN" and model.scale != PROBABILITIES and model.task != REGRESSION:
            hint = "; for the logarithm of 0, return probabilities and say scale='probabilities'"
        raise ModelError(f"{model.name}: predict returned {found} {where} for sample '{ids[first]}'{hint}")
    if model.scale == PROBABILITIES:
        wrong, must = outside(scores, model.task)
        if wrong.any():
            first = int(wrong.argmax())
            row = ", ".join(f"{value:.4g}" for value in scores[first][:4]) + (", …" if len(classes) > 4 else "")
            raise ModelError(
                f"{model.name}: predict returned ({row}) {where} for sample '{ids[first]}', but probabilities {must}; "
                "scale='logits' takes any scores"
            )
    ordered = scores[:, [model.classes.index(name) for name in classes]]
    if model.scale == PROBABILITIES:
        return logits_of_probabilities(ordered, several=model.task == "multi-label")
    return np.asarray(ordered, dtype=np.float32)


def _numbers(answer: Any, model: Model, where: str) -> npt.NDArray[np.float64]:
    """``answer`` as an array of numbers, of any shape."""
    try:
        array = np.asarray(_on_cpu(answer))
        if array.dtype.kind in "biuf":
            return array.astype(np.float64)
    except Exception:  # lists of unequal length; an array of another library that does not convert
        array = None
    kind = type(answer).__name__ + (f" of {array.dtype}" if array is not None and array.dtype != object else "")
    raise ModelError(
        f"{model.name}: predict returned {kind} {where}; it must return numbers, samples × classes, as an array, a "
        "tensor or a list"
    )


def _on_cpu(answer: Any) -> Any:
    """``answer``, with tensors (on any device, of any type, with gradients) as arrays."""
    if hasattr(answer, "detach"):
        return answer.detach().cpu().double().numpy()
    if isinstance(answer, (list, tuple)):
        return [_on_cpu(part) for part in answer]
    return answer
