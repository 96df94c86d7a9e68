"""The published head of Selfment: a small network on every patch alone, with Dice and supervised contrastive loss."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from surface_sos_ns.masks.segmentation_head import SegmentationHead

__all__ = ["PatchHead", "dice_loss", "supervised_contrastive_loss"]

CONTRASTIVE_WEIGHT = 0.1
TEMPERATURE = 0.1
"""Of the contrastive loss: divides the cosines."""

MAX_PAIRED = 1024
"""Patches of a step whose pairs are compared, at most, evenly spaced: the pairs grow with their square."""


class PatchHead(SegmentationHead):
    """Two layers on each patch alone.

    The loss is the cross-entropy, plus Dice, plus 0.1 of the supervised contrastive loss. Labels are hard.

    Args:
        channels: of the features.
        width: of the hidden layers and the embedding.
    """

    def __init__(self, channels: int, width: int = 128) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(channels, width, 1), nn.GELU(), nn.Conv2d(width, width, 1), nn.GELU())
        self.decision = nn.Conv2d(width, 1, 1)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """See :meth:`SegmentationHead.forward`."""
        hidden = self.stem(features)
        return self.decision(hidden)[:, 0], functional.normalize(hidden, dim=1)

    def loss(self, odds: Tensor, embeddings: Tensor, target: Tensor, link: Tensor) -> Tensor:
        """See :meth:`SegmentationHead.loss`."""
        wanted = (target > 0.5).float()
        loss = functional.binary_cross_entropy_with_logits(odds, wanted) + dice_loss(odds.sigmoid(), wanted)
        flat = embeddings.permute(0, 2, 3, 1).reshape(-1, embeddings.shape[1])
        every = max(1, -(-len(flat) // MAX_PAIRED))
        pairs = supervised_contrastive_loss(flat[::every], wanted.reshape(-1)[::every] > 0.5)
        return loss + CONTRASTIVE_WEIGHT * pairs


def dice_loss(probability: Tensor, wanted: Tensor) -> Tensor:
    """One minus the Dice coefficient of each grid, averaged.

    Both its numerator and its denominator are larger by 1, so that a grid without object has one as well.

    Args:
        probability: (B, h, w) in [0, 1].
        wanted: (B, h, w), 0 or 1.
    """
    shared = (probability * wanted).sum(dim=(1, 2))
    total = probability.sum(dim=(1, 2)) + wanted.sum(dim=(1, 2))
    return (1 - (2 * shared + 1) / (total + 1)).mean()


def supervised_contrastive_loss(embeddings: Tensor, labels: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """Patches of one side near one another and far from those of the other side (Khosla et al., 2020, L_out).

    Of each patch the mean, over the others of its side, of the cross-entropy of their cosine among its cosines with
    all others.

    Args:
        embeddings: (P, D) of length 1.
        labels: (P,) bool.
        temperature: divides the cosines.

    Returns:
        Scalar, the mean over patches that have others of their side; zero where none has.
    """
    itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    same = (labels[:, None] == labels[None, :]) & ~itself
    cosines = embeddings @ embeddings.T / temperature
    log_share = cosines - cosines.masked_fill(itself, -torch.inf).logsumexp(dim=1, keepdim=True)
    paired = same.any(dim=1)
    if not bool(paired.any()):
        return embeddings.sum() * 0
    each = (log_share * same).sum(dim=1)[paired] / same.sum(dim=1)[paired]
    return -each.mean()
