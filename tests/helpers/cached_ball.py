"""Cached fields of a dented ball in front of a patchy wall, and rays that look at it."""

from __future__ import annotations

import torch
from torch import Tensor

from surface_sos_ns.sampling.field_cache import FieldCache, grid_centres
from surface_sos_ns.sampling.ray_samples import SamplePlan

PLAN = SamplePlan((7, 40, 19), 0.4, 200.0, samples=24, sharpness=400.0, margin=0.08, min_hull_probability=0.02)


def uniform(*shape: int, seed: int = 5) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def rays(count: int, distance: float = 3.0, spread: float = 0.5, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Rays from a sphere of cameras towards the object, or past it."""
    generator = torch.Generator().manual_seed(seed)
    origins = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=-1) * distance
    aim = torch.randn(count, 3, generator=generator) * spread
    return origins, torch.nn.functional.normalize(aim - origins, dim=-1)


def soft_ball(resolution: int, radius: float, slope: float) -> Tensor:
    inside = radius - grid_centres(resolution, 1.0).norm(dim=-1)
    return torch.sigmoid(inside * slope).reshape(resolution, resolution, resolution)


def cached_ball(resolution: int = 32, splits: bool = True) -> tuple[FieldCache, Tensor, Tensor]:
    """Cache, m^P and hull of a dented ball in thin fog, with a patchy wall around it."""
    cache = FieldCache(resolution, 40, splits)
    shape, beyond = cache.sdf.shape, cache.density.shape
    near = grid_centres(resolution, 1.0)
    cache.sdf.copy_((near.norm(dim=-1) - 0.5 + 0.05 * torch.sin(near.sum(-1) * 9)).reshape(shape))
    cache.gate.copy_(soft_ball(resolution, 0.6, 30.0))
    wall = (grid_centres(40, 2.0).norm(dim=-1) > 1.75).reshape(beyond)
    cache.density.copy_(uniform(*beyond, seed=1) * (0.05 + 20.0 * wall * (uniform(*beyond, seed=2) > 0.5)))
    return cache, soft_ball(40, 0.5, 40.0), soft_ball(40, 0.6, 20.0)
