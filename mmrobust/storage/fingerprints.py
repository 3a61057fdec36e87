"""Fingerprints: short hashes that say whether two data sets, weights or settings are the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

DIGEST_BYTES = 16


def new_digest() -> hashlib.blake2b:
    """An empty hash of the kind that all fingerprints use."""
    return hashlib.blake2b(digest_size=DIGEST_BYTES)


def fingerprint_settings(settings: Mapping[str, Any]) -> str:
    """Fingerprint of plain settings (what JSON can hold), whatever the order of their keys."""
    digest = new_digest()
    digest.update(json.dumps(settings, sort_keys=True, separators=(",", ":")).encode())
    return digest.hexdigest()


def fingerprint_tensors(tensors: Mapping[str, torch.Tensor]) -> str:
    """Fingerprint of named tensors: names, types, shapes and every bit of the values."""
    digest = new_digest()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}/{tensor.dtype}/{tuple(tensor.shape)}/".encode())
        # .view(uint8) works for every dtype, bfloat16 included, where numpy() alone does not.
        digest.update(tensor.flatten().view(_byte_type()).numpy().tobytes())
    return digest.hexdigest()


def _byte_type() -> torch.dtype:
    import torch

    return torch.uint8
