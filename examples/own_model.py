"""A model of your own, in plain PyTorch: a CNN for pictures and a GRU for texts. Nothing of mmrobust is in it.

    python examples/own_model.py data/digits                 # trains it, in seconds, into own_model.pt
    mmrobust eval examples/own_model.py:model --data data/digits --out results/own
    mmrobust audit examples/own_model.py:model --data data/digits

What `mmrobust` needs is at the end: `predict`, and `model`, a function that makes a `mmrobust.Model` from the weights.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import mmrobust

WEIGHTS = Path("own_model.pt")
SIDE, LENGTH, WIDTH = 32, 64, 64
"""Pictures are shrunk to 32 × 32 pixels, texts are the first 64 bytes."""
EPOCHS, BATCH, LOST = 12, 32, 0.3
"""A modality of a training sample is lost with this probability, so the model learns to do without it."""


class CnnGru(nn.Module):
    """One vector for each modality, added up; a learned vector stands for one that is missing."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.cnn = nn.Sequential(
            *(nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU()),
            *(nn.Conv2d(32, 32, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(512, WIDTH)),
        )
        self.letters = nn.Embedding(256, 32)
        self.gru = nn.GRU(32, WIDTH, batch_first=True)
        self.no_picture, self.no_text = (nn.Parameter(torch.zeros(WIDTH)) for _ in range(2))
        self.head = nn.Linear(WIDTH, classes)

    def forward(self, pictures: Tensor, texts: Tensor, has_picture: Tensor, has_text: Tensor) -> Tensor:
        """Logits [B, classes] from pictures [B, 3, 32, 32], bytes [B, 64], and whether each is there [B]."""
        states, _ = self.gru(self.letters(texts))
        picture = torch.where(has_picture[:, None], self.cnn(pictures), self.no_picture)
        text = torch.where(has_text[:, None], states.amax(1), self.no_text)
        return self.head(torch.relu(picture + text))


def tensors(samples: list[dict[str, Any]]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What the network takes, from dicts with an `image` (a PIL image) and a `text`, each of which may be None."""
    pictures = np.zeros((len(samples), 3, SIDE, SIDE), dtype=np.float32)
    texts = np.zeros((len(samples), LENGTH), dtype=np.int64)
    for row, sample in enumerate(samples):
        if sample["image"] is not None:
            pictures[row] = np.asarray(sample["image"].resize((SIDE, SIDE))).transpose(2, 0, 1) / 127.5 - 1
        if sample["text"] is not None:
            letters = sample["text"].encode()[:LENGTH]
            texts[row, : len(letters)] = list(letters)
    there = [torch.tensor([sample[modality] is not None for sample in samples]) for modality in ("image", "text")]
    return torch.from_numpy(pictures), torch.from_numpy(texts), *there


def train(samples: list[dict[str, Any]], labels: list[int], classes: list[str]) -> None:
    """Train from scratch, and write the weights."""
    torch.manual_seed(0)
    network, labels = CnnGru(len(classes)), torch.tensor(labels)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    pictures, texts, has_picture, has_text = tensors(samples)
    for epoch in range(EPOCHS):
        total = 0.0
        for rows in torch.randperm(len(samples)).split(BATCH):
            lost = torch.rand(2, len(rows)) < LOST
            logits = network(pictures[rows], texts[rows], has_picture[rows] & ~lost[0], has_text[rows] & ~lost[1])
            loss = nn.functional.cross_entropy(logits, labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += float(loss.detach()) * len(rows)
        print(f"epoch {epoch + 1}: loss {total / len(samples):.3f}")
    torch.save({"classes": classes, "weights": network.state_dict()}, WEIGHTS)


def model() -> mmrobust.Model:
    """What the command line is given: own_model.py:model."""
    held = torch.load(WEIGHTS, weights_only=True)
    network = CnnGru(len(held["classes"])).eval()
    network.load_state_dict(held["weights"])

    def predict(samples: list[dict[str, Any]], case: str | None) -> Tensor:
        with torch.inference_mode():
            return network(*tensors(samples))

    return mmrobust.Model(
        name="cnn-gru",
        version=hashlib.sha256(WEIGHTS.read_bytes()).hexdigest(),
        modalities=("image", "text"),
        classes=held["classes"],
        task="single-label",
        predict=predict,
    )


def main() -> None:
    """Train on a data set of mmrobust's; yours may come from anywhere."""
    from mmrobust.data import Dataset
    from mmrobust.data.decoding import decode

    split = Dataset(sys.argv[1]).split("train")
    samples = [{modality: decode(sample, modality) for modality in ("image", "text")} for sample in split]
    train(samples, [label for (label,) in split.labels], list(split.info.classes))


if __name__ == "__main__":
    main()
