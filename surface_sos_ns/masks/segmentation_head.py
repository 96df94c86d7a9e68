"""A light segmentation head that learns a capture from its own masks.

Mistakes in one photo are usually not repeated in the others: the head is trained on all photos and too small to
memorise single mistakes, so it gives every photo what holds for the capture. There are two: the one that is used by
default, and the published one (`patch_head.py`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = [
    "NeighbourHead",
    "SegmentationHead",
    "contrastive_loss",
    "predict",
    "region_consistency_loss",
    "train_head",
]

CONTRASTIVE_WEIGHT = 0.1
CONSISTENCY_WEIGHT = 0.5
TEMPERATURE = 0.2
"""Of the contrastive loss: divides the cosines."""


class SegmentationHead(nn.Module, ABC):
    """Patch features to log-odds of the object, and to an embedding in which both sides keep apart."""

    @abstractmethod
    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(B, D, h, w) features to (B, h, w) log-odds and (B, width, h, w) embeddings of length 1."""

    @abstractmethod
    def loss(self, odds: Tensor, embeddings: Tensor, target: Tensor, link: Tensor) -> Tensor:
        """What the training minimises, a scalar.

        Args:
            odds, embeddings: of :meth:`forward`.
            target: (B, h, w) probabilities in [0, 1]; over 0.5 means the object.
            link: (B, 2, h, w) likeness of a patch and its neighbour right and below, in [0, 1].
        """


class NeighbourHead(SegmentationHead):
    """Two layers on each patch alone and one that sees its eight neighbours: some ten thousand weights.

    The loss is the cross-entropy with the targets, weighted by their certainty, plus the contrastive and the
    region-consistency loss. The classes are not balanced: the object is the smaller one, and an ambiguous patch is
    more often background.

    Args:
        channels: of the features.
        width: of the hidden layers and the embedding.
    """

    def __init__(self, channels: int, width: int = 32) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(channels, width, 1), nn.GELU(), nn.Conv2d(width, width, 1), nn.GELU())
        self.neighbours = nn.Conv2d(width, width, 3, padding=1, padding_mode="replicate")
        self.decision = nn.Conv2d(width, 1, 1)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """See :meth:`SegmentationHead.forward`."""
        hidden = self.stem(features)
        hidden = hidden + functional.gelu(self.neighbours(hidden))
        return self.decision(hidden)[:, 0], functional.normalize(hidden, dim=1)

    def loss(self, odds: Tensor, embeddings: Tensor, target: Tensor, link: Tensor) -> Tensor:
        """See :meth:`SegmentationHead.loss`."""
        certainty = (2 * target - 1).abs()
        wanted = (target > 0.5).float()
        loss = (functional.binary_cross_entropy_with_logits(odds, wanted, reduction="none") * certainty).mean()
        flat = embeddings.permute(0, 2, 3, 1).reshape(-1, embeddings.shape[1])
        clear = (target - 0.5).abs().reshape(-1) > 0.25
        loss = loss + CONTRASTIVE_WEIGHT * contrastive_loss(flat[clear], wanted.reshape(-1)[clear] > 0.5)
        consistency = region_consistency_loss(odds.sigmoid(), link[:, 0, :, :-1], link[:, 1, :-1])
        return loss + CONSISTENCY_WEIGHT * consistency


def contrastive_loss(embeddings: Tensor, labels: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """Patches near the mean of their own side and far from the other's.

    Cross-entropy of the cosines with both sides' mean directions (InfoNCE with two prototypes, which are not
    differentiated).

    Args:
        embeddings: (P, D) of length 1.
        labels: (P,) bool.
        temperature: divides the cosines.

    Returns:
        Scalar; zero where one side is empty.
    """
    if bool(labels.all()) or not bool(labels.any()):
        return embeddings.sum() * 0
    means = torch.stack([embeddings[~labels].mean(0), embeddings[labels].mean(0)])
    prototypes = functional.normalize(means, dim=1).detach()
    return functional.cross_entropy(embeddings @ prototypes.T / temperature, labels.long())


def region_consistency_loss(probability: Tensor, right: Tensor, below: Tensor) -> Tensor:
    """Neighbours that look alike get alike probabilities: mean of likeness times squared difference.

    Args:
        probability: (B, h, w).
        right: (B, h, w - 1) likeness of a patch and its right neighbour, in [0, 1].
        below: (B, h - 1, w) the same for the one below.
    """
    across = right * (probability[:, :, 1:] - probability[:, :, :-1]) ** 2
    down = below * (probability[:, 1:] - probability[:, :-1]) ** 2
    return (across.sum() + down.sum()) / max(across.numel() + down.numel(), 1)


def train_head(
    features: Sequence[np.ndarray],
    targets: Sequence[np.ndarray],
    links: Sequence[np.ndarray],
    *,
    kind: Callable[[int], SegmentationHead] = NeighbourHead,
    steps: int = 300,
    crop: int = 32,
    batch: int = 8,
    seed: int = 0,
) -> SegmentationHead:
    """Trains a head on a capture.

    Args:
        features: N grids (h, w, D) float32.
        targets: N grids (h, w) of probabilities in [0, 1]; `NeighbourHead` weights them by certainty, 0.5 by 0.
        links: N arrays (4, h, w), likeness to neighbours; the first two are right and below.
        kind: makes a head for features of so many channels.
        steps: of Adam.
        crop: windows of at most this many patches a side are drawn from random photos.
        batch: windows a step.
        seed: of weights and windows.
    """
    generator = np.random.default_rng(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = kind(features[0].shape[-1])
    rows = min(crop, min(grid.shape[0] for grid in features))
    columns = min(crop, min(grid.shape[1] for grid in features))
    optimizer = torch.optim.AdamW(head.parameters(), lr=3e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        windows: list[list[np.ndarray]] = [[], [], []]
        for view in generator.integers(len(features), size=batch):
            top = int(generator.integers(features[view].shape[0] - rows + 1))
            left = int(generator.integers(features[view].shape[1] - columns + 1))
            here = slice(top, top + rows), slice(left, left + columns)
            windows[0].append(features[view][here].transpose(2, 0, 1))
            windows[1].append(targets[view][here])
            windows[2].append(links[view][:2, here[0], here[1]])
        seen, target, link = (torch.from_numpy(np.stack(part).astype(np.float32)) for part in windows)
        odds, embeddings = head(seen)
        loss = head.loss(odds, embeddings, target, link)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
    return head.eval()


@torch.no_grad()
def predict(head: SegmentationHead, features: np.ndarray) -> np.ndarray:
    """(h, w) float32 log-odds of the object for a grid (h, w, D)."""
    odds, _ = head(torch.from_numpy(np.ascontiguousarray(features.transpose(2, 0, 1)))[None])
    return odds[0].numpy()
