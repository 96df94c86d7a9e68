"""Sampling of rays and look-ups on CUDA, as operators that fake tensors know without Triton; none has a gradient.

What is computed is in `sampling/`, the kernels are in `sampler_triton`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.library import custom_op

from surface_sos_ns.sampling.field_cache import FieldCache
from surface_sos_ns.sampling.ray_samples import SamplePlan


def _kernels() -> Any:
    from surface_sos_ns.ops.cuda import sampler_triton  # its import needs the package triton

    return sampler_triton


@custom_op("surface_sos::look_up", mutates_args=())
def _look_up(grid: Tensor, points: Tensor, extent: float) -> Tensor:
    return _kernels().look_up(grid, points, extent)


@_look_up.register_fake
def _(grid: Tensor, points: Tensor, extent: float) -> Tensor:
    return points.new_empty(points.shape[0])


@custom_op("surface_sos::sample_edges", mutates_args=())
def _sample_edges(
    origins: Tensor,
    directions: Tensor,
    density: Tensor,
    sdf: Tensor,
    gate: Tensor,
    sharpness: Tensor,
    jitter: Tensor | None,
    counts: list[int],
    near_fraction: float,
    far: float,
    contraction_radius: float,
    splits: bool,
    background_only: bool,
    draws: int,
) -> Tensor:
    return _kernels().sample_edges(
        origins,
        directions,
        density,
        sdf,
        gate,
        sharpness,
        jitter,
        counts,
        near_fraction,
        far,
        contraction_radius,
        splits,
        background_only,
        draws,
    )


@_sample_edges.register_fake
def _(origins: Tensor, *given: Any) -> Tensor:
    return origins.new_empty(origins.shape[0], given[-1])


def look_up(grid: Tensor, points: Tensor, extent: float) -> Tensor:
    """See `sampling.field_cache.look_up`; float32, without gradients.

    Raises:
        ValueError: the grid is no cube.
    """
    _check_cubes(grid)
    return _look_up(grid.contiguous(), points.reshape(-1, 3).contiguous(), extent).view(points.shape[:-1])


def sample_edges(
    cache: FieldCache,
    origins: Tensor,
    directions: Tensor,
    plan: SamplePlan,
    stratified: bool,
    jitter: Tensor | None = None,
) -> Tensor:
    """See `sampling.ray_samples.sample_edges`; float32, without gradients.

    Raises:
        ValueError: shapes do not fit.
    """
    rays, draws = origins.shape[0], plan.samples + 1
    if origins.shape != (rays, 3) or directions.shape != (rays, 3):
        raise ValueError(f"rays must be (R, 3), got {tuple(origins.shape)} and {tuple(directions.shape)}")
    if jitter is None and stratified:
        jitter = torch.rand(rays, draws, device=origins.device)
    if jitter is not None and jitter.shape != (rays, draws):
        raise ValueError(f"jitter must be {(rays, draws)}, got {tuple(jitter.shape)}")
    _check_cubes(cache.density)
    _check_cubes(cache.sdf, cache.gate)
    sharpness = plan.sharpness
    return _sample_edges(
        origins.contiguous(),
        directions.contiguous(),
        cache.density.contiguous(),
        cache.sdf.contiguous(),
        cache.gate.contiguous(),
        sharpness if isinstance(sharpness, Tensor) else origins.new_full((), sharpness),
        None if jitter is None else jitter.contiguous(),
        list(plan.candidates),
        plan.near_fraction,
        plan.far,
        plan.contraction_radius,
        cache.splits,
        plan.background_only,
        draws,
    )


def _check_cubes(*grids: Tensor) -> None:
    sizes = {tuple(grid.shape) for grid in grids}
    if len(sizes) > 1 or len(set(grids[0].shape)) != 1 or grids[0].ndim != 3:
        raise ValueError(f"cached grids must be cubes of one size, got {sorted(sizes)}")
