"""Running a classifier over samples of one case: batches in, logits in input order out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from mmrobust.cases import Case
from mmrobust.classifier import Classifier
from mmrobust.data.batches import EncodedSplit
from mmrobust.errors import UsageError, unknown_name
from mmrobust.progress import Advance

DEFAULT_BATCH_SIZE = 64
DTYPES = ("float32", "bfloat16")


def predict(
    classifier: Classifier,
    encoded: EncodedSplit,
    positions: Sequence[int],
    case: str,
    prompting: str,
    *,
    batch_size: int = DEFAULT_BATCH_SIZE,
    advance: Advance | None = None,
) -> npt.NDArray[np.float32]:
    """Logits [len(positions), classes] of the samples at ``positions``, each in ``case``.

    The classifier must be in evaluation mode. Neither the batch size nor the order of the positions changes a logit by
    more than float rounding.
    """
    device = next(classifier.parameters()).device
    state = Case.parse(case, classifier.modalities)
    row = {position: index for index, position in enumerate(positions)}
    logits = np.empty((len(positions), len(classifier.classes)), dtype=np.float32)
    with torch.inference_mode():
        for batch in encoded.batches(positions, state, batch_size):
            inputs = encoded.processor.collate(encoded.samples(batch, state))
            inputs = {name: tensor.to(device) for name, tensor in inputs.items()}
            values = classifier(inputs, case, prompting).cpu().numpy()
            logits[[row[position] for position in batch.tolist()]] = values
            if advance is not None:
                advance(len(batch))
    return logits


def resolve_device(name: str) -> torch.device:
    """The device for ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        UsageError: no such device, or none on this machine.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda") or (index and not index.isdigit()):
        raise unknown_name("device", name, ("auto", "cpu", "cuda", "cuda:N"))
    if kind == "cuda" and (not torch.cuda.is_available() or int(index or 0) >= torch.cuda.device_count()):
        raise UsageError(f"device {name}: PyTorch sees {torch.cuda.device_count()} GPUs here; use --device auto")
    return torch.device(name)


def resolve_dtype(name: str, device: torch.device) -> str:
    """``float32`` or ``bfloat16``; ``auto`` means bfloat16 on a GPU and float32 on a CPU.

    Raises:
        UsageError: another name.
    """
    if name == "auto":
        return "bfloat16" if device.type == "cuda" else "float32"
    if name not in DTYPES:
        raise unknown_name("dtype", name, ("auto", *DTYPES))
    return name


def resolve_batch_size(text: str) -> int:
    """A number of samples; ``auto`` means the default.

    Raises:
        UsageError: no positive whole number.
    """
    if text == "auto":
        return DEFAULT_BATCH_SIZE
    if not text.isdigit() or int(text) < 1:
        raise UsageError(f"batch size '{text}': give a positive whole number, or auto")
    return int(text)
