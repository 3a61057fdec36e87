"""Running a classifier over samples of one case: batches in, logits in input order out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from mmrobust.cases import Case
from mmrobust.classifier import Classifier
from mmrobust.data.batches import EncodedSplit
from mmrobust.devices import DEFAULT_BATCH_SIZE
from mmrobust.progress import Advance


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
