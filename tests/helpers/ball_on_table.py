"""A ball that stands on a painted table, in known light."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from surface_sos_ns.sampling.field_cache import grid_centres

RADIUS = 0.5
"""Of a ball in the middle of the cube; it stands on the plane z = -RADIUS."""


def ball(resolution: int = 64, radius: float = RADIUS) -> Tensor:
    """(N, N, N) bool: the cells whose middles are inside."""
    n = resolution
    return (grid_centres(n, 1.0).norm(dim=-1) < radius).reshape(n, n, n)


def passes_ball(points: Tensor, directions: Tensor, radius: float = RADIUS) -> Tensor:
    """(...,) bool: whether rays that start outside the ball pass it by, in closed form."""
    along = -(points * directions).sum(-1)
    nearest = points + directions * along.clamp(min=0)[..., None]
    return nearest.norm(dim=-1) > radius


def table(resolution: int = 96, extent: float = 2.0) -> Tensor:
    """(N, N, 3) points on the plane that the ball stands on, x along the first axis."""
    axis = ((torch.arange(resolution) + 0.5) / resolution * 2 - 1) * extent
    x, y = torch.meshgrid(axis, axis, indexing="ij")
    return torch.stack([x, y, torch.full_like(x, -RADIUS)], -1)


def paint(points: Tensor) -> Tensor:
    """(3, ...) stripes and a sheet of paper: sharp edges, and nothing to do with where the shadow is."""
    stripe = 0.35 + 0.3 * (torch.sin(9.0 * points[..., 1] + 0.8 * torch.sin(3 * points[..., 0])) > 0)
    sheet = ((points[..., :2] - torch.tensor([0.9, -0.8])).abs() < 0.35).all(-1)
    brown = stripe * torch.tensor([1.0, 0.7, 0.4]).reshape(3, *[1] * stripe.dim())
    return torch.where(sheet, torch.tensor(0.9), brown)


def light_on(points: Tensor, sun: Tensor, share: float, sky: int = 600) -> Tensor:
    """(...,) light that reaches points beside the ball from a sun and an even sky (Lambert), 1 without the ball."""
    generator = torch.Generator().manual_seed(5)
    height, turn = torch.rand(sky, generator=generator).sqrt(), 2 * math.pi * torch.rand(sky, generator=generator)
    across = (1 - height**2).sqrt()
    directions = torch.stack([across * turn.cos(), across * turn.sin(), height], -1)
    from_sky = torch.stack([passes_ball(points, direction).float() for direction in directions]).mean(0)
    return share * passes_ball(points, sun).float() + (1 - share) * from_sky
