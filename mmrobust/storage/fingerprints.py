"""Fingerprints: short hashes that tell whether two data sets, weights or settings are the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

DIGEST_BYTES = 16


def new_digest() -> hashlib.blake2b:
    """Return an empty hash of the kind that all fingerprints use."""
    return hashlib.blake2b(digest_size=DIGEST_BYTES)


def fingerprint_settings(settings: Mapping[str, Any]) -> str:
    """Hash plain settings (what JSON can hold); the order of keys does not matter."""
    digest = new_digest()
    digest.update(json.dumps(settings, sort_keys=True, separators=(",", ":")).encode())
    return digest.hexdigest()


def fingerprint_tensors(tensors: Mapping[str, torch.Tensor]) -> str:
    """Hash named tensors: names, types, shapes and every bit of the values."""
    import torch

    digest = new_digest()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}/{tensor.dtype}/{tuple(tensor.shape)}/".encode())
        # Viewed as bytes, because NumPy has no bfloat16.
        digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
