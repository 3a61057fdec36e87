"""The glance of a tiny backbone: what a linear probe sees of each modality, beside what the deep network makes of it.

A small network that learns from a few hundred samples is easily worse than a logistic regression on the words of the
texts or on small pictures. So a tiny backbone holds both: each modality's simple features (:class:`TextSight`,
:class:`ImageSight`, :class:`AudioSight`) are mapped to one number per class, and these numbers stand beside the pooled
vectors of the deep network (``models/pooling.py``). Before the first epoch the maps are those of a linear probe, which
the training fits to all modalities at once (``training/probe.py``). A missing modality's fill gives zeros.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from mmrobust.errors import CheckpointError
from mmrobust.storage.weights import check_finite, read_weights, write_weights

FILE = "glance.safetensors"
UNIT = 4.0
"""Logits. What 1 in a glance stands for, so that it is about as large as the network's features."""
PREFIX = "glance."
"""Begins the names of its weights among those of a backbone."""
SIDE = 16
"""Pixels. The side of the small pictures."""
PART = 1 / 3
"""The weight of a token that is part of another one of the text; a token of the text itself has 1."""
LONGEST = 32
"""Characters. Longer tokens have no parts; they are no words."""
LEAST_CONTRAST = 1e-3
"""Below it, in units of the processor's pixels, a picture is blank."""


class Sight(nn.Module):
    """Turns a batch of one modality into simple features [B, features], 0 for an empty input, such as a fill."""

    features: int
    sparse = False
    """Whether most features of a sample are 0."""


class TextSight(Sight):
    """The tokens of a text, whatever their order, and the tokens that are part of these, weighed by their rarity.

    A vector of length 1, as of tf-idf. The parts are what words have in common that were merged to one token each.
    """

    sparse = True
    rarity: Tensor

    def __init__(self, parts_VP: Tensor) -> None:
        super().__init__()
        self.features = len(parts_VP)
        self.register_buffer("parts", parts_VP)
        self.register_buffer("rarity", torch.zeros(len(parts_VP)))

    def forward(self, ids_BL: Tensor, valid_BL: Tensor | None) -> Tensor:
        """See :class:`Sight`."""
        return F.normalize(self._present(ids_BL, valid_BL) * self.rarity, dim=1)

    def learn_rarity(self, texts: Iterable[Tensor]) -> None:
        """Take the rarity of tokens from the ids [L] of training texts: the smoothed inverse of the share that have it.

        A token that is in none has 0.
        """
        found, total = torch.zeros_like(self.rarity), 0
        texts = iter(texts)
        while some := list(islice(texts, 256)):
            ids = nn.utils.rnn.pad_sequence(some, batch_first=True)
            valid = nn.utils.rnn.pad_sequence([torch.ones_like(each) for each in some], batch_first=True).bool()
            found += (self._present(ids, valid) > 0).sum(0)
            total += len(some)
        self.rarity.copy_(torch.where(found > 0, ((1 + total) / (1 + found)).log() + 1, 0.0))

    def _present(self, ids_BL: Tensor, valid_BL: Tensor | None) -> Tensor:
        """[B, V]: 1 where a token is in the text, :data:`PART` where it is part of one."""
        ids_BL = ids_BL if valid_BL is None else torch.where(valid_BL, ids_BL, 0)
        parts_BN = self.get_buffer("parts")[ids_BL].flatten(1)
        present_BV = torch.zeros(len(ids_BL), self.features, device=ids_BL.device)
        present_BV = present_BV.scatter(1, parts_BN, PART).scatter(1, ids_BL, 1.0)
        return present_BV * self.get_buffer("parts").any(1)  # special tokens, and so padding, have no parts


def parts_of(tokenizer: Any) -> Tensor:
    """[V, P]: for each token, itself and the tokens of two characters or more in it, filled up with itself.

    Special tokens have 0 throughout, which is one of them.
    """
    words: Mapping[str, int] = tokenizer.get_vocab()
    special = set(tokenizer.all_special_ids)
    rows: list[list[int]] = [[0]] * (max(words.values()) + 1)
    for word, index in words.items():
        if index in special:
            continue
        ends = range(len(word) + 1) if len(word) <= LONGEST else ()
        inner = {words.get(word[start:end]) for end in ends for start in range(end - 1)} - {None} - special
        rows[index] = [index, *sorted(number for number in inner if number is not None and number != index)]
    most = max(map(len, rows))
    return torch.tensor([row + row[:1] * (most - len(row)) for row in rows])


class ImageSight(Sight):
    """The picture of 16 × 16 pixels, without its mean colour, as a vector of length 1: the same contrast for all."""

    features = 3 * SIDE**2

    def forward(self, pixels_BCHW: Tensor, extent_B2: Tensor | None) -> Tensor:
        """See :class:`Sight`. ``extent_B2``: height and width of each picture without its padding."""
        batch, _, height, width = pixels_BCHW.shape
        whole = [torch.full((batch,), side, device=pixels_BCHW.device) for side in (height, width)]
        extents = whole if extent_B2 is None else extent_B2.unbind(1)
        rows_BSH, columns_BSW = (_cells(own, side) for own, side in zip(extents, (height, width), strict=True))
        small_BCSS = rows_BSH[:, None] @ pixels_BCHW.float() @ columns_BSW[:, None].transpose(2, 3)
        small_BF = (small_BCSS - small_BCSS.mean((2, 3), keepdim=True)).flatten(1)
        length_B1 = small_BF.norm(dim=1, keepdim=True)
        blank_B1 = length_B1 < LEAST_CONTRAST * math.sqrt(self.features)
        return torch.where(blank_B1, 0.0, small_BF / length_B1)


def _cells(extent_B: Tensor, side: int) -> Tensor:
    """[B, 16, side]: the share that each of ``side`` pixels has in the mean of each of 16 cells of equal size.

    Of every sample, the first ``extent_B`` pixels count.
    """
    pixel = torch.arange(side, device=extent_B.device)
    edges_BS = extent_B[:, None] * torch.arange(SIDE + 1, device=extent_B.device) / SIDE
    upper, lower = edges_BS[:, 1:, None], edges_BS[:, :-1, None]
    shared = (torch.minimum(upper, pixel + 1) - torch.maximum(lower, pixel)).clamp(min=0)
    return shared / (upper - lower)


class AudioSight(Sight):
    """Mean and standard deviation over time of each mel bin."""

    def __init__(self, mel_bins: int) -> None:
        super().__init__()
        self.features = 2 * mel_bins

    def forward(self, bank_BTM: Tensor, extent: Tensor | None) -> Tensor:
        """See :class:`Sight`. Frames of one value throughout are padding, or a fill."""
        bank_BTM = bank_BTM.float()
        heard_BT1 = (bank_BTM.amax(2) > bank_BTM.amin(2))[..., None].float()
        frames_B1 = heard_BT1.sum(1).clamp(min=1)
        mean_BM = (bank_BTM * heard_BT1).sum(1) / frames_B1
        spread_BM = ((bank_BTM - mean_BM[:, None]).square() * heard_BT1).sum(1) / frames_B1
        return torch.cat([mean_BM, spread_BM.sqrt()], dim=1) / math.sqrt(self.features)


class Glance(nn.Module):
    """The sights of a backbone's modalities, and a linear map of each to ``outputs`` numbers, one per class.

    Args:
        sights: modality → its sight.
        outputs: classes of the data set; 1 for a regression.
    """

    def __init__(self, sights: Mapping[str, Sight], outputs: int) -> None:
        super().__init__()
        self.apart = False
        """Whether it is left out in training mode, so that the network learns as if there was none."""
        self.modalities = tuple(sights)
        self.sights = nn.ModuleDict({_key(modality): sight for modality, sight in sights.items()})
        self.maps, self.offsets = nn.ParameterDict(), nn.ParameterDict()
        self.reset(outputs)

    def sight(self, modality: str) -> Sight:
        """The sight of a modality."""
        sight = self.sights[_key(modality)]
        assert isinstance(sight, Sight)
        return sight

    def reset(self, outputs: int) -> None:
        """Forget the maps, and have so many ``outputs`` from now on."""
        self.outputs = outputs
        for modality in self.modalities:
            self.maps[_key(modality)] = nn.Parameter(torch.zeros(self.sight(modality).features, outputs))
            self.offsets[_key(modality)] = nn.Parameter(torch.zeros(outputs))

    @torch.no_grad()
    def set(self, modality: str, weight_FO: Tensor, mean_F: Tensor) -> None:
        """Set the map of a modality from a probe's, by which the features' mean has a glance of 0."""
        self.maps[_key(modality)].copy_(weight_FO / UNIT)
        self.offsets[_key(modality)].copy_(-mean_F @ weight_FO / UNIT)

    def forward(self, modality: str, values: Tensor, valid: Tensor | None) -> Tensor:
        """The glance [B, outputs] at a modality; ``values`` and ``valid`` are what its sight takes."""
        with torch.autocast(values.device.type, enabled=False):  # a sum of many small numbers, and a cheap one
            seen_BF = self.sight(modality)(values, valid)
            glance_BO: Tensor = seen_BF @ self.maps[_key(modality)] + self.offsets[_key(modality)]
            return torch.where(seen_BF.any(1, keepdim=True), glance_BO, 0.0)

    @property
    def fitted(self) -> bool:
        """Whether a probe was fitted: before that, it is 0 throughout."""
        return any(bool(weight.any()) for weight in self.maps.values())

    @property
    def sizes(self) -> dict[str, int]:
        """Modality → how many numbers its glance has."""
        return dict.fromkeys(self.modalities, self.outputs)

    def save(self, folder: Path) -> None:
        """Write its weights into the folder of the backbone."""
        write_weights(folder / FILE, {name: t.detach().cpu().contiguous() for name, t in self.state_dict().items()})

    @classmethod
    def load(cls, file: Path, modalities: Iterable[str]) -> Glance:
        """The glance that :meth:`save` wrote, of a backbone that takes these ``modalities``.

        Raises:
            CheckpointError: its weights do not fit one another, or the modalities.
        """
        tensors = read_weights(file, "weights of a glance")
        check_finite(tensors, file)
        sights: dict[str, Sight] = {}
        for modality in modalities:
            weight, parts = tensors.get(f"maps.{_key(modality)}"), tensors.get(f"sights.{_key(modality)}.parts")
            if parts is not None and parts.ndim == 2 and not parts.is_floating_point():
                sights[modality] = TextSight(parts)
            elif weight is not None and len(weight) != ImageSight.features:
                sights[modality] = AudioSight(len(weight) // 2)
            else:
                sights[modality] = ImageSight()
        widths = {t.shape[-1] for name, t in tensors.items() if name.startswith("maps.") and t.ndim == 2}
        glance = cls(sights, max(widths, default=1))
        expected = glance.state_dict()
        fits = {name: t.shape for name, t in tensors.items()} == {name: t.shape for name, t in expected.items()}
        for sight in sights.values():
            if isinstance(sight, TextSight):
                parts = sight.get_buffer("parts")
                fits &= bool(parts.numel()) and int(parts.min()) >= 0 and int(parts.max()) < len(parts)
        if not fits:
            raise CheckpointError(f"{file}: its weights do not fit the backbone's modalities; train it again")
        glance.load_state_dict(tensors)
        return glance


def _key(modality: str) -> str:
    """A modality's key among modules, whose own attributes (``values``, ``type``) are no keys."""
    return f"of_{modality}"
