"""A processor against the model that it feeds: what it makes must fit, and fit into memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmrobust.data.processor import Processor
from mmrobust.errors import CheckpointError
from mmrobust.models.backbones.absent import Absent

SIDES = ("height", "width", "shortest_edge", "longest_edge")
LARGEST_SIDE = 4096
"""Pixels; an image processor that makes larger images is damaged, or means to fill the memory."""


def check_processor(processor: Processor, config: Any, source: str) -> None:
    """Raise where ``processor`` gives what the model of ``config`` cannot take.

    Raises:
        CheckpointError: token ids beyond the model's table, no token for padding, images of an absurd size, or filter
            banks of another size than the model's.
    """
    tokenizer = getattr(processor, "tokenizer", None)
    if tokenizer is not None and not isinstance(tokenizer, Absent):
        table = getattr(config, "text_config", config).vocab_size
        highest = max(tokenizer.get_vocab().values(), default=0)
        if highest >= table:
            raise CheckpointError(f"{source}: its tokenizer gives ids up to {highest:,}, its table has {table:,} rows")
        if tokenizer.pad_token_id is None:
            raise CheckpointError(f"{source}: its tokenizer has no token for padding")
    images = getattr(processor, "image_processor", None)
    if images is not None and not isinstance(images, Absent):
        for side in (*_sides(images.size), *_sides(getattr(images, "crop_size", None))):
            if not isinstance(side, int) or not 1 <= side <= LARGEST_SIDE:
                said = f"{side:,}" if isinstance(side, int) else repr(side)
                raise CheckpointError(f"{source}: its image processor makes images of {said} pixels a side")
        expected = getattr(config, "vision_config", config).image_size
        for side in _sides(images.crop_size) if getattr(images, "do_center_crop", False) else ():
            if side != expected:
                raise CheckpointError(
                    f"{source}: its image processor makes images of {side} pixels a side, its weights take {expected}"
                )
    audio = getattr(processor, "audio", None)
    if audio is not None and (audio.frames, audio.mel_bins) != (config.audio_frames, config.mel_bins):
        raise CheckpointError(
            f"{source}: its processor makes filter banks of {audio.frames} × {audio.mel_bins}, its weights take "
            f"{config.audio_frames} × {config.mel_bins}"
        )


def _sides(size: Any) -> list[Any]:
    """What a processor's ``size`` says of sides: a mapping, or the library's own class of the same names."""
    if size is None:
        return []
    values = size if isinstance(size, Mapping) else getattr(size, "__dict__", {"height": size})
    return [values[name] for name in SIDES if values.get(name) is not None]
