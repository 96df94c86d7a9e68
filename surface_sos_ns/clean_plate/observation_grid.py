"""Where training rays have observed the background: from this follows the confidence of clean plates."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from surface_sos_ns.sampling.contraction import contract, expand
from surface_sos_ns.sampling.field_cache import cell_centres, look_up

MIN_LIGHT_SHARE = 0.05
"""Cells with less light than this share of the light scale have a confidence below 0.05: `discount` skips them."""


class ObservationGrid(nn.Module):
    """Accumulated weights of training rays in the background, on a grid over contracted space.

    Space is contracted at the object's radius, not at that of BaCo: the grid is finest where the object hides or
    touches the background. Weights are counted in rays: a ray that ends in one cell adds 1 to it. It is a buffer, so in
    checkpoints.

    Args:
        resolution: cells per axis.
        light_scale: light, in rays, at which a cell has the confidence 1 - 1/e.
        mean_share: share of the light in the cell where an average ray ends. If this is less than `light_scale`, it is
            the scale: confidence is then comparable between short runs, long ones and views during training.
        half_life: fraction of the run after which light counts half, since surfaces move while they are learned.
    """

    light: Tensor
    faded_at: Tensor

    def __init__(self, resolution: int, light_scale: float = 3.0, mean_share: float = 0.1, half_life: float = 0.25):
        super().__init__()
        self.resolution, self.half_life = resolution, half_life
        self.light_scale, self.mean_share = light_scale, mean_share
        self._scale_cache = (-1, light_scale)  # version of `light`, and its scale
        self.register_buffer("light", torch.zeros((resolution,) * 3))
        self.register_buffer("faded_at", torch.zeros((), dtype=torch.float64))  # fraction of the run at the last `fade`

    @torch.no_grad()
    def add(self, points: Tensor, weights: Tensor) -> None:
        """Add rendering weights (P,) at points (P, 3) of the object frame."""
        n = self.resolution
        cell = ((contract(points) / 2.0 + 1) * (0.5 * n)).long().clamp(0, n - 1)
        flat = (cell[:, 0] * n + cell[:, 1]) * n + cell[:, 2]
        self.light.view(-1).index_add_(0, flat, weights)

    @torch.no_grad()
    def fade(self, progress: float) -> None:
        """Apply the half-life since the last call, up to this fraction of the run."""
        self.light.mul_(0.5 ** max((progress - float(self.faded_at)) / self.half_life, 0.0))
        self.faded_at.fill_(progress)

    @torch.no_grad()
    def discount(self, visibility: Callable[[Tensor], Tensor]) -> None:
        """Scale down light at places that cameras cannot have observed: rays leak through the object.

        Args:
            visibility: points (P, 3) of the object frame -> factor (P,) in [0, 1].
        """
        light = self.light.view(-1)
        index = (light > MIN_LIGHT_SHARE * self._light_scale()).nonzero()[:, 0]
        centres = cell_centres(index, self.resolution, 2.0)
        light[index] *= visibility(expand(centres))

    def confidence(self, points: Tensor) -> Tensor:
        """Confidence (P,), in [0, 1], that training has observed points (P, 3) of the object frame. No gradient."""
        with torch.no_grad():
            return 1.0 - torch.exp(-look_up(self.light, contract(points), 2.0) / self._light_scale())

    def _light_scale(self) -> float:
        """The light scale, in rays, at the present state of the grid; see the class."""
        if self._scale_cache[0] != self.light._version:
            per_ray = float(self.light.square().sum() / self.light.sum().clamp(min=1e-6))
            scale = min(self.light_scale, self.mean_share * per_ray) if per_ray > 0 else self.light_scale
            self._scale_cache = (self.light._version, scale)
        return self._scale_cache[1]
