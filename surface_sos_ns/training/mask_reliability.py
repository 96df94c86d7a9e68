"""How far each coarse mask can be believed, learned from how it differs from what all of them together say.

Masks of one capture fail in their own ways: one has bites, one a blob on the wall, one nothing at all. With rates of
their failures, votes can be weighed as crowdsourced labels are (Dawid & Skene 1979): a mask that misses much but
invents little says more where it says object than where it says background.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

FIRST_RATES = (0.1, 0.8)
"""Share of the background and of the object that a mask is taken to cover before anything is known."""
FIRST_RAYS = 64.0
"""Rays of each kind that this assumption is worth."""
LEAST_RATE = 0.02
"""No mask is believed to be surer than this."""


class MaskReliability(nn.Module):
    """Rates at which the masks of V views cover background and object, near the object, and what their votes weigh.

    Args:
        views: V.
        memory: rays of a view after which what was counted counts half.
    """

    counts: Tensor

    def __init__(self, views: int, memory: float = 2000.0):
        super().__init__()
        self.memory = memory
        self.register_buffer("counts", torch.zeros(views, 2, 2))  # rays by truth and by mask

    @torch.no_grad()
    def observe(self, view: Tensor, mask: Tensor, truth: Tensor) -> None:
        """Count rays that pass near the object.

        Args:
            view: (R,) int64.
            mask: (R,) what the mask says, in [0, 1].
            truth: (R,) what all masks together say, in [0, 1].
        """
        both = torch.stack([1.0 - truth, truth], -1)[:, :, None] * torch.stack([1.0 - mask, mask], -1)[:, None]
        rays = torch.zeros_like(self.counts[:, 0, 0]).index_add_(0, view, torch.ones_like(mask))
        self.counts.mul_(0.5 ** (rays / self.memory)[:, None, None])
        self.counts.index_add_(0, view, both)

    def forget(self, views: Sequence[int]) -> None:
        """Know nothing of some views' masks: they are others now."""
        self.counts[list(views)] = 0.0

    def rates(self) -> tuple[Tensor, Tensor]:
        """(V,) shares of the background near the object, and of the object, that each mask covers."""
        first = torch.tensor(FIRST_RATES, device=self.counts.device)
        covered = self.counts[..., 1] + FIRST_RAYS * first
        rates = (covered / (self.counts.sum(-1) + FIRST_RAYS)).clamp(LEAST_RATE, 1.0 - LEAST_RATE)
        return rates[:, 0], rates[:, 1]

    def vote_weight(self, view: Tensor, mask: Tensor) -> Tensor:
        """(R,) what a vote weighs: its log-likelihood ratio, 0 for masks that say nothing. No gradient.

        Args:
            view: (R,) int64.
            mask: (R,) in [0, 1].
        """
        with torch.no_grad():
            false, true = self.rates()
            for_object = (true / false).log().clamp(min=0.0)[view]
            against = ((1.0 - false) / (1.0 - true)).log().clamp(min=0.0)[view]
            return mask * for_object + (1.0 - mask) * against
