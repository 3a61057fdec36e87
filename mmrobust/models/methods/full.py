"""``full``: complete fine-tuning. Everything trains, and the checkpoint holds the backbone."""

from __future__ import annotations

from mmrobust.models.methods.base import Method


class FullFineTuning(Method):
    """Every weight of the backbone trains: a baseline, and how a tiny backbone gets its knowledge."""

    name = "full"
    trains_backbone = True
    trains_pooling = True
