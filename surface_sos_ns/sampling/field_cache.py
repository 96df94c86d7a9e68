"""Coarse copies of both fields on regular grids, refreshed now and then: the cheap look that says where to sample."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from surface_sos_ns.rendering.blend import transmittance
from surface_sos_ns.rendering.neus import density_opacity
from surface_sos_ns.sampling.contraction import contract

LEAST_LIGHT = 1e-4
"""Share of a ray's light below which the cached fields are not followed any farther."""


def cell_centres(index: Tensor, resolution: int, extent: float) -> Tensor:
    """(I, 3) centres of some cells of the cube [-extent, extent]^3; index (I,) counts them, x slowest."""
    cell = torch.stack([index // resolution**2, index // resolution % resolution, index % resolution], -1)
    return ((cell + 0.5) / resolution * 2 - 1) * extent


def grid_centres(resolution: int, extent: float, device: torch.device | str = "cpu") -> Tensor:
    """(resolution**3, 3) cell centres of the cube [-extent, extent]^3, x slowest."""
    return cell_centres(torch.arange(resolution**3, device=device), resolution, extent)


def look_up(grid: Tensor, points: Tensor, extent: float) -> Tensor:
    """Trilinear values of a grid; beyond the outermost cell centres they stay what they are there.

    Args:
        grid: (N, N, N) indexed [x, y, z] over [-extent, extent]^3.
        points: (..., 3) in the grid's frame.
        extent: half the side of the grid's cube, in the units of the points.

    Returns:
        (...). Gradients go to grid and points.

    Raises:
        ValueError: compiled for the CPU, where a gradient is asked for: there is none.
    """
    at = (points / extent).flip(-1).reshape(1, 1, 1, -1, 3)  # grid_sample wants (depth, height, width) as (z, y, x)
    return F.grid_sample(grid[None, None], at, align_corners=False, padding_mode="border").reshape(points.shape[:-1])


def look_up_in_cube(grid: Tensor, points: Tensor) -> Tensor:
    """`look_up` in the object cube [-1, 1]^3, and 0 outside it."""
    return look_up(grid, points, 1.0) * (points.abs() <= 1.0).all(-1)


def look_up_nearest(grid: Tensor, points: Tensor, extent: float) -> Tensor:
    """Value of the cell a point lies in; same conventions as `look_up`."""
    n = grid.shape[0]
    cell = ((points / extent + 1) * (0.5 * n)).long().clamp(0, n - 1)
    return grid.reshape(-1)[(cell[..., 0] * n + cell[..., 1]) * n + cell[..., 2]]


class FieldCache(nn.Module):
    """Cached foreground SDF and label gate (object cube), and background density (contracted cube).

    All are buffers, so a loaded checkpoint renders at once and exactly as it was trained.

    Args:
        resolution: cells per axis of the object cube.
        background_resolution: cells per axis of contracted space.
        splits: whether the gate is kept up to date, so that it also says where the background is hidden (eq. 5).
    """

    sdf: Tensor
    gate: Tensor
    density: Tensor

    def __init__(self, resolution: int, background_resolution: int, splits: bool = False):
        super().__init__()
        self.resolution, self.background_resolution, self.splits = resolution, background_resolution, splits
        self.register_buffer("sdf", torch.zeros(resolution, resolution, resolution))
        self.register_buffer("gate", torch.ones(resolution, resolution, resolution))
        self.register_buffer("density", torch.zeros((background_resolution,) * 3))

    @property
    def cell(self) -> float:
        """Side of a cell of the foreground's cube, object-frame units."""
        return 2.0 / self.resolution

    def interval_weights(
        self,
        origins: Tensor,
        directions: Tensor,
        edges: Tensor,
        sharpness: float,
        contraction_radius: float = 1.0,
        background_only: bool = False,
    ) -> Tensor:
        """Estimated share of a ray's light that stops in each coarse interval, 0 once `LEAST_LIGHT` is left.

        Args:
            origins, directions: (R, 3), object frame.
            edges: (R, E + 1) distances.
            sharpness: b of the foreground; limited to what the cache resolves.
            contraction_radius: radius within which the background's space is not contracted, object-frame units.
            background_only: leave the foreground out (clean plate).

        Returns:
            (R, E).
        """
        middle = 0.5 * (edges[:, 1:] + edges[:, :-1])
        points = origins[:, None] + directions[:, None] * middle[..., None]
        density = look_up_nearest(self.density, contract(points / contraction_radius), 2.0)
        opacity = density_opacity(density, edges[:, 1:] - edges[:, :-1])
        if not background_only:
            at_edges = origins[:, None] + directions[:, None] * edges[..., None]
            sdf = look_up(self.sdf, at_edges, 1.0)
            inside = (points.square().sum(-1) < 1.0).to(sdf.dtype)
            before = torch.sigmoid(sdf * min(sharpness, 1.0 / self.cell))
            surface = ((before[:, :-1] - before[:, 1:]) / before[:, :-1].clamp(min=1e-6)).clamp(0, 1) * inside
            gate = look_up(self.gate, points, 1.0) * inside
            if self.splits:  # background that the label hides must not draw the samples away from the surface
                opacity = opacity * (1.0 - gate)
            surface = surface * gate
            opacity = 1.0 - (1.0 - opacity) * (1.0 - surface)
        light = transmittance(opacity)[:, :-1]
        return light * opacity * (light >= LEAST_LIGHT)
