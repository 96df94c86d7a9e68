"""The back-end for a CPU, compiled by numba."""

from __future__ import annotations

import torch
from torch import Tensor

from surface_sos_ns.ops.cpu import adam, composite, encoded, grid, mlp, sampler, sdf, threads
from surface_sos_ns.ops.layout import GridLayout
from surface_sos_ns.ops.networks import SOFTPLUS_BETA, spherical_harmonics
from surface_sos_ns.ops.torch_ops import TorchOps
from surface_sos_ns.rendering.composite import MIN_BACKGROUND_OPACITY, PackedValues, RayColours, RayWeights
from surface_sos_ns.sampling.field_cache import MIN_TRANSMITTANCE, FieldCache
from surface_sos_ns.sampling.importance import UNIFORM_SHARE
from surface_sos_ns.sampling.ray_samples import MIN_UNCROPPED, SamplePlan, Samples, live_margin
from surface_sos_ns.sampling.selection import Selection


class NumbaOps(TorchOps):
    """Kernels of numba for tensors on the CPU, mostly float32. Arguments, results and errors are those of
    `TorchOps`.
    """

    description = "numba"
    fused_networks = True

    def claim_threads(self) -> None:
        threads.claim_cores()

    def threads(self) -> int:
        return threads.thread_count()

    def set_threads(self, count: int) -> None:
        threads.claim_cores()
        if threads.thread_count() != count:
            threads.set_thread_count(count)

    # ------------------------------------------------------------------ fields

    def hash_grid(
        self, x: Tensor, table: Tensor, layout: GridLayout, jacobian: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        return grid.encode(x, table, layout, jacobian)

    def relu_network(self, points: Tensor, table: Tensor, layout: GridLayout, *parameters: Tensor) -> Tensor:
        return encoded.encoded_network(points, table, layout, *parameters).t()

    def sdf_network(
        self, points: Tensor, table: Tensor, layout: GridLayout, extent: float, normals: bool, *parameters: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        return sdf.sdf_and_normal(points, table, layout, extent, SOFTPLUS_BETA, normals, *parameters)

    def colour_network(self, inputs: Tensor, directions: Tensor, *parameters: Tensor) -> Tensor:
        if directions.requires_grad:  # the kernel's harmonics have no gradient: torch computes them, as further inputs
            inputs, directions = torch.cat([inputs, spherical_harmonics(directions)], -1), directions[:0]
        return mlp.network(inputs.t(), directions.t(), True, *parameters).t()

    # ------------------------------------------------------------------ sampling

    def look_up(self, grid: Tensor, points: Tensor, extent: float) -> Tensor:
        return sampler.look_up(grid, points, extent)

    @torch.no_grad()
    def sample_edges(
        self,
        cache: FieldCache,
        origins: Tensor,
        directions: Tensor,
        plan: SamplePlan,
        stratified: bool,
        jitter: Tensor | None = None,
    ) -> Tensor:
        return sampler.sample_edges(_call(cache, origins, directions, plan, stratified, jitter))

    @torch.no_grad()
    def live_rays(self, cache: FieldCache, origins: Tensor, directions: Tensor, plan: SamplePlan) -> Tensor:
        margin = float(live_margin(cache, plan))
        return sampler.live_rays(cache.sdf, origins, directions, plan.candidates, plan.near_fraction, plan.far, margin)

    @torch.no_grad()
    def sample_rays(
        self,
        cache: FieldCache,
        probability: Tensor,
        hull: Tensor | None,
        origins: Tensor,
        directions: Tensor,
        plan: SamplePlan,
        stratified: bool,
        jitter: Tensor | None = None,
    ) -> Samples:
        rays = torch.arange(origins.shape[0])
        if plan.foreground_only:
            rays = self.live_rays(cache, origins, directions, plan)
            origins, directions = origins[rays], directions[rays]
            jitter = None if jitter is None else jitter[rays]
        call = _call(cache, origins, directions, plan, stratified, jitter)
        limits = (float(plan.margin), plan.min_hull_probability, 1.0 - MIN_UNCROPPED, plan.foreground_only)
        *values, near, in_hull, background = sampler.sample_rays(call, probability, hull, *limits)
        edges, middle, interval, points, crop = values
        chosen = (Selection(plan.samples, positions) for positions in (near, in_hull, background))
        return Samples(rays, edges, middle, interval, points, crop, *chosen)

    # ------------------------------------------------------------------ rendering

    def section_opacity(
        self,
        sdf: Tensor,
        normal: Tensor,
        directions: Tensor,
        interval: Tensor,
        sharpness: Tensor,
        anneal: float | Tensor,
        index: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        given = (sdf, normal, directions, interval, sharpness, float(anneal), index)
        if directions.requires_grad:  # refined poses only: the kernel has no gradient to directions
            return super().section_opacity(*given)
        return composite.section_opacity(*given)

    def density_section_opacity(
        self, density: Tensor, crop: Tensor, interval: Tensor, index: Tensor | None = None
    ) -> Tensor:
        return composite.density_section_opacity(density, crop, interval, index)

    def composite_weights(
        self,
        foreground: PackedValues,
        background: PackedValues,
        gate: PackedValues,
        edges: Tensor,
        to_object: Tensor,
        crop: Tensor,
    ) -> RayWeights:
        given = (*_listed(foreground), *_listed(background), *_listed(gate), edges, to_object, crop)
        return RayWeights(*composite.composite_weights(*given))

    def seen_samples(
        self, selection: Selection, threshold: float, weights: Tensor, others: Tensor | None = None
    ) -> tuple[Tensor | slice, Selection]:
        assert selection.positions is not None, "the CPU lists samples"
        chosen, positions = composite.seen_samples(selection.positions, threshold, weights, others)
        return chosen, Selection(selection.samples, positions)

    def composite_colours(
        self, weights: RayWeights, foreground: PackedValues, background: PackedValues, normal: PackedValues
    ) -> RayColours:
        given = (*weights[:4], *_listed(foreground), *_listed(background), *_listed(normal), MIN_BACKGROUND_OPACITY)
        return RayColours(*composite.composite_colours(*given))

    def accumulate_detached(self, weights: Tensor, values: PackedValues) -> Tensor:
        return composite.accumulate_detached(weights, *_listed(values))

    # ------------------------------------------------------------------ optimiser

    def sparse_adam_step(
        self,
        value: Tensor,
        gradient: Tensor,
        mean: Tensor,
        square: Tensor,
        rate: float | Tensor,
        betas: tuple[float, float],
        epsilon: float,
        step: int | Tensor,
    ) -> None:
        given = (value, gradient.contiguous(), mean, square, rate, betas, epsilon, step)
        if value.is_contiguous():
            adam.sparse_adam_step(*given)
        else:
            super().sparse_adam_step(*given)


def _listed(packed: PackedValues) -> tuple[Tensor, Tensor]:
    """Values and positions, for kernels that take listed values only."""
    assert packed.positions is not None, "the CPU lists samples"
    return packed.values, packed.positions


def _call(
    cache: FieldCache, origins: Tensor, directions: Tensor, plan: SamplePlan, stratified: bool, jitter: Tensor | None
) -> sampler.RayCall:
    """The arguments of both samplers."""
    if jitter is None and stratified:
        jitter = torch.rand(origins.shape[0], plan.samples + 1)
    return sampler.RayCall(
        origins,
        directions,
        (cache.density, cache.sdf, cache.gate),
        plan.candidates,
        plan.near_fraction,
        plan.far,
        float(plan.sharpness),
        plan.contraction_radius,
        cache.splits,
        plan.background_only,
        MIN_TRANSMITTANCE,
        plan.samples,
        UNIFORM_SHARE,
        jitter,
    )
