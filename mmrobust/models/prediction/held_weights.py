"""Weights in the number format in which matrix products take them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from mmrobust.models.classifier import Classifier

_PRODUCTS = (nn.Linear, nn.Conv2d)
"""What autocast computes in bfloat16; norms and embeddings it leaves as they are."""


@contextmanager
def held_in_bfloat16(classifier: Classifier, *, frozen: bool = False) -> Iterator[None]:
    """Hold the backbone's weights of matrix products in bfloat16 in the block, if the classifier computes in it.

    Autocast would cast each of them anew in every forward pass, to the same bits: it remembers casts of weights that
    train alone. Those are left as they are if only what is ``frozen`` is to be held. Afterwards the weights are the
    float32 ones again, of which fingerprints are made.
    """
    parts = [part for part in classifier.backbone.modules() if isinstance(part, _PRODUCTS)]
    weights = {id(weight): weight for part in parts for weight in part._parameters.values() if weight is not None}
    held = [weight for weight in weights.values() if not (frozen and weight.requires_grad)]
    originals = [(weight, weight.data) for weight in held if weight.dtype == torch.float32]
    if classifier.dtype != "bfloat16":
        originals.clear()
    try:
        for weight, original in originals:
            weight.data = original.to(torch.bfloat16)
        yield
    finally:
        for weight, original in originals:
            weight.data = original
