"""The back-end for CUDA with Triton: hash grid, sampling, rendering and Adam; the networks are torch."""

from __future__ import annotations

import torch
from torch import Tensor

from surface_sos_ns.ops.cuda import adam, composite, grid_operator, sampler
from surface_sos_ns.ops.layout import GridLayout
from surface_sos_ns.ops.torch_ops import GPU_CHUNK_POINTS, TorchOps
from surface_sos_ns.rendering.composite import PackedValues, RayColours, RayWeights
from surface_sos_ns.sampling.field_cache import FieldCache
from surface_sos_ns.sampling.ray_samples import SamplePlan, Samples


class TritonOps(TorchOps):
    """Triton's kernels for CUDA. Arguments, results and errors are those of `TorchOps`.

    What a kernel does not take (other types than float32, listed samples, gradients to look-ups) goes to torch.
    """

    description = "triton for hash grid, sampling, rendering and Adam, torch for the networks"

    def __init__(self) -> None:
        super().__init__(static=True, chunk_points=GPU_CHUNK_POINTS)

    def hash_grid(
        self, x: Tensor, table: Tensor, layout: GridLayout, jacobian: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        return grid_operator.encode(x, table, layout, jacobian)

    # ------------------------------------------------------------------ sampling

    def look_up(self, grid: Tensor, points: Tensor, extent: float) -> Tensor:
        wants_gradient = torch.is_grad_enabled() and (grid.requires_grad or points.requires_grad)
        if wants_gradient or not _single_precision(grid, points):
            return super().look_up(grid, points, extent)
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
        given = (cache, origins, directions, plan, stratified, jitter)
        tensors = (origins, directions, cache.sdf, cache.gate, cache.density)
        if not _single_precision(*tensors):
            return super().sample_edges(*given)
        return sampler.sample_edges(*given)

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
        given = (cache, probability, hull, origins, directions, plan, stratified, jitter)
        tensors = (origins, directions, cache.sdf, cache.gate, cache.density, probability)
        fits = plan.dense and not plan.foreground_only
        if not fits or not _single_precision(*tensors, *([] if hull is None else [hull])):
            return super().sample_rays(*given)
        return sampler.sample_rays(*given)

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
        given = (sdf, normal, directions, interval, sharpness)
        if index is not None or not _single_precision(*given):
            return super().section_opacity(*given, anneal, index)
        return composite.section_opacity(*given, anneal)

    def density_section_opacity(
        self, density: Tensor, crop: Tensor, interval: Tensor, index: Tensor | None = None
    ) -> Tensor:
        given = (density, crop, interval)
        if index is not None or not _single_precision(*given):
            return super().density_section_opacity(*given, index)
        return composite.density_section_opacity(*given)

    def composite_weights(
        self,
        foreground: PackedValues,
        background: PackedValues,
        gate: PackedValues,
        edges: Tensor,
        to_object: Tensor,
        crop: Tensor,
    ) -> RayWeights:
        given = (foreground, background, gate, edges, to_object, crop)
        if not _single_precision(foreground.values, background.values, gate.values, edges, to_object, crop):
            return super().composite_weights(*given)
        return composite.composite_weights(*given)

    def composite_colours(
        self, weights: RayWeights, foreground: PackedValues, background: PackedValues, normal: PackedValues
    ) -> RayColours:
        given = (foreground, background, normal)
        if not _single_precision(*weights[:4], *(packed.values for packed in given)):
            return super().composite_colours(weights, *given)
        return composite.composite_colours(weights, *given)

    def accumulate_detached(self, weights: Tensor, values: PackedValues) -> Tensor:
        if not _single_precision(weights, values.values):
            return super().accumulate_detached(weights, values)
        return composite.accumulate_detached(weights, values)

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
        given = (value, gradient, mean, square, rate, betas, epsilon, step)
        contiguous = all(tensor.is_contiguous() for tensor in (value, mean, square))
        if contiguous and _single_precision(value, gradient, mean, square):
            adam.sparse_adam_step(*given)
        else:
            super().sparse_adam_step(*given)


def _single_precision(*tensors: Tensor) -> bool:
    """Whether all are float32, as the kernels are."""
    return all(tensor.dtype == torch.float32 for tensor in tensors)
