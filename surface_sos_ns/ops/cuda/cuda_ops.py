"""The back-end for CUDA: hash grid in Triton or tiny-cuda-nn; sampling, rendering and Adam in Triton; else torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from surface_sos_ns.ops.cuda import grid_tcnn
from surface_sos_ns.ops.layout import GridLayout
from surface_sos_ns.ops.torch_ops import GPU_CHUNK_POINTS, TorchOps
from surface_sos_ns.rendering.composite import PackedValues, RayColours, RayWeights
from surface_sos_ns.sampling.field_cache import FieldCache
from surface_sos_ns.sampling.ray_samples import SamplePlan, Samples

Encode = Callable[[Tensor, Tensor, GridLayout, bool], "tuple[Tensor, Tensor | None]"]
"""A function with the arguments and the result of `ops.hash_grid.encode`."""


class CudaOps(TorchOps):
    """Kernels for CUDA. Arguments, results and errors are those of `TorchOps`.

    Args:
        grid: implementation of the hash grid; with Triton's, what happens along rays, and Adam, is in Triton as well.
        remark: added to `describe`, such as why the hash grid is not in Triton.
    """

    name = "cuda"

    def __init__(self, grid: Literal["triton", "tcnn", "torch"], remark: str | None = None):
        static = grid != "tcnn"  # nobody knows when tiny-cuda-nn waits for the host
        super().__init__(static, GPU_CHUNK_POINTS)
        self.grid, self.remark = grid, remark
        self._encode: Encode = super().hash_grid
        # the modules with the kernels for rendering, for sampling and for the optimiser
        self._along_rays: Any = None
        self._sampler: Any = None
        self._adam: Any = None
        if grid == "triton":
            from surface_sos_ns.ops.cuda import adam, composite, grid_operator, sampler  # their import needs torch 2.4

            self._encode, self._along_rays, self._sampler, self._adam = grid_operator.encode, composite, sampler, adam
        elif grid == "tcnn":
            self._encode = grid_tcnn.encode

    def describe(self) -> str:
        grid = self.grid if self.remark is None else f"{self.grid} ({self.remark})"
        kernels = "hash grid" if self._along_rays is None else "hash grid, sampling, rendering and Adam"
        return f"CUDA, {kernels}: {grid}, else torch"

    def hash_grid(
        self, x: Tensor, table: Tensor, layout: GridLayout, jacobian: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        return self._encode(x, table, layout, jacobian)

    # ------------------------------------------------------------------ sampling

    def look_up(self, grid: Tensor, points: Tensor, extent: float) -> Tensor:
        wants_gradient = torch.is_grad_enabled() and (grid.requires_grad or points.requires_grad)
        if self._sampler is None or wants_gradient or not _single_precision(grid, points):
            return super().look_up(grid, points, extent)
        return self._sampler.look_up(grid, points, extent)

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
        if self._sampler is None or not _single_precision(*tensors):
            return super().sample_edges(*given)
        return self._sampler.sample_edges(*given)

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
        if self._sampler is None or not fits or not _single_precision(*tensors, *([] if hull is None else [hull])):
            return super().sample_rays(*given)
        return self._sampler.sample_rays(*given)

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
        if index is not None or not self._can_render(*given):
            return super().section_opacity(*given, anneal, index)
        return self._along_rays.section_opacity(*given, anneal)

    def density_section_opacity(
        self, density: Tensor, crop: Tensor, interval: Tensor, index: Tensor | None = None
    ) -> Tensor:
        given = (density, crop, interval)
        if index is not None or not self._can_render(*given):
            return super().density_section_opacity(*given, index)
        return self._along_rays.density_section_opacity(*given)

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
        if not self._can_render(foreground.values, background.values, gate.values, *given[3:]):
            return super().composite_weights(*given)
        return self._along_rays.composite_weights(*given)

    def composite_colours(
        self, weights: RayWeights, foreground: PackedValues, background: PackedValues, normal: PackedValues
    ) -> RayColours:
        given = (foreground, background, normal)
        if not self._can_render(*weights[:4], *(packed.values for packed in given)):
            return super().composite_colours(weights, *given)
        return self._along_rays.composite_colours(weights, *given)

    def accumulate_detached(self, weights: Tensor, values: PackedValues) -> Tensor:
        if not self._can_render(weights, values.values):
            return super().accumulate_detached(weights, values)
        return self._along_rays.accumulate_detached(weights, values)

    def _can_render(self, *tensors: Tensor) -> bool:
        """Whether there are kernels for rendering, for tensors of these types."""
        return self._along_rays is not None and _single_precision(*tensors)

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
        if self._adam is None or not contiguous or not _single_precision(*given[:4]):
            super().sparse_adam_step(*given)
        else:
            self._adam.sparse_adam_step(*given)


def _single_precision(*tensors: Tensor) -> bool:
    return all(tensor.dtype == torch.float32 for tensor in tensors)
