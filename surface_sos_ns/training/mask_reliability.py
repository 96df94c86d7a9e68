"""Error rates of each coarse mask, estimated against the label learned from all masks, and weights of the masks' votes.

Masks of one capture fail in different ways: one misses parts, one marks a piece of wall, one is empty, one takes two
objects for each other. Votes are weighted by these rates, as crowdsourced labels are (Dawid & Skene 1979): for a mask
with many false negatives but few false positives, a vote for the object weighs more than one against it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

PRIOR_RATES = (0.1, 0.8)
"""Prior false and true positive rate of a mask: the shares of the background and of the object that it covers. Covered
background is divided evenly over the objects; missed object evenly over the background and the other objects."""
PRIOR_RAYS = 64.0
"""Weight of the prior, in rays of each class."""
MIN_RATE = 0.02
"""Bound on all estimated error rates from below: no mask counts as perfect."""


class MaskReliability(nn.Module):
    """Confusion matrices of the masks of V views on rays near the objects, and the weights of their votes.

    There are K + 1 classes, the background first.

    Args:
        views: V.
        objects: K.
        memory: half-life of the counts, in rays of a view.
    """

    counts: Tensor
    prior: Tensor

    def __init__(self, views: int, objects: int = 1, memory: float = 2000.0):
        super().__init__()
        self.memory = memory
        classes = objects + 1
        self.register_buffer("counts", torch.zeros(views, classes, classes))  # rays by consensus and by mask
        self.register_buffer("prior", PRIOR_RAYS * _prior_rates(objects), persistent=False)

    @torch.no_grad()
    def observe(self, view: Tensor, votes: Tensor, consensus: Tensor, counted: Tensor | None = None) -> None:
        """Count rays near the objects.

        Args:
            view: (R,) int64.
            votes: (R, K + 1) shares of the classes by the coarse mask, see `class_shares`.
            consensus: (R, K + 1) rendered probabilities of the classes: the label learned from all masks.
            counted: (R,) bool, which rays count; None for all.
        """
        both = consensus[:, :, None] * votes[:, None]
        each = torch.ones_like(votes[:, 0]) if counted is None else counted.to(votes.dtype)
        both = both * each[:, None, None]
        rays = torch.zeros_like(self.counts[:, 0, 0]).index_add_(0, view, each)
        self.counts.mul_(0.5 ** (rays / self.memory)[:, None, None])
        self.counts.index_add_(0, view, both)

    def forget(self, views: Sequence[int]) -> None:
        """Reset the counts of some views, whose masks have been replaced."""
        self.counts[list(views)] = 0.0

    def rates(self) -> Tensor:
        """(V, K + 1, K + 1) probability that a mask says class j of a ray that is of class i, at [view, i, j]."""
        covered = self.counts[..., 1:] + self.prior
        objects = (covered / (self.counts.sum(-1, keepdim=True) + PRIOR_RAYS)).clamp(MIN_RATE, 1.0 - MIN_RATE)
        none = (1.0 - objects.sum(-1, keepdim=True)).clamp(min=0.5 * MIN_RATE)
        return torch.cat([none, objects], -1)

    def vote_weight(self, view: Tensor, mask: Tensor, identity: Tensor | None = None) -> Tensor:
        """Weight (R,) of each vote: its log-likelihood ratio to the class that it is most easily mistaken for.

        0 where the mask is uninformative. No gradient.

        Args:
            view: (R,) int64.
            mask: (R,) in [0, 1].
            identity: (R,) int64, the object that the mask names, 0 for none; None with one object.
        """
        with torch.no_grad():
            rates = self.rates()
            said = rates.diagonal(dim1=1, dim2=2)  # (V, K + 1) probability that a mask names the right class
            others = rates.masked_fill(torch.eye(rates.shape[1], dtype=torch.bool, device=rates.device), 0.0)
            weights = (said / others.amax(1)).log().clamp(min=0.0)
            named = 1 if identity is None else identity.clamp(min=1)
            return mask * weights[view, named] + (1.0 - mask) * weights[view, 0]


def class_shares(mask: Tensor, identity: Tensor | None, objects: int) -> Tensor:
    """(R, K + 1) shares of the background and of K objects.

    Args:
        mask: (R,) in [0, 1], of any object.
        identity: (R,) int64 object that it is, 0 for none; None with one object.
        objects: K.
    """
    if identity is None:
        return torch.stack([1.0 - mask, mask], -1)
    shares = torch.zeros(len(mask), objects + 1, dtype=mask.dtype, device=mask.device)
    shares[:, 0] = 1.0 - mask
    return shares.scatter_add(1, identity.clamp(min=1)[:, None], mask[:, None])


def _prior_rates(objects: int) -> Tensor:
    """(K + 1, K) share of each class that a mask gives to each object."""
    false, true = PRIOR_RATES
    rates = torch.full((objects + 1, objects), false / objects)
    if objects > 1:
        rates[1:] = (1.0 - true) / objects
    rates[1:].fill_diagonal_(true)
    return rates
