"""Error rates of each coarse mask, estimated against the label that all masks together have taught, and vote weights.

Masks of one capture fail in different ways: one misses parts, one marks a piece of wall, one is empty. Votes are
weighted by these rates, as crowdsourced labels are (Dawid & Skene 1979): for a mask with many false negatives but few
false positives, a vote for the object weighs more than one against it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

PRIOR_RATES = (0.1, 0.8)
"""Prior false and true positive rate of a mask: the shares of the background and of the object that it covers."""
PRIOR_RAYS = 64.0
"""Weight of the prior, in rays of each class."""
MIN_RATE = 0.02
"""Bound on all estimated error rates from below: no mask counts as perfect."""


class MaskReliability(nn.Module):
    """False and true positive rates of the masks of V views on rays near the object, and the weights of their votes.

    Args:
        views: V.
        memory: half-life of the counts, in rays of a view.
    """

    counts: Tensor
    prior: Tensor

    def __init__(self, views: int, memory: float = 2000.0):
        super().__init__()
        self.memory = memory
        self.register_buffer("counts", torch.zeros(views, 2, 2))  # rays by consensus and mask: background, object
        self.register_buffer("prior", PRIOR_RAYS * torch.tensor(PRIOR_RATES), persistent=False)

    @torch.no_grad()
    def observe(self, view: Tensor, mask: Tensor, consensus: Tensor, counted: Tensor | None = None) -> None:
        """Count rays near the object.

        Args:
            view: (R,) int64.
            mask: (R,) coarse mask, in [0, 1].
            consensus: (R,) rendered label, in [0, 1]: what all masks together say.
            counted: (R,) bool, which rays count; None for all.
        """
        both = torch.stack([1.0 - consensus, consensus], -1)[:, :, None] * torch.stack([1.0 - mask, mask], -1)[:, None]
        each = torch.ones_like(mask) if counted is None else counted.to(mask.dtype)
        both = both * each[:, None, None]
        rays = torch.zeros_like(self.counts[:, 0, 0]).index_add_(0, view, each)
        self.counts.mul_(0.5 ** (rays / self.memory)[:, None, None])
        self.counts.index_add_(0, view, both)

    def forget(self, views: Sequence[int]) -> None:
        """Reset the counts of some views, whose masks have been replaced."""
        self.counts[list(views)] = 0.0

    def rates(self) -> tuple[Tensor, Tensor]:
        """False and true positive rate of each mask, (V,) each."""
        covered = self.counts[..., 1] + self.prior
        rates = (covered / (self.counts.sum(-1) + PRIOR_RAYS)).clamp(MIN_RATE, 1.0 - MIN_RATE)
        return rates[:, 0], rates[:, 1]

    def vote_weight(self, view: Tensor, mask: Tensor) -> Tensor:
        """Weight (R,) of each vote: its log-likelihood ratio, 0 where the mask is uninformative. No gradient.

        Args:
            view: (R,) int64.
            mask: (R,) in [0, 1].
        """
        with torch.no_grad():
            false, true = self.rates()
            for_object = (true / false).log().clamp(min=0.0)[view]
            against = ((1.0 - false) / (1.0 - true)).log().clamp(min=0.0)[view]
            return mask * for_object + (1.0 - mask) * against
