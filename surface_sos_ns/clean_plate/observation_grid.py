"""Where training has seen the background, so that a clean plate can say what of it is known and what is a guess."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from surface_sos_ns.sampling.contraction import contract, expand
from surface_sos_ns.sampling.field_cache import cell_centres, look_up

HARDLY_SEEN = 0.05
"""Share of the light that is enough: cells with less than it have hardly been seen, and are not discounted."""


class ObservationGrid(nn.Module):
    """Light of training rays that ended in the background, on a grid over space contracted around the object sphere.

    Contracted at the object's own radius, not as BaCo's space is, it resolves best what the object hides or touches.
    It is a buffer, so a checkpoint knows it.

    Args:
        resolution: cells per axis.
        enough: light, in rays, at which a cell counts as seen with confidence 1 - 1/e.
        share: of the light in the cell where an average ray ends; where that is less, it is enough. So a short run and
            a view amid training say the same as a long one, less finely.
        half_life: share of the run after which what was seen counts half: surfaces move while they are learned.
    """

    light: Tensor
    faded_at: Tensor

    def __init__(self, resolution: int, enough: float = 3.0, share: float = 0.1, half_life: float = 0.25):
        super().__init__()
        self.resolution, self.enough, self.share, self.half_life = resolution, enough, share, half_life
        self._enough_here = (-1, enough)  # and the state of `light` it is of
        self.register_buffer("light", torch.zeros((resolution,) * 3))
        self.register_buffer("faded_at", torch.zeros((), dtype=torch.float64))  # fraction of the run at the last `fade`

    @torch.no_grad()
    def add(self, points: Tensor, weights: Tensor) -> None:
        """Count light `weights` (P,), in rays, that ended at points (P, 3) of the object frame."""
        n = self.resolution
        cell = ((contract(points) / 2.0 + 1) * (0.5 * n)).long().clamp(0, n - 1)
        flat = (cell[:, 0] * n + cell[:, 1]) * n + cell[:, 2]
        self.light.view(-1).index_add_(0, flat, weights)

    @torch.no_grad()
    def fade(self, progress: float) -> None:
        """Let what was counted fade, up to this fraction of the run."""
        self.light.mul_(0.5 ** max((progress - float(self.faded_at)) / self.half_life, 0.0))
        self.faded_at.fill_(progress)

    @torch.no_grad()
    def discount(self, visibility: Callable[[Tensor], Tensor]) -> None:
        """Discount what cannot have been seen: rays that leaked through the object, say.

        Args:
            visibility: in [0, 1], (P,), how much of the light at points (P, 3) of the object frame counts.
        """
        light = self.light.view(-1)
        index = (light > HARDLY_SEEN * self._enough()).nonzero()[:, 0]
        centres = cell_centres(index, self.resolution, 2.0)
        light[index] *= visibility(expand(centres))

    def confidence(self, points: Tensor) -> Tensor:
        """In [0, 1], (P,): how surely training has seen what is at points (P, 3) of the object frame. No gradient."""
        with torch.no_grad():
            return 1.0 - torch.exp(-look_up(self.light, contract(points), 2.0) / self._enough())

    def _enough(self) -> float:
        """Light, in rays, that is enough after what has been counted so far."""
        if self._enough_here[0] != self.light._version:
            per_ray = float(self.light.square().sum() / self.light.sum().clamp(min=1e-6))
            enough = min(self.enough, self.share * per_ray) if per_ray > 0 else self.enough
            self._enough_here = (self.light._version, enough)
        return self._enough_here[1]
