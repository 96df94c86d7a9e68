"""Sampling of rays and look-ups on CUDA, as operators of torch's: fake tensors take them without Triton.

None of them has a gradient. What is computed is in `sampling/`, the kernels are in `sampler_triton`.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.library import custom_op

from surface_sos_ns.ops.cuda.triton_support import compare, scalar
from surface_sos_ns.sampling import field_cache, ray_samples
from surface_sos_ns.sampling.field_cache import FieldCache, grid_centres
from surface_sos_ns.sampling.ray_samples import MIN_UNCROPPED, SamplePlan, Samples
from surface_sos_ns.sampling.selection import Selection


def _kernels() -> Any:
    from surface_sos_ns.ops.cuda import sampler_triton  # its import needs the package triton

    return sampler_triton


@custom_op("surface_sos::look_up", mutates_args=())
def _look_up(grid: Tensor, points: Tensor, extent: float) -> Tensor:
    result: Tensor = _kernels().look_up(grid, points, extent)
    return result


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
    result: Tensor = _kernels().sample_edges(
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
    return result


@_sample_edges.register_fake
def _(origins: Tensor, *given: Any) -> Tensor:
    return origins.new_empty(origins.shape[0], given[-1])


@custom_op("surface_sos::place_samples", mutates_args=())
def _place_samples(
    origins: Tensor,
    directions: Tensor,
    edges: Tensor,
    sdf: Tensor,
    probability: Tensor,
    hull: Tensor | None,
    margin: Tensor,
    min_hull: float,
    max_crop: float,
    background_only: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    result: tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor] = _kernels().place_samples(
        origins, directions, edges, sdf, probability, hull, margin, min_hull, max_crop, background_only
    )
    return result


@_place_samples.register_fake
def _(origins: Tensor, directions: Tensor, edges: Tensor, *given: Any) -> tuple[Tensor, ...]:
    shape = (edges.shape[0], edges.shape[1] - 1)
    middle, interval, crop = (edges.new_empty(shape) for _ in range(3))
    masks = (edges.new_empty(shape, dtype=torch.bool) for _ in range(3))
    return middle, interval, edges.new_empty(*shape, 3), crop, *masks


def look_up(grid: Tensor, points: Tensor, extent: float) -> Tensor:
    """See `sampling.field_cache.look_up`; float32, without gradients.

    Raises:
        ValueError: the grid is no cube.
    """
    _check_cubes(grid)
    result: Tensor = _look_up(grid.contiguous(), points.reshape(-1, 3).contiguous(), extent).view(points.shape[:-1])
    return result


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
    result: Tensor = _sample_edges(
        origins.contiguous(),
        directions.contiguous(),
        cache.density.contiguous(),
        cache.sdf.contiguous(),
        cache.gate.contiguous(),
        scalar(plan.sharpness, origins),
        None if jitter is None else jitter.contiguous(),
        list(plan.candidates),
        plan.near_fraction,
        plan.far,
        plan.contraction_radius,
        cache.splits,
        plan.background_only,
        draws,
    )
    return result


def sample_rays(
    cache: FieldCache,
    probability: Tensor,
    hull: Tensor | None,
    origins: Tensor,
    directions: Tensor,
    plan: SamplePlan,
    stratified: bool,
    jitter: Tensor | None = None,
) -> Samples:
    """See `sampling.ray_samples.sample_rays`; float32. For plans with `dense`, and not with `foreground_only`.

    Raises:
        ValueError: shapes do not fit.
    """
    _check_cubes(probability, *([] if hull is None else [hull]))
    edges = sample_edges(cache, origins, directions, plan, stratified, jitter)
    middle, interval, points, crop, *masks = _place_samples(
        origins.contiguous(),
        directions.contiguous(),
        edges,
        cache.sdf.contiguous(),
        probability.contiguous(),
        None if hull is None else hull.contiguous(),
        scalar(plan.margin, origins),
        plan.min_hull_probability,
        1.0 - MIN_UNCROPPED,
        plan.background_only,
    )
    rays = torch.arange(origins.shape[0], device=origins.device)
    chosen = (Selection.of(mask, plan.dense) for mask in masks)
    return Samples(rays, edges, middle, interval, points.view(-1, 3), crop.view(-1), *chosen)


def probe(device: torch.device) -> None:
    """Run every kernel once on a CUDA device and compare with torch. The first time on a machine takes seconds.

    Raises:
        Exception: Triton does not work here; its own error, of any type.
    """
    plan = SamplePlan((4, 16, 8), 0.4, 50.0, samples=8, sharpness=20.0, margin=0.3, dense=True)
    torchs = (ray_samples.sample_rays, field_cache.look_up, torch.device("cpu"))
    results = []
    with torch.inference_mode(False), torch.no_grad():
        for sample, interpolate, where in (torchs, (sample_rays, look_up, device)):
            cache = FieldCache(8, 8, splits=True).to(where)
            cache.sdf.copy_((grid_centres(8, 1.0).norm(dim=-1) - 0.5).view(8, 8, 8))
            cache.density.fill_(0.1)
            origins = torch.tensor([[2.0, 0.3, -0.2], [0.1, -3.0, 0.2], [0.2, 0.1, 0.3]])
            directions = F.normalize(torch.tensor([[-1.0, 0.0, 0.1], [0.2, 1.0, 0.1], [0.3, 0.2, 1.0]]), dim=-1)
            given = (cache, cache.sdf, cache.sdf, origins.to(where), directions.to(where), plan, False)
            found = sample(*given)
            chosen = (found.near_surface, found.in_hull, found.background)
            masks = [part.pack(torch.ones_like(found.crop)).values for part in chosen]
            numbers = [found.edges.reciprocal(), found.points, found.crop, interpolate(cache.sdf, found.points, 2.0)]
            results.append(numbers + masks)
    compare(*results)


def _check_cubes(*grids: Tensor) -> None:
    sizes = {tuple(grid.shape) for grid in grids}
    if len(sizes) > 1 or len(set(grids[0].shape)) != 1 or grids[0].ndim != 3:
        raise ValueError(f"cached grids must be cubes of one size, got {sorted(sizes)}")
