"""What the processors of all image + text families share: a tokenizer, an image processor, padded texts."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
import transformers
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mmrobust.data.processor import Processor
from mmrobust.models.backbones.absent import Absent, present_or_absent
from mmrobust.models.backbones.images import describe_images, fill_image
from mmrobust.storage.fingerprints import fingerprint_settings

P = TypeVar("P", bound="TextImageProcessor")

PROBE = "It's a TEST: naïve façades, 3.14 € (2nd edition) — привет, 東京 🙂\n\tunbelievably  spaced-out_words..."
"""A text in which tokenizers differ: case, accents, scripts, digits, punctuation, spaces."""
PROBE_WORDS = 4096
"""How many words of the vocabulary are tokenized to describe it: all of a small one, every twelfth of CLIP's."""


class TextImageProcessor(Processor):
    """Text by the backbone's tokenizer, images by its image processor.

    Args:
        tokenizer: a fast tokenizer that puts a start and an end token around the text.
        image_processor: of the class that :attr:`image_processor_class` names.
        max_length: how many tokens a text may have; longer ones are cut before their end token.
    """

    image_processor_class: ClassVar[str]
    """Name of the image processor's class in ``transformers``."""

    def __init__(self, tokenizer: Any, image_processor: Any, max_length: int) -> None:
        self.tokenizer, self.image_processor, self.max_length = tokenizer, image_processor, max_length

    @classmethod
    def load(cls: type[P], source: str, max_length: int) -> P:
        """The processor that lies beside the weights in a folder or on the Hub.

        What a folder does not hold raises when it is needed: see :mod:`mmrobust.models.backbones.absent`.
        """
        # No code that lies beside the weights is ever run, and nobody is asked whether to.
        read_tokenizer = partial(transformers.AutoTokenizer.from_pretrained, trust_remote_code=False)
        tokenizer = present_or_absent(read_tokenizer, source, "tokenizer")
        image_processor = getattr(transformers, cls.image_processor_class)
        images = present_or_absent(image_processor.from_pretrained, source, "image processor")
        return cls(tokenizer, images, max_length)

    def encode(self, modality: str, raw: Any) -> Tensor:
        """See :meth:`Processor.encode`."""
        if modality == "text":
            ids = self.tokenizer(raw, truncation=True, max_length=self.max_length)["input_ids"]
            return torch.tensor(ids, dtype=torch.long)
        return torch.from_numpy(self.image_processor(raw)["pixel_values"][0])

    @property
    @abstractmethod
    def fill_size(self) -> tuple[int, int]:
        """Height and width of what stands in for a missing image."""

    def fill(self, modality: str, fill: str) -> Tensor:
        """See :meth:`Processor.fill`: ``''``, or an image of :attr:`fill_size`."""
        if modality == "text":
            return self.encode("text", "")
        return fill_image(fill, self.fill_size, self.image_processor)

    def collate(self, samples: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """See :meth:`Processor.collate`: the inputs of the texts, of the images, or of both."""
        batch: dict[str, Tensor] = {}
        if "text" in samples[0]:
            batch |= self.collate_texts([sample["text"] for sample in samples])
        if "image" in samples[0]:
            batch |= self.collate_images([sample["image"] for sample in samples])
        return batch

    @abstractmethod
    def collate_images(self, images: Sequence[Tensor]) -> dict[str, Tensor]:
        """The backbone's inputs of ``images`` [3, H, W] each."""

    def collate_texts(self, ids: Sequence[Tensor]) -> dict[str, Tensor]:
        """input_ids, attention_mask [B, L], L the longest text of the batch."""
        return {
            "input_ids": pad_sequence(list(ids), batch_first=True, padding_value=self.tokenizer.pad_token_id),
            "attention_mask": pad_sequence([torch.ones_like(text) for text in ids], batch_first=True),
        }

    def save(self, folder: Path) -> None:
        """See :meth:`Processor.save`."""
        self.tokenizer.save_pretrained(folder)
        self.image_processor.save_pretrained(folder)

    def described(self) -> dict[str, Any]:
        """See :meth:`Processor.described`. The tokenizer is described by what it does: its files differ by version."""
        return {"tokenizer": self._tokenizer_described(), "image": describe_images(self.image_processor)}

    def _tokenizer_described(self) -> str | None:
        """Fingerprint of the vocabulary, and of what becomes of a probe and of words from all over the vocabulary."""
        if isinstance(self.tokenizer, Absent):
            return None
        vocabulary = self.tokenizer.get_vocab()
        words = sorted(vocabulary)
        texts = [PROBE, " ".join(words[:: max(1, len(words) // PROBE_WORDS)])]
        ids = [self.tokenizer(text, truncation=False, verbose=False)["input_ids"] for text in texts]
        return fingerprint_settings({"vocabulary": vocabulary, "ids": ids})
