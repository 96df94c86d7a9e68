"""Cached fields that guide sampling: values of both fields on regular grids, refreshed every few training steps.

They take the place of instant-ngp's occupancy grid (which the paper uses) and of a proposal network.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from surface_sos_ns.rendering.blend import transmittance
from surface_sos_ns.rendering.neus import density_opacity
from surface_sos_ns.sampling.contraction import contract

MIN_TRANSMITTANCE = 1e-4
"""Transmittance below which a ray is not followed farther through the cached fields."""


def cell_centres(index: Tensor, resolution: int, extent: float) -> Tensor:
    """Centres (I, 3) of cells of the cube [-extent, extent]^3, by their flat index (I,), x slowest."""
    cell = torch.stack([index // resolution**2, index // resolution % resolution, index % resolution], -1)
    return ((cell + 0.5) / resolution * 2 - 1) * extent


def grid_centres(resolution: int, extent: float, device: torch.device | str = "cpu") -> Tensor:
    """Centres (resolution**3, 3) of all cells of the cube [-extent, extent]^3, x slowest."""
    return cell_centres(torch.arange(resolution**3, device=device), resolution, extent)


def look_up(grid: Tensor, points: Tensor, extent: float) -> Tensor:
    """Trilinear interpolation of a grid, extended constantly beyond the outermost cell centres.

    Args:
        grid: (N, N, N) values at cell centres, indexed [x, y, z], over [-extent, extent]^3.
        points: (..., 3) in the grid's frame.
        extent: half the side of the grid's cube, in the units of the points.

    Returns:
        (...). Gradients go to grid and points.

    Raises:
        ValueError: numba back-end only, where a gradient is asked for: it has none.
    """
    at = (points / extent).flip(-1).reshape(1, 1, 1, -1, 3)  # grid_sample wants (depth, height, width) as (z, y, x)
    return F.grid_sample(grid[None, None], at, align_corners=False, padding_mode="border").reshape(points.shape[:-1])


def look_up_in_cube(grid: Tensor, points: Tensor) -> Tensor:
    """`look_up` in the object cube [-1, 1]^3; 0 outside it."""
    return look_up(grid, points, 1.0) * (points.abs() <= 1.0).all(-1)


def look_up_nearest(grid: Tensor, points: Tensor, extent: float) -> Tensor:
    """Value (...) of the cell that contains a point; arguments as for `look_up`."""
    n = grid.shape[0]
    cell = ((points / extent + 1) * (0.5 * n)).long().clamp(0, n - 1)
    return grid.reshape(-1)[(cell[..., 0] * n + cell[..., 1]) * n + cell[..., 2]]


def distance_to_cells(cells: Tensor) -> Tensor:
    """Signed distance (N, N, N), in cells, to the border of cells (N, N, N) bool, negative in them.

    N everywhere if there are none, -N if all cells are.
    """
    from scipy.ndimage import distance_transform_edt

    there = cells.cpu().numpy()
    outer, inner = distance_transform_edt(~there), distance_transform_edt(there)
    if not there.any() or there.all():
        return torch.full_like(cells, -len(cells) if there.any() else len(cells), dtype=torch.float32)
    # Both are distances to the nearest centre on the other side; the border is half a cell before it.
    distance = np.where(there, 0.5 - inner, outer - 0.5)
    return torch.as_tensor(distance.astype(np.float32), device=cells.device)


class FieldCache(nn.Module):
    """Cached foreground SDF and gate over the object cube, and cached background density over contracted space.

    The gate is the alpha of eq. 3 that splits the layers. All are buffers: a loaded checkpoint draws the same samples.

    Args:
        resolution: cells per axis of the grids over the object cube [-1, 1]^3.
        background_resolution: cells per axis of the grid over contracted space, [-2, 2]^3.
        splits: whether the cached gate is kept up to date, and attenuates the background as in eq. 5. If not, it is 1.

    Attributes:
        sdf: (N, N, N) signed distance, object radii.
        gate: (N, N, N) in [0, 1].
        density: (D, D, D) cropped density per object radius.
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
        """Side of a cell of the object cube's grids, object radii."""
        return 2.0 / self.resolution

    def interval_weights(
        self,
        origins: Tensor,
        directions: Tensor,
        edges: Tensor,
        sharpness: float | Tensor,
        contraction_radius: float = 1.0,
        background_only: bool = False,
    ) -> Tensor:
        """Volume rendering weights of coarse intervals in the cached fields (eq. 3-7), the importance for sampling.

        Args:
            origins, directions: (R, 3), object frame, directions unit.
            edges: (R, E + 1) increasing distances of the intervals' edges.
            sharpness: b of the foreground (eq. 6); limited to the inverse of the cache's cell.
            contraction_radius: radius within which space is not contracted, object radii.
            background_only: leave the foreground out (clean plate).

        Returns:
            (R, E); 0 once the transmittance is below `MIN_TRANSMITTANCE`.
        """
        middle = 0.5 * (edges[:, 1:] + edges[:, :-1])
        points = origins[:, None] + directions[:, None] * middle[..., None]
        density = look_up_nearest(self.density, contract(points / contraction_radius), 2.0)
        opacity = density_opacity(density, edges[:, 1:] - edges[:, :-1])
        if not background_only:
            at_edges = origins[:, None] + directions[:, None] * edges[..., None]
            sdf = look_up(self.sdf, at_edges, 1.0)
            inside = (points.square().sum(-1) < 1.0).to(sdf.dtype)
            finest = 1.0 / self.cell
            slope = sharpness.clamp(max=finest) if isinstance(sharpness, Tensor) else min(sharpness, finest)
            phi = torch.sigmoid(sdf * slope)
            surface = ((phi[:, :-1] - phi[:, 1:]) / phi[:, :-1].clamp(min=1e-6)).clamp(0, 1) * inside
            gate = look_up(self.gate, points, 1.0) * inside
            if self.splits:  # background that the gate suppresses (eq. 5) must not attract samples
                opacity = opacity * (1.0 - gate)
            surface = surface * gate
            opacity = 1.0 - (1.0 - opacity) * (1.0 - surface)
        light = transmittance(opacity)[:, :-1]
        return light * opacity * (light >= MIN_TRANSMITTANCE)
